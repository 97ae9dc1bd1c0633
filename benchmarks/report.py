"""The tables people read."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from benchmarks.adapters import adapter_named
from benchmarks.metric import METRICS
from benchmarks.runner import Outcome
from benchmarks.sample import Summary
from benchmarks.target import Target, Verdict


def heading(outcome: Outcome) -> Text:
    """What the next table is about."""
    return Text.assemble((outcome.workload.name, "bold"), f": {outcome.workload.title}")


def detail(outcome: Outcome) -> Table:
    """One workload: a row for each entrant, median and (lowest-highest) of each metric."""
    workload = outcome.workload
    table = Table()
    table.add_column("", no_wrap=True)
    summaries = outcome.summaries
    # A metric that nobody could measure here gets no column.
    columns = [name for name in workload.columns if any(name in own for own in summaries.values())]
    for name in columns:
        metric = METRICS[name]
        table.add_column(f"{metric.title}\n{metric.unit}", justify="right")
    several = len({entrant.adapter for entrant in workload.entrants}) > 1
    if several:
        table.add_column("survives SIGKILL", max_width=32)
    for entrant in workload.entrants:
        own = summaries.get(entrant.label, {})
        label = Text(entrant.label)
        if entrant.label in outcome.failed:
            label.append("\nfailed", "bold red")
        elif entrant.label in outcome.skipped:
            label.append("\nskipped", "yellow")
        survives = adapter_named(entrant.adapter).survives if entrant.label not in outcome.skipped else ""
        table.add_row(label, *(_cell(name, own.get(name)) for name in columns), *([survives] if several else []))
    return table


def _cell(name: str, summary: Summary | None) -> str:
    if summary is None:
        return "-"
    show = METRICS[name].show
    if summary.repetitions == 1:
        return show(summary.median)
    return f"{show(summary.median)}\n[dim]{show(summary.low)}-{show(summary.high)}[/dim]"


def closing(outcomes: Sequence[Outcome]) -> Table:
    """Every target: what it compares, medians side by side, the ratio, the bound and the verdict."""
    table = Table(title="Targets", title_style="bold")
    table.add_column("workload", overflow="fold")
    table.add_column("metric")
    for name in ("of", "against"):
        table.add_column(name, justify="right")
    for name in ("ratio", "target"):
        table.add_column(name, justify="right", no_wrap=True, min_width=7)
    table.add_column("verdict", no_wrap=True, min_width=13)
    for outcome in outcomes:
        for target, verdict in outcome.verdicts:
            table.add_row(outcome.workload.name, *_comparison(outcome, target, verdict))
    return table


def _comparison(outcome: Outcome, target: Target, verdict: Verdict | None) -> tuple[str | Text, ...]:
    metric = METRICS[target.metric]
    medians = [_median(outcome, label, target.metric) if label else "" for label in (target.of, target.against)]
    ratio = f"{verdict.value:.2f}" if verdict and target.against else ""
    if verdict is None:
        judgement = Text("not measured", style="yellow")
    else:
        judgement = Text(verdict.text(), style="green" if verdict.met else "bold red")
    return metric.named, *medians, ratio, target.text(), judgement


def _median(outcome: Outcome, label: str, name: str) -> str:
    summary = outcome.summaries.get(label, {}).get(name)
    return f"{label}\n{METRICS[name].show(summary.median) if summary else '-'}"
