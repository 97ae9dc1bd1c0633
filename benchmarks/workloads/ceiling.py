"""Large items: what a queue makes of the rate at which the same disk takes the same bytes from plain calls of write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.account import AccountError
from benchmarks.payload import Payload
from benchmarks.workloads.contract import Arena, Entrant, Repetition, measured
from benchmarks.workloads.transfer import Produced, Transfer, produce


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling(Transfer):
    """A transfer in which an entrant of mode "write only" is timed from the barrier to its last write's return."""

    columns: Sequence[str] = ("bandwidth", "written_ratio", "cancelled_ratio", "consumer_peak")

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        # What earlier repetitions left to be written is not this one's burden.
        os.sync()
        if entrant.mode != "write only":
            return Transfer.run(self, entrant, arena)
        return self._write_only(entrant, arena, self.payload, self.items(arena.scale))

    def _write_only(self, entrant: Entrant, arena: Arena, payload: Payload, count: int) -> Repetition:
        ticket = entrant.prepare(arena.directory)
        with arena.crew(1) as crew:
            report: Produced = crew.result(crew.start("writer", produce, ticket, "single", payload, 0, count))
        stored = sum(path.stat().st_size for path in arena.directory.iterdir())
        if stored != count * payload.size:
            raise AccountError(f"{count * payload.size} bytes written, {stored} found")
        seconds = (report.ended - report.began) / 1e9
        metrics = measured(
            seconds=seconds,
            bandwidth=stored / seconds / (1 << 20),
            producer_cpu=report.cpu / count * 1e6,
            written_ratio=None if report.written is None else report.written.dirtied / stored,
            cancelled_ratio=None if report.written is None else report.written.cancelled / stored,
        )
        return Repetition(metrics=metrics, account={"put": count})
