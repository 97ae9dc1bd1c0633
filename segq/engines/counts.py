"""Counts of an engine that cannot tell all that a local queue can."""

from __future__ import annotations

import dataclasses

from segq._core.directory.tally import LabelStats, Stats


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats(Stats):
    """`unknown` names the fields that the engine does not know; they stand at zero, and mean nothing.

    Items since the queue was made, as the engine counts them: `ever_put`; `ever_got`, again for each time an item was handed
    out; `ever_gone`, acknowledged or dropped or expired. In a topic nobody knows who got what.
    """

    unknown: tuple[str, ...] = ()
    ever_put: int = 0
    ever_got: int = 0
    ever_gone: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineLabelStats(LabelStats):
    """`unknown` names the fields that the engine does not know; they stand at zero, and mean nothing."""

    unknown: tuple[str, ...] = ()
