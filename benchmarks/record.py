"""The JSON of a run: every repetition as measured, the medians, the verdicts, the machine.

::

    {"format": 1, "started": …, "command": […], "scale": {…}, "machine": {…}, "failed": false,
     "workloads": {NAME: {"title": …, "seconds": …, "columns": [METRIC, …],
       "entrants": {LABEL: {"adapter": …, "version": …, "survives": …, "mode": …, "skipped": null, "failed": null,
         "repetitions": [{"metrics": {METRIC: number}, "account": {…}, "facts": {…}}, …],
         "summary": {METRIC: {"median": …, "low": …, "high": …, "repetitions": …}}}},
       "targets": [{"metric": …, "of": …, "against": …, "at_least": …, "at_most": …,
                    "value": …, "met": …, "missed_by": …}, …]}}}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.adapters import adapter_named
from benchmarks.runner import Outcome
from benchmarks.scale import Scale
from benchmarks.target import Target, Verdict
from benchmarks.workloads import Entrant

FORMAT = 1


def compose(
    outcomes: Sequence[Outcome],
    *,
    scale: Scale,
    machine: dict[str, object],
    started: datetime,
    command: Sequence[str],
) -> dict[str, Any]:
    """The record of a run."""
    return {
        "format": FORMAT,
        "started": started.isoformat(timespec="seconds"),
        "command": list(command),
        "scale": asdict(scale),
        "machine": machine,
        "failed": any(outcome.failed for outcome in outcomes),
        "workloads": {outcome.workload.name: _workload(outcome) for outcome in outcomes},
    }


def save(record: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def _workload(outcome: Outcome) -> dict[str, Any]:
    return {
        "title": outcome.workload.title,
        "seconds": outcome.seconds,
        "columns": list(outcome.workload.columns),
        "entrants": {entrant.label: _entrant(outcome, entrant) for entrant in outcome.workload.entrants},
        "targets": [_target(target, verdict) for target, verdict in outcome.verdicts],
    }


def _entrant(outcome: Outcome, entrant: Entrant) -> dict[str, Any]:
    label = entrant.label
    adapter = None if label in outcome.skipped else adapter_named(entrant.adapter)
    summary = outcome.summaries.get(label, {})
    return {
        "adapter": entrant.adapter,
        "version": adapter and adapter.version,
        "survives": adapter and adapter.survives,
        "mode": entrant.mode,
        "skipped": outcome.skipped.get(label),
        "failed": outcome.failed.get(label),
        "repetitions": [asdict(repetition) for repetition in outcome.repetitions.get(label, ())],
        "summary": {name: asdict(each) for name, each in summary.items()},
    }


def _target(target: Target, verdict: Verdict | None) -> dict[str, Any]:
    return {
        **asdict(target),
        "value": verdict and verdict.value,
        "met": verdict and verdict.met,
        "missed_by": verdict and verdict.missed_by,
    }
