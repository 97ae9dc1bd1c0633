"""Runs workloads: entrants in turns (A B A B), a fresh directory for each repetition, and nothing left behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.adapters import UnavailableError, adapter_named
from benchmarks.ground import affordable, ground
from benchmarks.sample import Summary
from benchmarks.scale import Scale
from benchmarks.target import Target, Verdict
from benchmarks.workloads import Arena, Entrant, Repetition, Workload

Watch = Callable[[str], object]
"""Told what is about to run."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came out of one workload."""

    workload: Workload
    repetitions: dict[str, list[Repetition]] = field(default_factory=dict)
    """By the entrant's label."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Entrants that cannot run on this machine, and why."""
    failed: dict[str, str] = field(default_factory=dict)
    """Entrants whose account did not close, that broke or were stuck. They are not run again."""
    seconds: float = 0.0

    @property
    def summaries(self) -> dict[str, dict[str, Summary]]:
        return {label: _summaries(repetitions) for label, repetitions in self.repetitions.items() if repetitions}

    @property
    def verdicts(self) -> list[tuple[Target, Verdict | None]]:
        summaries = self.summaries
        return [(target, target.judge(summaries)) for target in self.workload.targets]


def _summaries(repetitions: list[Repetition]) -> dict[str, Summary]:
    names = [name for name in repetitions[0].metrics if all(name in each.metrics for each in repetitions)]
    return {name: Summary.of([each.metrics[name] for each in repetitions]) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs workloads at one scale below one directory."""

    scale: Scale
    directory: Path
    repetitions: int | None = None
    """Instead of what the scale says."""

    def rounds(self, workload: Workload) -> int:
        return self.repetitions or workload.repetitions(self.scale)

    def planned(self, workload: Workload) -> int:
        """How many repetitions `run` will announce."""
        return self.rounds(workload) * len(workload.entrants)

    def run(self, workload: Workload, watch: Watch) -> Outcome:
        began = time.monotonic()
        outcome = Outcome(workload=workload)
        for label, turn, entrant in self._turns(workload):
            watch(f"{workload.name}: {label}, {turn} of {self.rounds(workload)}")
            if label in outcome.failed or label in outcome.skipped:
                continue
            try:
                adapter_named(entrant.adapter)
                repetition = self._once(workload, entrant)
            except UnavailableError as reason:
                outcome.skipped[label] = str(reason)
            except Exception as reason:  # one contestant's error must not end the others' race
                outcome.failed[label] = f"{type(reason).__name__}: {reason}"
            else:
                outcome.repetitions.setdefault(label, []).append(repetition)
        outcome.seconds = time.monotonic() - began
        return outcome

    def _turns(self, workload: Workload) -> Iterator[tuple[str, int, Entrant]]:
        for turn in range(1, self.rounds(workload) + 1):
            for entrant in workload.entrants:
                yield entrant.label, turn, entrant

    def _once(self, workload: Workload, entrant: Entrant) -> Repetition:
        footprint = affordable(workload.footprint(self.scale))
        with ground(self.directory, footprint) as directory:
            return workload.run(entrant, Arena(directory=directory, scale=self.scale))
