"""`segq purge`: everything that waits is thrown away."""

from __future__ import annotations

import click

from segq.cli import place


@click.command("purge")
@click.argument("queue", type=click.Path())
@click.option("--label", metavar="LABEL", help="Topic: whose items.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(queue: str, *, label: str | None, yes: bool) -> None:
    """Throw away the items that wait in QUEUE. Those that a consumer has in hand are left to it.

    Of a topic: those that wait for one label, which is done with them then.
    """
    if label is not None and label not in place.segq_labels(queue):
        raise click.ClickException(f"{queue} has no label {label!r}")
    with place.open_source(queue, label) as target:
        if not yes:
            click.confirm(f"Throw away the {target.stats().waiting:,} items that wait in {queue}?", abort=True, err=True)
        click.echo(f"{target.purge():,} items thrown away")
