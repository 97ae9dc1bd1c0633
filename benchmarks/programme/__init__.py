"""The programme: every workload, who enters it, and what has to come out."""

from __future__ import annotations

from benchmarks.programme import alone, behaviour, transfers
from benchmarks.workloads import Workload

__all__ = ["WORKLOADS", "QUICK"]

_programme: tuple[Workload, ...] = (*transfers.WORKLOADS, *behaviour.WORKLOADS, *alone.WORKLOADS)

WORKLOADS = {workload.name: workload for workload in _programme}

QUICK = (
    "single",
    "single-4x4",
    "batch",
    "peers",
    "acked",
    "capacity",
    "dicts",
    "large",
    "latency",
    "fairness",
    "backlog",
    "alone",
    "idle",
)
"""What a quick run does unless told otherwise: one of each kind, and what most people ask first."""
