"""What it costs a process that lives for one item: import, open, put, get, close; each process after the one before.

The import is timed in an interpreter that has imported nothing else, the rest in a spawned process, where the module has been
imported already. The queue exists, and is empty.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise

from benchmarks.account import AccountError
from benchmarks.adapters import Ticket
from benchmarks.crew import StartLine, clock
from benchmarks.payload import BytesPayload
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.workloads.contract import Arena, Entrant, Repetition
from benchmarks.workloads.transfer import offered

STEPS = ("opening", "first_put", "first_get", "closing")


def live_shortly(line: StartLine, ticket: Ticket, module: str, item: bytes) -> tuple[bool, list[int]]:
    """Whether the item came back, and the nanoseconds of each step."""
    import_module(module)
    line.cross()
    times = [clock()]
    handle = ticket.open()
    get = offered(handle.get)
    times.append(clock())
    handle.put(item)
    times.append(clock())
    found = get()
    times.append(clock())
    handle.close()
    times.append(clock())
    return found == item, [after - before for before, after in pairwise(times)]


def import_time(module: str) -> float:
    """Nanoseconds of an import in a fresh interpreter."""
    code = f"from time import perf_counter_ns as clock; began = clock(); import {module}; print(clock() - began)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout.split()[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """A workload of this kind; an entrant's mode is the module that its user imports."""

    name: str
    title: str
    payload: BytesPayload
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    columns: Sequence[str] = ("startup", "importing", *STEPS)

    def repetitions(self, scale: Scale) -> int:
        return scale.few

    def footprint(self, scale: Scale) -> int:  # noqa: ARG002
        return 0

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        ticket = entrant.prepare(arena.directory)
        count = arena.scale.starts
        lives = []
        for item in self.payload.make(0, 0, count):
            with arena.crew(1) as crew:
                whole, steps = crew.result(crew.start("process", live_shortly, ticket, entrant.mode, item))
            if not whole:
                raise AccountError("a process did not get what it had put")
            lives.append((import_time(entrant.mode), *steps))
        by_step = zip(("importing", *STEPS), zip(*lives, strict=True), strict=True)
        medians = {name: statistics.median(each) / 1e6 for name, each in by_step}
        return Repetition(
            metrics={"startup": statistics.median(map(sum, lives)) / 1e6, **medians},
            account={"put": count, "got": count},
        )
