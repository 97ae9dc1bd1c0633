"""`python -m benchmarks document RUN.json`: `docs/benchmarks.md` as a run came out, around the sections that people wrote.

Those are the files of `docs/benchmarks.d`, in the order of their names: what starts with 0 stands before the tables, the rest
behind them. Of several runs a later one's workloads replace an earlier one's.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plot
from benchmarks.metric import METRICS
from benchmarks.programme import WORKLOADS

DOCS = Path(__file__).parent.parent / "docs"
PAGE, SECTIONS = DOCS / "benchmarks.md", DOCS / "benchmarks.d"
NOTICE = "<!-- Made by `python -m benchmarks document`: change docs/benchmarks.d or measure again, not this file. -->"
NOT_SHOWN = ("--json", "--dir")
"""Options that say where things are on the machine, not what was measured."""


def merged(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The workloads of all runs in the programme's order; the later ones' where several have one."""
    together: dict[str, Any] = {}
    for run in runs:
        together |= run["workloads"]
    known = [name for name in WORKLOADS if name in together]
    together = {name: together[name] for name in dict.fromkeys((*known, *together))}
    return {**runs[-1], "workloads": together, "failed": any(run.get("failed") for run in runs)}


def write(runs: Sequence[dict[str, Any]], page: Path, sections: Path, pictures: Path) -> list[Path]:
    """The page and its pictures (none without matplotlib); returns what was written."""
    drawn = _draw(merged(runs), pictures)
    links = {path.stem: Path(os.path.relpath(path, page.parent)).as_posix() for path in drawn}
    texts = sorted(sections.glob("*.md"))
    before = [path.read_text().strip() for path in texts if path.name.startswith("0")]
    behind = [path.read_text().strip() for path in texts if not path.name.startswith("0")]
    page.write_text("\n\n".join([NOTICE, "# Benchmarks", *before, *_measured(runs, links), *behind]) + "\n")
    return [page, *drawn]


def _draw(record: dict[str, Any], directory: Path) -> list[Path]:
    """Pictures of what has more than two to compare, and of what is of several workloads."""
    many = {name for name, workload in record["workloads"].items() if len(_entered(workload)) > 2}
    try:
        return plot.draw(record, directory, only={*many, plot.TARGETS, plot.LATENCIES})
    except ImportError:
        return []


def _entered(workload: Mapping[str, Any]) -> dict[str, Any]:
    return {label: each for label, each in workload["entrants"].items() if each["summary"]}


def _measured(runs: Sequence[dict[str, Any]], links: Mapping[str, str]) -> Iterator[str]:
    """Paragraphs: what was run on what, the verdicts, and a table for each workload."""
    record = merged(runs)
    yield "\n\n".join(map(_run, runs))
    yield from _verdicts(record, links)
    yield "## Workloads"
    for name, workload in record["workloads"].items():
        yield f"### {name}\n\n{workload['title'][:1].upper()}{workload['title'][1:]}."
        yield _table(workload)
        yield from _absent(workload)
        if name in links:
            yield f"![{name}]({links[name]})"
        if name == "latency" and plot.LATENCIES in links:
            yield f"![latency by rate]({links[plot.LATENCIES]})"


def _run(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    command = shlex.join(["python", "-m", "benchmarks", *_told(run["command"])])
    return (
        f"```console\n$ {command}\n```\n\n{run['started'][:10]}, commit {machine['commit'] or 'unknown'}: {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_mib'] or 0:,} MiB, {machine['system']}, {machine['python']}, "
        f"{machine['filesystem']}; load at the start {', '.join(map(str, machine['load_average'] or ['unknown']))}; {packages}."
    )


def _told(command: Sequence[str]) -> Iterator[str]:
    words = iter(command)
    for word in words:
        if word in NOT_SHOWN:
            next(words, None)
        elif not word.startswith(tuple(f"{option}=" for option in NOT_SHOWN)):
            yield word


def _verdicts(record: Mapping[str, Any], links: Mapping[str, str]) -> Iterator[str]:
    judged = [(name, each) for name, workload in record["workloads"].items() for each in workload["targets"]]
    measured = [each for _, each in judged if each["met"] is not None]
    met = sum(each["met"] for each in measured)
    yield f"## Targets\n\n{met} of {len(measured)} met; how far the others fall short is in the last column."
    if plot.TARGETS in links:
        yield f"![targets]({links[plot.TARGETS]})"
    rows = [("workload", "what", "of", "against", "ratio", "target", "")]
    rows += [(name, *_verdict(record["workloads"][name], each)) for name, each in judged]
    yield _markdown(rows, right=(2, 3, 4, 5))


def _verdict(workload: Mapping[str, Any], target: Mapping[str, Any]) -> tuple[str, ...]:
    metric = METRICS[target["metric"]]
    of, against = (_median(workload, label, metric.name) if label else "" for label in (target["of"], target["against"]))
    least = target["at_least"] is not None
    bound = f"≥ {target['at_least']:g}" if least else f"≤ {target['at_most']:g}"
    bound += " x" if against else f" {metric.unit}"
    if target["met"] is None:
        verdict = "not measured"
    else:
        verdict = "met" if target["met"] else f"**missed by {target['missed_by']:.0%}**"
    ratio = f"{target['value']:.2f}" if against and target["value"] is not None else ""
    return metric.named, of, against, ratio, bound.strip(), verdict


def _median(workload: Mapping[str, Any], label: str, name: str) -> str:
    summary = workload["entrants"].get(label, {"summary": {}})["summary"].get(name)
    return f"{label}: {METRICS[name].show(summary['median']) if summary else '-'}"


def _table(workload: Mapping[str, Any]) -> str:
    entered = _entered(workload)
    wanted = workload.get("columns") or list(METRICS)
    columns = [name for name in wanted if any(name in each["summary"] for each in entered.values())]
    rows = [("", *(METRICS[name].named for name in columns), "what survives SIGKILL")]
    for label, entrant in entered.items():
        rows.append((label, *(_cell(name, entrant["summary"].get(name)) for name in columns), entrant["survives"]))
    return _markdown(rows, right=range(1, len(columns) + 1))


def _cell(name: str, summary: Mapping[str, float] | None) -> str:
    if summary is None:
        return "-"
    show = METRICS[name].show
    if summary["repetitions"] == 1:
        return show(summary["median"])
    return f"{show(summary['median'])} ({show(summary['low'])} to {show(summary['high'])})"


def _absent(workload: Mapping[str, Any]) -> Iterator[str]:
    for label, entrant in workload["entrants"].items():
        for why in ("skipped", "failed"):
            if entrant[why]:
                yield f"{label} {why}: {entrant[why].splitlines()[-1]}"


def _markdown(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    rule = ["---:" if place in right else "---" for place in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))
