"""`segq purge`: everything that waits is thrown away."""

from __future__ import annotations

import click

import segq


@click.command("purge")
@click.argument("queue", type=click.Path())
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(queue: str, *, yes: bool) -> None:
    """Throw away the items that wait in QUEUE. Those that a consumer has in hand are left to it."""
    with segq.Queue(queue, create=False) as target:
        if not yes:
            click.confirm(f"Throw away the {target.stats().waiting:,} items that wait in {queue}?", abort=True, err=True)
        click.echo(f"{target.purge():,} items thrown away")
