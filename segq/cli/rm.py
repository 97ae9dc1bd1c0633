"""`segq rm`: the queue itself is removed."""

from __future__ import annotations

import click

import segq
from segq.cli import place


@click.command("rm")
@click.argument("queue", type=click.Path())
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(queue: str, *, yes: bool) -> None:
    """Remove QUEUE and everything in it."""
    if not yes:
        with place.open_existing(queue) as target:
            held = target.stats().items
        click.confirm(f"Remove {queue} and the {held:,} items in it?", abort=True, err=True)
    segq.remove(queue)
