"""`python -m benchmarks compare A.json B.json`: what a change did, from two saved runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.metric import METRICS


def load(path: Path) -> dict[str, Any]:
    """A saved run. Raises ValueError for what is none."""
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a saved run: {error}") from error
    if not isinstance(record, dict) or record.get("format") != 1:
        raise ValueError(f"{path} is not a saved run of this version")
    return record


def table(before: dict[str, Any], after: dict[str, Any]) -> Table:
    """Every metric that both runs have: medians, their ratio, and whether the ranges lie apart."""
    result = Table()
    for name in ("workload", "contestant", "metric"):
        result.add_column(name, no_wrap=True)
    for name in ("before", "after", "ratio"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("", no_wrap=True)
    for workload, label, name, old, new in pairs(before, after):
        metric = METRICS[name]
        ratio = f"{new['median'] / old['median']:.2f}" if old["median"] else "-"
        result.add_row(
            workload,
            label,
            metric.named,
            metric.show(old["median"]),
            metric.show(new["median"]),
            ratio,
            judgement(name, old, new),
        )
    return result


def pairs(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, float], dict[str, float]]]:
    """(workload, contestant, metric, before, after) of what was measured both times."""
    for workload, old in before["workloads"].items():
        new = after["workloads"].get(workload, {"entrants": {}})
        for label, entrant in old["entrants"].items():
            other = new["entrants"].get(label, {"summary": {}})
            for name, summary in entrant["summary"].items():
                if name in METRICS and name in other["summary"]:
                    yield workload, label, name, summary, other["summary"][name]


def judgement(name: str, old: dict[str, float], new: dict[str, float]) -> Text:
    """Nothing where the ranges of the repetitions overlap: that may be chance."""
    if old["low"] <= new["high"] and new["low"] <= old["high"]:
        return Text("")
    better = (new["median"] < old["median"]) == METRICS[name].less_is_better
    return Text("better", style="green") if better else Text("worse", style="bold red")
