"""`segq run`: a pipeline, from a file, until it is told to stop."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from segq.cli import exits

if TYPE_CHECKING:
    from segq.pipeline import Status

_EVERY = 1.0  # seconds between two looks at the status, on a terminal
_EVERY_LINE = 10.0  # and where each is a line of its own


@click.command("run")
@click.argument("pipeline", type=click.Path(exists=True, dir_okay=False))
@click.option("--exit-when-done", is_flag=True, help="End when all sources are over and the queues are empty.")
@click.option("--check", "only_check", is_flag=True, help="Read the file, say what it declares, and start nothing.")
@click.option(
    "--status",
    "every",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Print the status that often; 0: never. Default: a line that changes on a terminal, else every 10 s.",
)
@click.option("--quiet", is_flag=True, help="Only errors: no status, nothing about processes that start and end.")
def command(pipeline: str, *, exit_when_done: bool, only_check: bool, every: float | None, quiet: bool) -> int:
    """Run the sources, workers and sinks that PIPELINE (a TOML file) declares, as processes.

    One that dies is replaced, after a tenth of a second, two tenths, up to half a minute; what it had in hand goes to
    another. SIGTERM and Ctrl-C drain: sources stop, the rest goes on until the queues are empty (for `drain` seconds at
    most), then every process finishes what it has in hand. A second signal kills them. Nothing is lost either way.

    The exit code is 0 when it was ended so, or all was done; 1 if a stage could not work, or had to be killed; 130 after
    Ctrl-C. docs/pipelines.md explains the file.
    """
    from segq.pipeline import Supervisor, read_plan
    from segq.pipeline.supervisor import OK

    plan = read_plan(pipeline)
    if only_check:
        for queue in plan.queues:
            click.echo(f"{'topic' if queue.is_topic else 'queue'} {queue.name}: {queue.path}")
        for stage in plan.stages:
            ends = [f"from {stage.taken_from.name}"] if stage.taken_from else []
            ends += [f"to {stage.put_to.name}"] if stage.put_to else []
            click.echo(f"{stage.role} {stage.name}: {stage.kind} {' '.join(ends)}, {stage.processes} process(es)")
        return exits.OK
    line = StatusLine(plan.name, every, quiet=quiet)
    supervisor = Supervisor(plan, until_done=exit_when_done, tell=line.say)
    try:
        code = supervisor.run(line.show)
    finally:
        line.end()
        supervisor.close()
    if supervisor.interrupted:
        return exits.INTERRUPTED
    return exits.OK if code == OK else exits.FAILED


class StatusLine:
    """One line on a terminal that changes; elsewhere a line now and then. On stderr."""

    def __init__(self, name: str, every: float | None, *, quiet: bool) -> None:
        self._name, self._quiet = name, quiet
        self._in_place = every is None and sys.stderr.isatty()
        self._every = (_EVERY if self._in_place else _EVERY_LINE) if every is None else every
        self._shown = ""
        self._due = time.monotonic() + (0 if self._in_place else self._every)

    def show(self, status: Status) -> None:
        """Shows it if it is time."""
        if self._quiet or not self._every or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._every
        text = described(self._name, status)
        if self._in_place:
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
            self._shown = text
        else:
            click.echo(f"segq: {text}", err=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._quiet:
            return
        click.echo(f"{chr(13)}\x1b[K" * bool(self._shown) + f"segq: {text}", err=True)
        if self._shown:
            click.echo(self._shown, err=True, nl=False)

    def end(self) -> None:
        """Leaves the terminal as it should be."""
        if self._shown:
            click.echo("", err=True)


def described(name: str, status: Status) -> str:
    """The status in one line."""
    queues = []
    for queue, (waiting, claimed, dead) in status.queues.items():
        queues.append(f"{queue} {waiting:,}" + (f"+{claimed:,}" if claimed else "") + (f" (dead {dead:,})" if dead else ""))
    restarts = f", {status.restarts} restarted" if status.restarts else ""
    return f"{name}: {' → '.join(queues)} · {status.running}/{status.processes} processes{restarts}" + (
        f" · {status.ending}" if status.ending else ""
    )
