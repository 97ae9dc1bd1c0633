"""What the numbers have to reach, and by how much they do or do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.metric import METRICS
from benchmarks.sample import Summary

Summaries = Mapping[str, Mapping[str, Summary]]
"""Entrant, then metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on a metric of one entrant: on its ratio to another's, or on the number itself."""

    metric: str
    of: str
    against: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a target is either a least or a most")

    @property
    def bound(self) -> float:
        return self.at_least if self.at_least is not None else self.at_most or 0.0

    def text(self) -> str:
        sign = "≥" if self.at_least is not None else "≤"
        return f"{sign} {self.bound:g}{' x' if self.against else ' ' + METRICS[self.metric].unit}".rstrip()

    def judge(self, summaries: Summaries) -> Verdict | None:
        """The verdict on medians; None when an entrant it needs has not run or could not measure it."""
        own = summaries.get(self.of, {}).get(self.metric)
        if own is None:
            return None
        if self.against is None:
            return Verdict(target=self, value=own.median)
        other = summaries.get(self.against, {}).get(self.metric)
        if other is None or other.median == 0:
            return None
        return Verdict(target=self, value=own.median / other.median)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A target and what came out."""

    target: Target
    value: float

    @property
    def met(self) -> bool:
        return self.value >= self.target.bound if self.target.at_least is not None else self.value <= self.target.bound

    @property
    def missed_by(self) -> float:
        """How far from the bound, as a share of the bound; 0 when met."""
        return 0.0 if self.met else abs(self.value - self.target.bound) / self.target.bound

    def text(self) -> str:
        return "met" if self.met else f"missed by {self.missed_by:.0%}"
