"""What a queue makes of the rate at which the same disk takes the same bytes from plain writes, or from a bare RocksDB."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.account import AccountError
from benchmarks.adapters import CeilingTicket
from benchmarks.workloads.contract import Arena, Entrant, Repetition, measured
from benchmarks.workloads.transfer import Produced, Transfer, produce

WRITE_ONLY = "write only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling(Transfer):
    """A transfer in which an entrant of mode "write only" (or "write only batch") is timed until its last write returned."""

    columns: Sequence[str] = ("bandwidth", "written_ratio", "cancelled_ratio", "consumer_peak")

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        # What earlier repetitions left to be written is not this one's burden.
        os.sync()
        if entrant.mode.startswith(WRITE_ONLY):
            return self._write_only(entrant, arena)
        return Transfer.run(self, entrant, arena)

    def _write_only(self, entrant: Entrant, arena: Arena) -> Repetition:
        count = (entrant.items or self.items)(arena.scale)
        ticket: CeilingTicket = entrant.prepare(arena.directory)
        with arena.crew(1) as crew:
            work = (ticket, entrant.mode, self.payload, 0, count, entrant.batch)
            report: Produced = crew.result(crew.start("writer", produce, *work))
        stored = ticket.stored()
        if stored != count * self.payload.size:
            raise AccountError(f"{count * self.payload.size} bytes written, {stored} found")
        seconds = (report.ended - report.began) / 1e9
        metrics = measured(
            seconds=seconds,
            rate=count / seconds,
            bandwidth=stored / seconds / (1 << 20),
            producer_cpu=report.cpu / count * 1e6,
            written_ratio=None if report.written is None else report.written.dirtied / stored,
            cancelled_ratio=None if report.written is None else report.written.cancelled / stored,
        )
        return Repetition(metrics=metrics, account={"put": count})
