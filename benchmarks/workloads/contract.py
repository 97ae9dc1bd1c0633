"""What a workload is: entrants that take turns, a way to run one of them once, and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.adapters import Settings, adapter_named
from benchmarks.crew import CONTEXT, Crew
from benchmarks.scale import Scale
from benchmarks.target import Target

DEFAULTS = Settings()
BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A contestant as it enters one workload."""

    label: str
    adapter: str
    settings: Settings = DEFAULTS
    mode: str = "single"
    """How items are put and taken; the workload says what the word means."""
    items: Callable[[Scale], int] | None = None
    """How many items, where entrants of one workload differ in that."""
    batch: int = BATCH
    """How many items a call, where the mode says that they go in batches."""
    producers: int | None = None
    consumers: int | None = None
    """How many processes, where entrants of one workload differ in that."""
    ordered: bool = True
    """Whether it promises to one consumer the order in which one producer put."""

    def prepare(self, directory: Path) -> Any:
        return adapter_named(self.adapter).prepare(CONTEXT, directory, self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """Where and how large one repetition is."""

    directory: Path
    """Empty, on the disk to be measured, deleted afterwards."""
    scale: Scale

    def crew(self, size: int) -> Crew:
        return Crew(size, self.scale.patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """What one repetition yields."""

    metrics: Mapping[str, float]
    account: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Workload(Protocol):
    """A job that contestants do in turns."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def entrants(self) -> Sequence[Entrant]: ...

    @property
    def targets(self) -> Sequence[Target]: ...

    @property
    def columns(self) -> Sequence[str]:
        """Metrics to show, the decisive one first."""

    def repetitions(self, scale: Scale) -> int: ...

    def footprint(self, scale: Scale) -> int:
        """Bytes of memory and page cache that a repetition may need, roughly: the same for every entrant."""

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        """One repetition; raises `AccountError` if items are not accounted for."""


def measured(**metrics: float | None) -> dict[str, float]:
    """The metrics that could be measured here."""
    return {name: value for name, value in metrics.items() if value is not None}
