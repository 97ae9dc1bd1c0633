"""Repetitions in, a median with its spread out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Repetitions of one metric."""

    median: float
    low: float
    high: float
    repetitions: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        return cls(median=statistics.median(values), low=min(values), high=max(values), repetitions=len(values))


def percentile(ordered: Sequence[int], share: float) -> int:
    """The smallest value that at least ``share`` of the ordered values do not exceed (nearest rank)."""
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[int(rank) - 1]
