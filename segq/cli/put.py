"""`segq put`: lines, files or arguments become items."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

import segq
from segq.cli import ending, exits, intake, items, place


@click.command("put")
@click.argument("queue", type=click.Path())
@click.argument("values", metavar="[ITEM]...", nargs=-1)
@click.option(
    "--file",
    "files",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="Read this file instead of stdin; may be repeated.",
)
@click.option("--whole", is_flag=True, help="All of stdin (or of each file) is one item.")
@click.option("-0", "--null", is_flag=True, help="Items end with a zero byte instead of a newline (find -print0).")
@click.option("--json", "as_json", is_flag=True, help="Each item is JSON; the queue stores the value.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="When the queue is full, wait this long for room (default: for ever), then exit with 3.",
)
@click.option(
    "--ttl",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="What is put is not handed out any more after so long; with --topic: nor is what anybody puts later.",
)
@click.option("--topic", is_flag=True, help="Create a topic: every label gets every item.")
@click.option(
    "--on-full",
    type=click.Choice(["block", "drop_oldest"]),
    help="New topic: wait for room (default), or let the oldest items go.",
)
@click.option(
    "--retain",
    type=click.Choice(["until-acked", "ttl"]),
    help="New topic: an item goes when every label has it (default), or when its time is over.",
)
@click.option("--capacity", type=click.IntRange(min=1), metavar="ITEMS", help="New queue: hold at most so many items.")
@click.option("--max-bytes", type=click.IntRange(min=1), metavar="BYTES", help="New queue: hold at most so many bytes.")
@click.option(
    "--serializer",
    type=click.Choice(["msgpack", "json", "pickle", "raw"]),
    help="New queue: how items are stored (default msgpack; raw stores bytes only).",
)
@click.option(
    "--durability",
    type=click.Choice(["process", "power"]),
    help="New queue: what a stored item survives: any process (default), or loss of power too.",
)
@click.option(
    "--lease",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="New queue: an item not acknowledged for so long goes to somebody else.",
)
def command(
    queue: str, values: tuple[str, ...], files: tuple[str, ...], *, whole: bool, null: bool, as_json: bool,
    timeout: float | None, ttl: float | None, topic: bool, on_full: str | None, retain: str | None, **settings: Any,
) -> int:  # fmt: skip
    """Put items into QUEUE, which is created if it does not exist.

    Every line of stdin is an item, stored as soon as it has been read. Or every ITEM given, or every line of each
    --file. Lines of an existing queue with serializer raw are stored as bytes, otherwise as text.

    \b
      seq 1000000 | segq put numbers
      segq put urls https://example.org https://example.com
      find . -name '*.jpg' -print0 | segq put -0 pictures
      tail -f log | segq put news --topic --ttl 3600
    """
    if values and (files or whole):
        raise click.UsageError("give items as arguments or read them from a stream, not both")
    if (on_full or retain) and not topic:
        raise click.UsageError("--on-full and --retain are about a new topic: give --topic too")
    if topic:
        settings |= {"ttl": ttl, "on_full": on_full, "retain": retain}
    with place.open_target(queue, settings, topic=topic) as target:
        parse = items.parser(target.settings.serializer, as_json=as_json)
        store = Store(target, parse, timeout, None if topic else ttl)
        try:
            for pieces in _input(values, files, whole=whole, end=b"\0" if null else b"\n"):
                store.put(pieces)
        except segq.Full:
            store.tell("the queue is full")
            return exits.NOTHING
        except BaseException:
            store.tell("stopped")
            raise
    return exits.OK


class Store:
    """Puts pieces and knows how many are stored."""

    def __init__(self, queue: place.Target, parse: items.Parse, timeout: float | None, ttl: float | None) -> None:
        self._queue = queue
        self._parse = parse
        self._timeout, self._ttl = timeout, ttl
        self.read = 0
        self.stored = 0

    def put(self, pieces: list[bytes]) -> None:
        """Stores the pieces, batch by batch. Raises segq.Full when the time given is over."""
        limits = self._queue.settings
        self.read += len(pieces)
        for batch in intake.batches(pieces, limits.capacity, limits.max_bytes):
            ending.leave_if_asked()
            self._queue.put_many(self._parse(batch), timeout=self._timeout, ttl=self._ttl)
            self.stored += len(batch)

    def tell(self, why: str) -> None:
        """What became of the input, for whoever wants to go on from there."""
        unstored = f", {self.read - self.stored} more were read and not stored" if self.read > self.stored else ""
        click.echo(f"segq: {why}: {self.stored} items were stored{unstored}", err=True)


def _input(values: tuple[str, ...], files: tuple[str, ...], *, whole: bool, end: bytes) -> Iterator[list[bytes]]:
    if values:
        yield [os.fsencode(value) for value in values]
        return
    for descriptor in _descriptors(files):
        if whole:
            yield [intake.whole(descriptor)]
        else:
            yield from intake.pieces(descriptor, end)


def _descriptors(files: tuple[str, ...]) -> Iterator[int]:
    if not files:
        yield 0
    for path in files:
        with open(path, "rb", buffering=0) as file:
            yield file.fileno()
