"""`segq get`: items go to stdout, or to a command, and are acknowledged when they have arrived there."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

import segq
from segq.cli import ending, exits, items, place

SLICE = 1.0  # seconds: how soon a reader that went away is noticed while nothing comes


@click.command("get")
@click.argument("queue", type=click.Path())
@click.argument("argv", metavar="[-- COMMAND...]", nargs=-1)
@place.label_options
@click.option("--follow", is_flag=True, help="Wait for more, for ever.")
@click.option("--max", "most", type=click.IntRange(min=1), metavar="N", help="Stop after N items.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait for more, and stop when nothing has come for so long.",
)
@click.option("-0", "--null", is_flag=True, help="End each item with a zero byte instead of a newline (xargs -0).")
@click.option("--exact", is_flag=True, help="Print nothing but the items, no newline after each.")
@click.option("--json", "as_json", is_flag=True, help="Print every item as a line of JSON, text in quotes too.")
@click.option(
    "--ack-after",
    is_flag=True,
    help="Run COMMAND on each item (on its stdin); take the item off the queue only if it succeeds.",
)
def command(
    queue: str, argv: tuple[str, ...], *, label: str | None, start: str, follow: bool, most: int | None, timeout: float | None,
    null: bool, exact: bool, as_json: bool, ack_after: bool,
) -> int:  # fmt: skip
    """Print the items of QUEUE and take them off it.

    Without options: all that wait now. Text and bytes are printed as they are, everything else as JSON. An item is
    off the queue when the reader of the output has it; what `segq get q | head` does not read goes back.

    \b
      segq get urls --max 10
      segq get urls --follow | while read -r url; do curl -O "$url"; done
      segq get urls --ack-after -- xargs curl -fO
      segq get news --label mail --start newest --follow
    """
    if ack_after != bool(argv):
        raise click.UsageError("--ack-after and -- COMMAND go together")
    if sum((null, exact, as_json)) > 1:
        raise click.UsageError("choose one of --null, --exact and --json")
    if ack_after and (null or exact or as_json):
        raise click.UsageError("--null, --exact and --json are about what get prints; with --ack-after COMMAND prints")
    with place.open_source(queue, label, start) as source:
        taking = Taking(source, most, follow=follow, timeout=timeout)
        if ack_after:
            return _run_each(source, taking, argv, follow=follow)
        return _print(source, taking, items.as_json if as_json else items.rendered, _end(null=null, exact=exact))


def _end(*, null: bool, exact: bool) -> bytes:
    if exact:
        return b""
    return b"\0" if null else b"\n"


class Taking:
    """Receives until the user's limits say stop: so many items, or nothing for so long."""

    def __init__(self, queue: place.Source, most: int | None, *, follow: bool, timeout: float | None) -> None:
        self._queue = queue
        self._left = most
        self._patience = timeout if timeout is not None else (None if follow else 0.0)
        self.received = 0

    def at_once(self, most: int) -> list[segq.Message]:
        """What is there, [] if nothing is (any more). Raises segq.ShutDown like `wait`."""
        ending.leave_if_asked()
        try:
            return self._count(self._queue.receive_many(self._limited(most), block=False))
        except segq.Empty:
            return []

    def wait(self, most: int, while_idle: Callable[[], object]) -> list[segq.Message]:
        """What comes in time, [] when the user's time is over; meanwhile `while_idle` is called now and then."""
        deadline = None if self._patience is None else time.monotonic() + self._patience
        while (left := SLICE if deadline is None else min(SLICE, deadline - time.monotonic())) > 0:
            ending.leave_if_asked()
            while_idle()
            try:
                return self._count(self._queue.receive_many(self._limited(most), timeout=left))
            except segq.Empty:
                continue
        return []

    @property
    def is_complete(self) -> bool:
        return self._left == 0

    def _limited(self, most: int) -> int:
        return most if self._left is None else min(most, self._left)

    def _count(self, messages: list[segq.Message]) -> list[segq.Message]:
        self.received += len(messages)
        if self._left is not None:
            self._left -= len(messages)
        return messages


def _print(source: place.Source, taking: Taking, render: Callable[[object], bytes], end: bytes) -> int:
    from segq.cli.outlet import Outlet
    from segq.cli.stream import Stream

    outlet = Outlet(1)
    stream = Stream(outlet, render, end, getattr(source, "ack_many", None))
    try:
        while not taking.is_complete:
            messages = taking.at_once(stream.batch)
            if not messages:
                stream.settle()  # nobody waits for these any more, so there is time to see them arrive
                messages = taking.wait(stream.batch, outlet.demand_reader)
            if not messages:
                break
            stream.send(messages)
        stream.settle()
    except segq.ShutDown:
        stream.settle()
    finally:
        stream.close()
    return exits.OK if taking.received else exits.NOTHING


def _run_each(queue: place.Source, taking: Taking, argv: tuple[str, ...], *, follow: bool) -> int:
    from segq.cli.retries import Retries
    from segq.cli.task import Command, attempt

    task = Command(argv)
    most = queue.settings.max_deliveries
    retries = Retries(again=follow, max_deliveries=most)
    try:
        while not taking.is_complete:
            messages = taking.at_once(1) or taking.wait(1, lambda: None)
            if not messages:
                break
            attempt(task, messages[0], retries, lease=queue.settings.lease)
    except segq.ShutDown:
        pass
    finally:
        retries.give_back_all()
    if retries.failures:
        return exits.FAILED
    return exits.OK if taking.received else exits.NOTHING
