"""`segq demo`: many processes share a queue, and an account of every line that went through."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

import segq
from segq.cli import exits, reports

if TYPE_CHECKING:
    from segq.cli.demo.account import Account, Reference
    from segq.cli.demo.run import Plan, Progress
    from segq.cli.demo.screen import Screen

KILLS = 10
CAPACITY = 200_000  # lines: enough that producers and workers seldom wait for each other, and a bounded use of disk


@click.command("demo")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(exists=True))
@click.option("--producers", type=click.IntRange(min=1), default=2, show_default=True, metavar="N")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, metavar="N")
@click.option("--kill", is_flag=True, help=f"SIGKILL a random producer or worker now and then ({KILLS} in all).")
@click.option("--kills", type=click.IntRange(min=1), metavar="N", help="As --kill, but so many.")
@click.option("--limit", type=click.IntRange(min=1), metavar="LINES", help="Read no more than so many lines.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Stop reading after so long; what has been put by then is still worked off and accounted for.",
)
@click.option(
    "--queue",
    type=click.Path(),
    metavar="PATH",
    help="Use this queue (created if it does not exist; must be empty) and keep it. Default: a temporary one.",
)
def command(
    paths: tuple[str, ...], *, producers: int, workers: int, kill: bool, kills: int | None,
    limit: int | None, seconds: float | None, queue: str | None,
) -> int:  # fmt: skip
    """Send text through a queue between many processes, and see that nothing is lost.

    Producers read files (by default the .py files of Python's standard library, else every file in PATH...) and put
    their lines; workers take them, hash them and count their words. Then each line's result is compared with what a
    single process computes: each must be there and right, and none twice, except that a process which was killed
    may repeat what it had in hand. The exit code is 0 only if that account closes.
    """
    from rich.console import Console

    from segq.cli.demo import corpus
    from segq.cli.demo.account import Reference
    from segq.cli.demo.run import Plan
    from segq.cli.demo.screen import Screen

    screen = Screen(Console())
    reports.to_stderr(logging.ERROR)
    begun = time.monotonic()
    with screen.busy("computing in one process what is to be expected"):
        reference = Reference.of(corpus.files_in(paths) if paths else corpus.standard_library(), limit)
    alone = time.monotonic() - begun
    if not reference.lines:
        raise click.ClickException("there is not a single line to read")
    skipped = f" ({reference.unreadable} could not be read)" if reference.unreadable else ""
    screen.say(f"{len(reference.sources):,} files{skipped}, {reference.lines:,} lines: one process took {alone:.1f} s")
    with tempfile.TemporaryDirectory(prefix="segq-demo-") as directory, _places(queue, directory) as place:
        screen.say(f"now {producers} producers and {workers} workers, through {place}")
        plan = Plan(
            queue=place,
            directory=directory,
            shares=corpus.shares(reference.sources, producers),
            workers=workers,
            kills=(kills or KILLS) if kill or kills else 0,
            seconds=seconds,
        )
        account, last = _carried_out(plan, reference, screen)
        return _verdict(screen, account, last, alone, place)


@contextlib.contextmanager
def _places(queue: str | None, directory: str) -> Iterator[str]:
    """Where the queue is to be; a temporary one goes with the directory."""
    if queue is not None:
        yield os.path.abspath(queue)
        return
    place = os.path.join(directory, "queue")
    yield place
    shutil.rmtree(place, ignore_errors=True)


def _carried_out(plan: Plan, reference: Reference, screen: Screen) -> tuple[Account, Progress]:
    from segq.cli.demo import hands
    from segq.cli.demo.account import Account
    from segq.cli.demo.run import Run

    if os.path.exists(plan.queue):
        watched = segq.Queue(plan.queue, create=False)
    else:
        watched = segq.Queue(plan.queue, capacity=CAPACITY, serializer="raw")
    with watched:
        _demand_suitable(watched)
        with Run(plan, watched) as run:
            last = screen.follow(run.watch())
    allowed = sum(hand.kills for hand in run.producers) * hands.PUT_LINES
    allowed += sum(hand.kills for hand in run.workers) * hands.TAKE_LINES
    expected = reference if plan.seconds is None else reference.until(run.positions())
    return Account.of(expected, plan.directory, allowed), last


def _demand_suitable(queue: segq.Queue) -> None:
    """A queue of the user's own must be empty and able to take the demo's batches."""
    from segq.cli.demo import hands

    settings = queue.settings
    if queue.stats().items:
        raise click.ClickException(f"{queue.path} holds items, and the demo's workers would take them; use another")
    if settings.serializer != "raw":
        raise click.ClickException(f"{queue.path} has serializer {settings.serializer}; the demo needs raw")
    if settings.capacity is not None and settings.capacity < hands.PUT_LINES:
        raise click.ClickException(f"{queue.path} has a capacity below the demo's batches of {hands.PUT_LINES} items")
    if settings.max_bytes is not None and settings.max_bytes < 4 * hands.PUT_BYTES:
        raise click.ClickException(f"{queue.path} has a byte limit below {4 * hands.PUT_BYTES:,}")
    if settings.lease is not None:
        raise click.ClickException(f"{queue.path} has a lease; the demo counts every repetition without one")


def _verdict(screen: Screen, account: Account, last: Progress, alone: float, queue: str) -> int:
    screen.close(account, last, alone)
    segq.Queue(queue, create=False).close()  # opening settles what the one that was killed last may have left
    problems = segq.check(queue).problems
    for problem in problems:
        screen.say(f"check: {problem.kind}: {problem.where}: {problem.what}")
    if not account.closes or problems:
        screen.say("\nThe account does NOT close.")
        return exits.FAILED
    if last.killed:
        screen.say(f"\nThe account closes: {last.killed} processes were killed, every line arrived all the same.")
    else:
        screen.say("\nThe account closes: every line arrived exactly once.")
    return exits.OK
