"""Counts of an engine that cannot tell all that a local queue can."""

from __future__ import annotations

import dataclasses

from segq.stats import LabelStats, Stats


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats(Stats):
    """`unknown` names the fields that the engine does not know; they stand at zero, and mean nothing."""

    unknown: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineLabelStats(LabelStats):
    """`unknown` names the fields that the engine does not know; they stand at zero, and mean nothing."""

    unknown: tuple[str, ...] = ()
