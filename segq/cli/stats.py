"""`segq stats`: what the queue holds and who uses it."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

import segq
from segq.cli import place

if TYPE_CHECKING:
    from rich.table import Table


@click.command("stats")
@click.argument("queue", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(queue: str, *, as_json: bool) -> None:
    """Show what QUEUE holds, in which segments, and which processes have it open.

    "stored" counts the items not acknowledged yet: those that wait and those that were handed out.
    """
    with place.open_existing(queue) as source:
        stats = source.stats()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(stats)))
    else:
        _show(stats)


def _show(stats: segq.Stats) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"[bold]{_escaped(stats.path)}[/bold]{'  [red]shut down[/red]' if stats.shutdown else ''}")
    console.print(_facts(stats))
    if stats.labels:
        console.print(label_table(stats.labels))
    others = [owner for owner in stats.owners if owner.pid != os.getpid()]
    if others:
        console.print(_owners(others))


def _facts(stats: segq.Stats) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    segments = "  ".join(f"{state} {count}" for state, count in stats.segments.items())
    oldest = "" if stats.oldest is None else f"{span(time.time() - stats.oldest)} ago"
    limits = [f"{stats.capacity:,} items"] if stats.capacity is not None else []
    limits += [f"{stats.max_bytes:,} bytes"] if stats.max_bytes is not None else []
    in_hand = [("  waiting", f"{stats.waiting:,}"), ("  handed out", f"{stats.claimed:,}")]
    rows = [
        ("stored", f"{stats.items:,} items" + ("" if stats.bytes is None else f", {stats.bytes:,} bytes")),
        *([] if stats.kind == "topic" else in_hand),
        ("capacity", ", ".join(limits) or "no limit"),
        ("segments", segments),
        ("oldest item" if "segments" in _unknown(stats) else "oldest segment", oldest or "-"),
        ("rescued owners", f"{stats.rescues:,}"),
        ("delivered again", f"{stats.redelivered:,}"),
    ]
    unknown = _unknown(stats)
    for name, value in rows:
        if _FIELDS.get(name) not in unknown:
            table.add_row(name, value)
    if stats.expired:
        table.add_row("expired", f"{stats.expired:,}")
    if stats.delayed:
        table.add_row("delayed", f"{stats.delayed:,}")
    if stats.dead:
        table.add_row("dead letters", f"[yellow]{stats.dead:,}: see `segq dead list`[/yellow]")
    if stats.quarantined:
        table.add_row("quarantined", f"[red]{stats.quarantined:,}: see `segq check`[/red]")
    return table


_FIELDS = {"segments": "segments", "rescued owners": "rescues", "delivered again": "redelivered"}


def _unknown(stats: segq.Stats | segq.LabelStats) -> tuple[str, ...]:
    """What the engine cannot tell: shown as nothing, not as zero."""
    found: tuple[str, ...] = getattr(stats, "unknown", ())
    return found


def label_table(labels: Sequence[segq.LabelStats]) -> Table:
    """How far each label of a topic is."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("label")
    for name in ("waiting", "handed out", "behind", "acknowledged", "missed", "delivered again"):
        table.add_column(name, justify="right", no_wrap=True)
    for label in labels:
        names = ("acknowledged", "missed", "redelivered")
        counts = ("?" if name in _unknown(label) else f"{getattr(label, name):,}" for name in names)
        behind = span(label.lag_seconds) if label.lag else "-"
        table.add_row(
            _escaped(label.label) or '""',
            f"{label.waiting:,}",
            f"{label.claimed:,}",
            behind,
            *counts,
        )
    return table


def _owners(owners: list[segq.OwnerStats]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for name in ("pid", "put", "taken", "since"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("command", no_wrap=True, overflow="ellipsis", ratio=1)
    for owner in owners:
        since = span(time.time() - owner.started) if owner.started else "?"
        name = _escaped(owner.command) if owner.alive else f"[red]dead:[/red] {_escaped(owner.command)}"
        table.add_row(str(owner.pid), f"{owner.puts:,}", f"{owner.gets:,}", since, name)
    return table


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def span(seconds: float) -> str:
    """A length of time in its largest sensible unit."""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0.0, seconds) / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
