"""What consumers cost that wait for something to come."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.account import AccountError
from benchmarks.adapters import Ticket
from benchmarks.crew import StartLine, WorkerError
from benchmarks.payload import STOP
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.usage import cpu_of
from benchmarks.workloads.contract import Arena, Entrant, Repetition
from benchmarks.workloads.transfer import offered

SETTLING = 0.5
"""Seconds after the barrier before the window opens."""


def wait_for_one(line: StartLine, ticket: Ticket) -> int:
    """Block in `get` until something comes; returns how much came that was no stop."""
    handle = ticket.open()
    line.cross()
    item = offered(handle.get)()
    handle.close()
    return int(item != STOP)


def witness(line: StartLine, pids: Sequence[int], window: float) -> float:
    """CPU seconds that those processes used per second of wall time."""
    line.cross()
    time.sleep(SETTLING)
    before, began = sum(map(cpu_of, pids)), time.monotonic()
    time.sleep(window)
    return (sum(map(cpu_of, pids)) - before) / (time.monotonic() - began)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A workload of this kind."""

    name: str
    title: str
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    columns: Sequence[str] = ("idle_cpu",)

    def repetitions(self, scale: Scale) -> int:
        return scale.idle_repetitions

    def footprint(self, scale: Scale) -> int:  # noqa: ARG002
        return 0

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        if not hasattr(time, "clock_gettime") or not os.path.exists("/proc"):
            raise WorkerError("the CPU time of another process can be read on Linux only")
        count = arena.scale.idle_consumers
        ticket = entrant.prepare(arena.directory)
        with arena.crew(count + 1) as crew:
            consumers = [crew.start("consumer", wait_for_one, ticket) for _ in range(count)]
            pids = [worker.process.pid for worker in consumers]
            share = crew.result(crew.start("witness", witness, pids, arena.scale.idle_window))
            handle = ticket.open()
            remaining = list(consumers)
            while remaining:
                handle.put(STOP)
                remaining.remove(crew.first(remaining))
            handle.close()
            strangers = sum(crew.results(consumers))
        if strangers:
            raise AccountError(f"{strangers} consumers of an empty queue were given something")
        return Repetition(metrics={"idle_cpu": share * 100}, facts={"consumers": count})
