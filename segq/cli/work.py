"""`segq work`: a pool of processes that run a command or a function on every item."""

from __future__ import annotations

import os

import click

from segq.cli import place


@click.command("work")
@click.argument("queue", type=click.Path())
@click.argument("argv", metavar="[-- COMMAND...]", nargs=-1)
@place.label_options
@click.option("--procs", type=click.IntRange(min=1), metavar="N", help="How many processes (default: one a core).")
@click.option("--call", "target", metavar="MODULE:FUNCTION", help="Call this Python function with each item.")
@click.option(
    "--max-deliveries",
    type=click.IntRange(1, 255),
    metavar="N",
    help="Give an item up that came back N times: it becomes a dead letter (default: the queue's own; never).",
)
@click.option("--exit-when-empty", is_flag=True, help="End when nothing waits any more, instead of waiting for more.")
@click.option("--quiet", is_flag=True, help="Do not report workers that start, die or end.")
def command(
    queue: str, argv: tuple[str, ...], *, label: str | None, start: str, procs: int | None, target: str | None,
    max_deliveries: int | None, exit_when_empty: bool, quiet: bool,
) -> int:  # fmt: skip
    """Run COMMAND once for each item of QUEUE, with the item on its stdin, or call a function with it.

    An item is acknowledged when COMMAND exits with 0 or the function returns. If it fails, it is tried again after a
    second, two, four, up to a minute, and others come before it; after --max-deliveries it becomes a dead letter (see
    `segq dead`), with what went wrong as its reason. So does one whose worker died each time. With --exit-when-empty
    and no such limit, items that fail stay in the queue; if any did, or were given up, the exit code is 1. A worker
    that dies is replaced and its item goes to another. SIGTERM and Ctrl-C let every worker finish the item in hand and
    give the rest back; a second one kills them, and the items go back all the same. COMMAND finds the item's SEGQ_ID
    and SEGQ_DELIVERIES in its environment.

    \b
      segq work urls --procs 8 -- xargs curl -fsO
      segq work thumbnails --call shop.images:make_thumbnail
    """
    if bool(argv) == (target is not None):
        raise click.UsageError("give either -- COMMAND or --call MODULE:FUNCTION")
    from segq.cli.pool import Pool
    from segq.cli.task import Call, Command, Task, TaskUnusableError
    from segq.cli.worker import Job

    place.open_source(queue, label, start, max_deliveries).close()  # a wrong path is reported once, here, not by every worker
    task: Task = Command(argv, own_group=True) if target is None else Call(target)
    if target is None:  # a function is looked for by the workers only: its module may do things as it is imported
        try:
            task.prepare()
        except TaskUnusableError as error:
            raise click.ClickException(str(error)) from None
    job = Job(queue=place.absolute(queue), label=label, task=task, until_empty=exit_when_empty, max_deliveries=max_deliveries)
    return Pool(job, procs or os.cpu_count() or 1, quiet=quiet).run()
