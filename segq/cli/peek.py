"""`segq peek`: the next items, left where they are."""

from __future__ import annotations

import sys

import click

from segq.cli import exits, items, place


@click.command("peek")
@click.argument("queue", type=click.Path())
@click.option("--label", metavar="LABEL", help="Topic: whose items.")
@click.option("-n", "count", type=click.IntRange(min=1), default=1, show_default=True, help="How many items.")
@click.option("--json", "as_json", is_flag=True, help="Print every item as a line of JSON, text in quotes too.")
def command(queue: str, count: int, *, label: str | None, as_json: bool) -> int:
    """Print the items that QUEUE would hand out next, without taking them."""
    if label is not None and label not in place.segq_labels(queue):
        raise click.ClickException(f"{queue} has no label {label!r}")
    with place.open_source(queue, label) as source:
        values = source.peek(count)
    render = items.as_json if as_json else items.rendered
    for value in values:
        sys.stdout.buffer.write(render(value) + b"\n")
    return exits.OK if values else exits.NOTHING
