"""The kinds of work that contestants do in turns; which of it is done, by whom and how well, is in `benchmarks.programme`."""

from __future__ import annotations

from benchmarks.workloads.contract import Arena, Entrant, Repetition, Workload

__all__ = ["Arena", "Entrant", "Repetition", "Workload"]
