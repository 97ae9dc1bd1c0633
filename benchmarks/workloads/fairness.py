"""Tasks of mixed length on a few workers: how near the whole comes to the best that is possible.

A task sleeps instead of computing, so that four workers need no four cores. All are in the queue before the first is taken. The
ideal is the sum of the lengths shared out evenly, or the longest task if that is more: nobody can be faster. Whoever takes
tasks in the order put, one each time it is free, needs slightly more; that is saved as a fact beside it.
"""

from __future__ import annotations

import heapq
import random
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.account import settle
from benchmarks.adapters import Ticket
from benchmarks.crew import StartLine, clock
from benchmarks.payload import STOP, BytesPayload
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.workloads.contract import Arena, Entrant, Repetition
from benchmarks.workloads.transfer import dismiss, offered

WORKERS = 4
MIX = ((1, 60), (3, 25), (8, 10), (20, 5))
"""Length in units, and how many of a hundred tasks have it: most are short, and half the time is in a tenth of them."""


def lengths(count: int, unit: float) -> list[float]:
    """Seconds that each task takes; the same for every contestant and run."""
    mixed = [units * unit for units, share in MIX for _ in range(count * share // 100)]
    mixed += [unit] * (count - len(mixed))
    random.Random(count).shuffle(mixed)
    return mixed


def ideal(tasks: Sequence[float], workers: int) -> float:
    """The least time in which that many workers can be through."""
    return max(sum(tasks) / workers, *tasks)


def in_turn(tasks: Sequence[float], workers: int) -> float:
    """The time of workers who each take the next task whenever they are free, at no cost."""
    free = [0.0] * workers
    for task in tasks:
        heapq.heapreplace(free, free[0] + task)
    return max(free)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """A worker's report."""

    began: int
    last: int
    busy: float
    taken: dict[int, array[int]]


def assign(line: StartLine, ticket: Ticket, payload: BytesPayload, count: int) -> None:
    """Put all tasks, then let the workers begin."""
    handle = ticket.open()
    for item in payload.make(0, 0, count):
        handle.put(item)
    handle.close()
    line.cross()


def work_off(line: StartLine, ticket: Ticket, payload: BytesPayload, acked: bool, tasks: Sequence[float]) -> Worked:
    """Take tasks and sleep as long as each says, until told to stop."""
    handle = ticket.open()
    lease = offered(handle.lease) if acked else _unleased(offered(handle.get))
    taken = array("I")
    busy = 0.0
    began = last = line.cross()
    while True:
        item, done = lease()
        if item == STOP:
            done()
            break
        _producer, number = payload.identify(item)
        time.sleep(tasks[number])
        done()
        last = clock()
        busy += tasks[number]
        taken.append(number)
    handle.close()
    return Worked(began=began, last=last, busy=busy, taken={0: taken} if taken else {})


def _unleased(get: Callable[[], Any]) -> Callable[[], tuple[Any, Callable[[], object]]]:
    """As if it could be acknowledged."""
    return lambda: (get(), lambda: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """A workload of this kind; an entrant of mode "acked" acknowledges each task when its work is done."""

    name: str
    title: str
    payload: BytesPayload
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    columns: Sequence[str] = ("against_ideal", "makespan")

    def repetitions(self, scale: Scale) -> int:
        return scale.few

    def footprint(self, scale: Scale) -> int:  # noqa: ARG002
        return 0

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        tasks = lengths(arena.scale.tasks, arena.scale.task_unit)
        ticket = entrant.prepare(arena.directory)
        with arena.crew(WORKERS + 1) as crew:
            work = (ticket, self.payload, entrant.mode == "acked", tasks)
            workers = [crew.start("worker", work_off, *work) for _ in range(WORKERS)]
            crew.result(crew.start("producer", assign, ticket, self.payload, len(tasks)))
            dismiss(crew, ticket, workers, arena.scale.patience)
            reports: list[Worked] = crew.results(workers)
        account = settle({0: len(tasks)}, [report.taken for report in reports]).demand()
        makespan = (max(report.last for report in reports) - min(report.began for report in reports)) / 1e9
        least = ideal(tasks, WORKERS)
        return Repetition(
            metrics={"against_ideal": makespan / least, "makespan": makespan},
            account=asdict(account),
            facts={"ideal": least, "in turn": in_turn(tasks, WORKERS), "busy": [report.busy for report in reports]},
        )
