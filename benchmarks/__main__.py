"""``python -m benchmarks``: run the programme, show tables, save JSON. What is measured: ``benchmarks/README.md``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import machine, record, report
from benchmarks.programme import QUICK, WORKLOADS
from benchmarks.runner import Outcome, Runner
from benchmarks.scale import SCALES
from benchmarks.verbs import RESULTS, VERBS
from benchmarks.workloads import Workload

WIDTH = 120
"""Columns of the tables when they go to a file."""
INTERRUPTED = 130
"""The exit status shells give to a program ended by Ctrl-C."""
IN_MEMORY = ("tmpfs", "ramfs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0 when every account closed (whatever the speed), 1 when an entrant failed, 130 on Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    if given and (verb := VERBS.get(given[0])):
        return verb(given[1:], console)
    options = _parser().parse_args(given)
    if options.list:
        for workload in WORKLOADS.values():
            quick = "quick" if workload.name in QUICK else ""
            console.print(f"{workload.name:24} {quick:6} {workload.title}", highlight=False, soft_wrap=True)
        return 0
    started = datetime.now(UTC).astimezone()
    scale = SCALES["quick" if options.quick else options.scale]
    chosen = options.only or (QUICK if scale.name == "quick" else WORKLOADS)
    runner = Runner(scale=scale, directory=options.dir, repetitions=options.repetitions)
    facts = machine.facts(options.dir)
    _introduce(console, facts)
    try:
        outcomes = _race(runner, [WORKLOADS[name] for name in chosen], console)
    except KeyboardInterrupt:
        console.print("Interrupted: nothing saved.")
        return INTERRUPTED
    console.print(report.closing(outcomes))
    if not options.only and (left_out := [name for name in WORKLOADS if name not in chosen]):
        console.print(f"Left out of a quick run: {', '.join(left_out)}. --only NAME runs one.", highlight=False)
    _complain(console, outcomes)
    saved = record.compose(outcomes, scale=scale, machine=facts, started=started, command=given)
    path = options.json or RESULTS / f"{started:%Y%m%d-%H%M%S}.json"
    record.save(saved, path)
    console.print(f"Saved to {path}", highlight=False, soft_wrap=True)
    return int(saved["failed"])


def _race(runner: Runner, workloads: Sequence[Workload], console: Console) -> list[Outcome]:
    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(map(runner.planned, workloads)))
        begun = count()

        def watch(what: str) -> None:
            progress.update(task, description=what, completed=next(begun))

        for workload in workloads:
            outcome = runner.run(workload, watch)
            progress.console.print(report.heading(outcome), report.detail(outcome), sep="\n", soft_wrap=True)
            outcomes.append(outcome)
    return outcomes


def _introduce(console: Console, facts: dict[str, object]) -> None:
    console.print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, {facts['python']}, {facts['filesystem']}, "
        f"load {facts['load_average']}",
        highlight=False,
    )
    if str(facts["filesystem"]).startswith(IN_MEMORY):
        console.print("[yellow]The queues are in memory, not on a disk: choose another place with --dir.[/yellow]")


def _complain(console: Console, outcomes: Sequence[Outcome]) -> None:
    skipped = dict.fromkeys(item for outcome in outcomes for item in outcome.skipped.items())
    for label, reason in skipped:
        console.print(f"[yellow]{label} skipped:[/yellow] {escape(reason)}", highlight=False)
    for outcome in outcomes:
        for label, reason in outcome.failed.items():
            console.print(f"[red]{outcome.workload.name}: {label} failed:[/red]", highlight=False)
            console.print(reason, markup=False, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Race segq against its like.",
        epilog="compare A.json B.json, plot RUN.json and document RUN.json look at saved runs.",
    )
    parser.add_argument("--quick", action="store_true", help="under a minute, and less to do; the same as --scale quick")
    parser.add_argument("--scale", choices=SCALES, default="full", help="how much work (default: %(default)s)")
    parser.add_argument(
        "--only", action="append", choices=WORKLOADS, metavar="NAME", help="only this workload; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the workloads (and those of a quick run) and leave")
    parser.add_argument("--repetitions", type=_positive, metavar="N", help="instead of what the scale says")
    parser.add_argument(
        "--dir",
        type=_directory,
        default=Path(tempfile.gettempdir()),
        help="where the queues are made: the disk to measure (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to save (default: a dated file in benchmarks/results)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _directory(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no directory")
    return path


if __name__ == "__main__":
    sys.exit(main())
