"""``python -m benchmarks``: run the programme, show tables, save JSON. What is measured: ``benchmarks/README.md``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import comparison, machine, plot, record, report
from benchmarks.runner import Outcome, Runner
from benchmarks.scale import SCALES
from benchmarks.workloads import WORKLOADS, Workload

RESULTS = Path(__file__).parent / "results"
WIDTH = 120
"""Columns of the tables when they go to a file."""
INTERRUPTED = 130
"""The exit status shells give to a program ended by Ctrl-C."""
IN_MEMORY = ("tmpfs", "ramfs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0 when every account closed (whatever the speed), 1 when an entrant failed, 130 on Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    if given[:1] == ["compare"]:
        return _compare(given[1:], console)
    if given[:1] == ["plot"]:
        return _plot(given[1:], console)
    options = _parser().parse_args(given)
    if options.list:
        for workload in WORKLOADS.values():
            console.print(f"{workload.name:12} {workload.title}", highlight=False, soft_wrap=True)
        return 0
    started = datetime.now(UTC).astimezone()
    scale = SCALES["quick" if options.quick else options.scale]
    runner = Runner(scale=scale, directory=options.dir, repetitions=options.repetitions)
    facts = machine.facts(options.dir)
    _introduce(console, facts)
    try:
        outcomes = _race(runner, [WORKLOADS[name] for name in options.only or WORKLOADS], console)
    except KeyboardInterrupt:
        console.print("Interrupted: nothing saved.")
        return INTERRUPTED
    console.print(report.closing(outcomes))
    _complain(console, outcomes)
    saved = record.compose(outcomes, scale=scale, machine=facts, started=started, command=given)
    path = options.json or RESULTS / f"{started:%Y%m%d-%H%M%S}.json"
    record.save(saved, path)
    console.print(f"Saved to {path}", highlight=False, soft_wrap=True)
    return int(saved["failed"])


def _compare(given: Sequence[str], console: Console) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare", description="What changed from one run to another.")
    parser.add_argument("before", type=_run)
    parser.add_argument("after", type=_run)
    options = parser.parse_args(given)
    console.print(comparison.table(options.before, options.after))
    return 0


def _plot(given: Sequence[str], console: Console) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks plot", description="A picture of each workload of a run.")
    parser.add_argument("run", type=_run)
    parser.add_argument("--to", type=Path, default=RESULTS / "plots", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--kind", choices=("svg", "png"), default="svg")
    options = parser.parse_args(given)
    try:
        drawn = plot.draw(options.run, options.to, options.kind)
    except ImportError as error:
        parser.error(f"pictures need matplotlib ({error}): pip install '.[bench]'")
    for path in drawn:
        console.print(str(path), highlight=False, soft_wrap=True)
    return 0


def _run(text: str) -> dict[str, Any]:
    try:
        return comparison.load(Path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


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
        epilog="compare A.json B.json and plot RUN.json look at saved runs.",
    )
    parser.add_argument("--quick", action="store_true", help="under a minute; the same as --scale quick")
    parser.add_argument("--scale", choices=SCALES, default="full", help="how much work (default: %(default)s)")
    parser.add_argument(
        "--only", action="append", choices=WORKLOADS, metavar="NAME", help="only this workload; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the workloads and leave")
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
