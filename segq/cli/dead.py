"""`segq dead`: what was given up: look at it, put it back, throw it away."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING

import click

import segq
from segq.cli import exits, items, place
from segq.cli.stats import span

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 20


@click.group("dead")
def command() -> None:
    """Look at the dead letters of QUEUE, put them back, or throw them away.

    An item becomes one when a consumer rejects it, or when it was handed out as often as the queue (or `segq work
    --max-deliveries`) allows and came back every time. They lie in QUEUE/dead, a queue as well.
    """


@command.command("list")
@click.argument("queue", type=click.Path())
@click.option("-n", "count", type=click.IntRange(min=1), default=_SHOWN, show_default=True, help="How many, oldest first.")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--json", "as_json", is_flag=True, help="Print every letter as a line of JSON, with its value.")
def list_command(queue: str, count: int, *, every: bool, as_json: bool) -> int:
    """List the letters that wait: id, age, how often the item was handed out, and why it was given up."""
    with place.open_existing(queue) as target:
        total = len(target.dead)
        letters = target.dead.peek(max(1, total) if every else count)
    if as_json:
        for letter in letters:
            sys.stdout.buffer.write(items.as_json(_document(letter)) + b"\n")
    elif letters:
        from rich.console import Console

        Console(highlight=False).print(_table(letters))
        if len(letters) < total:
            click.echo(f"{total:,} in all; --all shows every one")
    return exits.OK if letters else exits.NOTHING


@command.command("show")
@click.argument("queue", type=click.Path())
@click.argument("letter_id", metavar="ID")
@click.option("--value", "only_value", is_flag=True, help="Print the item alone, as `segq get` would.")
def show_command(queue: str, letter_id: str, *, only_value: bool) -> None:
    """Show one letter in full, as JSON."""
    with place.open_existing(queue) as target:
        letter = target.dead.find(letter_id)
    if letter is None:
        raise click.ClickException(f"no letter {letter_id!r} waits in {queue}")
    if only_value:
        sys.stdout.buffer.write(items.rendered(letter.value) + b"\n")
    else:
        text = json.loads(items.as_json(_document(letter)))
        click.echo(json.dumps(text, ensure_ascii=False, indent=2))


@command.command("requeue")
@click.argument("queue", type=click.Path())
@click.argument("ids", metavar="[ID...]", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All there are now.")
@click.option("--timeout", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Seconds to wait for room.")
def requeue_command(queue: str, ids: tuple[str, ...], *, every: bool, timeout: float) -> int:
    """Put the items of letters back into QUEUE, as new ones."""
    _one_of(ids, every=every)
    with place.open_existing(queue) as target:
        count = target.dead.requeue(None if every else ids, timeout=timeout)
    return _said(count, "put back", ids)


@command.command("purge")
@click.argument("queue", type=click.Path())
@click.argument("ids", metavar="[ID...]", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge_command(queue: str, ids: tuple[str, ...], *, yes: bool) -> int:
    """Throw letters away: those named, or all that wait."""
    with place.open_existing(queue) as target:
        if not ids and not yes:
            click.confirm(f"Throw away the {len(target.dead):,} dead letters of {queue}?", abort=True, err=True)
        count = target.dead.discard(ids) if ids else target.dead.purge()
    return _said(count, "thrown away", ids)


def _one_of(ids: tuple[str, ...], *, every: bool) -> None:
    if bool(ids) == every:
        raise click.UsageError("say which: the ids of letters (see `segq dead list`), or --all")


def _said(count: int, done: str, ids: tuple[str, ...]) -> int:
    click.echo(f"{count:,} letters {done}" if count != 1 else f"1 letter {done}")
    if ids and count < len(set(ids)):
        click.echo(f"segq: {len(set(ids)) - count:,} of those named do not wait there", err=True)
        return exits.FAILED
    return exits.OK


def _document(letter: segq.DeadLetter) -> dict[str, object]:
    every = {field.name: getattr(letter, field.name) for field in dataclasses.fields(letter) if field.name != "data"}
    return {name: value for name, value in every.items() if name != "label" or value is not None}


def _table(letters: list[segq.DeadLetter]) -> Table:
    from rich.table import Table
    from rich.text import Text

    labelled = any(letter.label is not None for letter in letters)
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("id", no_wrap=True, min_width=max(len(letter.id) for letter in letters))
    for name in ["label"] if labelled else []:
        table.add_column(name)
    table.add_column("age", no_wrap=True, justify="right", min_width=6)
    table.add_column("times", justify="right")
    table.add_column("reason", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("item", no_wrap=True, overflow="ellipsis", ratio=2)
    for letter in letters:
        age = span(time.time() - letter.dead_at)
        value = items.rendered(letter.value).decode("utf-8", "replace")
        cells = [letter.id, *([letter.label or ""] if labelled else []), age, str(letter.deliveries)]
        table.add_row(*map(Text, [*cells, " ".join(letter.reason.split()), value]))
    return table
