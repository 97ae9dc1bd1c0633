"""`segq labels`: the labels of a topic, how far each is, and how to be rid of one."""

from __future__ import annotations

import dataclasses
import json

import click

import segq
from segq.cli import exits


@click.command("labels")
@click.argument("queue", metavar="TOPIC", type=click.Path())
@click.option("--remove", metavar="LABEL", help="Remove this label, and what only it held back.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each label instead of a table.")
def command(queue: str, *, remove: str | None, as_json: bool) -> int:
    """Show the labels of TOPIC: how many items each has still to do, and how many it missed.

    \b
      segq labels news
      segq labels news --remove mail
    """
    with segq.connect(queue, "topic", create=False) as topic:
        if remove is not None:
            try:
                topic.remove_label(remove)
            except KeyError:
                raise click.ClickException(f"{queue} has no label {remove!r}") from None
            return exits.OK
        found = topic.stats().labels
    if as_json:
        for label in found:
            click.echo(json.dumps(dataclasses.asdict(label)))
    elif found:
        from rich.console import Console

        from segq.cli.stats import label_table

        Console(highlight=False).print(label_table(found))
    return exits.OK if found else exits.NOTHING
