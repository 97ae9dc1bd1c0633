"""What can be done with saved runs: `compare`, `plot`, `document`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import comparison, document, headline, plot

README = document.DOCS.parent / "README.md"
RESULTS = Path(__file__).parent / "results"


def _compare(given: Sequence[str], console: Console) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare", description="What changed from one run to another.")
    parser.add_argument("before", type=_run)
    parser.add_argument("after", type=_run)
    options = parser.parse_args(given)
    console.print(comparison.table(options.before, options.after))
    return 0


def _plot(given: Sequence[str], console: Console) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks plot",
        description="A picture of each workload of a run, one of all its targets, and one of latency at all rates.",
    )
    parser.add_argument("run", type=_run)
    parser.add_argument("--to", type=Path, default=RESULTS / "plots", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--kind", choices=plot.KINDS, help="default: both")
    options = parser.parse_args(given)
    try:
        drawn = plot.draw(options.run, options.to, [options.kind] if options.kind else plot.KINDS)
    except ImportError as error:
        parser.error(f"pictures need matplotlib ({error}): pip install '.[bench]'")
    _say(console, drawn)
    return 0


def _document(given: Sequence[str], console: Console) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks document",
        description="Make docs/benchmarks.md of saved runs and of the sections in docs/benchmarks.d.",
    )
    parser.add_argument("runs", type=_run, nargs="+", metavar="RUN", help="of several, the later one's workloads count")
    parser.add_argument("--to", type=Path, default=document.PAGE, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--sections", type=Path, default=document.SECTIONS, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="default: a directory beside the file, of its name")
    parser.add_argument(
        "--readme",
        type=Path,
        nargs="?",
        const=README,
        metavar="FILE",
        help="and the table of figures in it (default: README.md)",
    )
    options = parser.parse_args(given)
    try:
        if options.readme:
            options.readme.write_text(headline.rewritten(options.readme.read_text(), document.merged(options.runs)))
    except (OSError, ValueError) as error:
        parser.error(f"{options.readme}: {error}")
    written = document.write(options.runs, options.to, options.sections, options.pictures or options.to.with_suffix(""))
    _say(console, written)
    if len(written) == 1:
        console.print("[yellow]Without pictures: they need matplotlib (pip install '.\\[bench]').[/yellow]")
    return 0


def _run(text: str) -> dict[str, Any]:
    try:
        return comparison.load(Path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _say(console: Console, paths: Sequence[Path]) -> None:
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)


VERBS: dict[str, Callable[[Sequence[str], Console], int]] = {"compare": _compare, "plot": _plot, "document": _document}
