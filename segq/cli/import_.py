"""`segq import`: another library's queue becomes one of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import click

from segq import transfer
from segq._core.base.settings import BUILTIN_SERIALIZERS
from segq.cli import ending, exits


@click.command("import")
@click.option("--from", "kind", type=click.Choice(sorted(transfer.KINDS)), required=True, help="The library that wrote PATH.")
@click.argument("path", type=click.Path(exists=True))
@click.argument("queue", type=click.Path())
@click.option("--serializer", type=click.Choice(BUILTIN_SERIALIZERS), help="The new queue's, instead of what fits the library.")
@click.option(
    "--source-serializer",
    type=click.Choice(["pickle", "json", "msgpack", "cbor2"]),
    default="pickle",
    show_default=True,
    help="persist-queue: how its items were stored. pickle runs code that is in them, as persist-queue itself would.",
)
@click.option("--table", metavar="NAME", help="Which of several: a table (persist-queue), prefix (diskcache), label (rocksq).")
@click.option("--again", is_flag=True, help="Although PATH was imported into QUEUE before.")
def command(
    kind: str, path: str, queue: str, *, serializer: str | None, source_serializer: str, table: str | None, again: bool
) -> int:
    """Bring the items of another library's queue at PATH over into QUEUE, in the order in which they would have been got.

    PATH is read and left as it is; nobody should use it meanwhile. QUEUE is created. Whatever ends the import half-way, the
    same command goes on where it was: nothing is lost, and nothing is there twice. (If QUEUE existed before, the item at hand
    when the import was killed may be.)

    \b
      segq import --from rocksq old/events events
      segq import --from turbo-queue /data/queues/data_in /data/segq/data_in
      segq import --from persist-queue --serializer pickle old/jobs jobs
      segq import --from persist-queue --table ack_queue_default old/jobs jobs
      segq import --from diskcache old/deque jobs
    """
    ending.prepare()
    options = transfer.Options(table=table, serializer=source_serializer)
    try:
        with _bar() as progress:
            done = transfer.transfer(kind, path, queue, serializer=serializer, options=options, again=again, progress=progress)
    except (KeyboardInterrupt, SystemExit):
        click.echo("segq: import interrupted; the same command goes on with it", err=True)
        raise
    before = f" ({done.before:,} of them by an attempt before)" if done.before else ""
    click.echo(f"{done.items:,} items imported{before}; {path} is as it was")
    if not done.receipt:
        click.echo(f"segq: nothing can be written to {path}: another import of it would not be refused", err=True)
    return exits.OK


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("importing", total=None)

        def progress(done: int, total: int) -> None:
            ending.leave_if_asked()
            bar.update(task, completed=done, total=total)

        yield progress


__all__ = ["command"]
