"""`segq peek`: the next items, left where they are."""

from __future__ import annotations

import sys

import click

import segq
from segq.cli import exits, items


@click.command("peek")
@click.argument("queue", type=click.Path())
@click.option("-n", "count", type=click.IntRange(min=1), default=1, show_default=True, help="How many items.")
@click.option("--json", "as_json", is_flag=True, help="Print every item as a line of JSON, text in quotes too.")
def command(queue: str, count: int, *, as_json: bool) -> int:
    """Print the items that QUEUE would hand out next, without taking them."""
    with segq.Queue(queue, create=False) as source:
        values = source.peek(count)
    render = items.as_json if as_json else items.rendered
    for value in values:
        sys.stdout.buffer.write(render(value) + b"\n")
    return exits.OK if values else exits.NOTHING
