"""Put and taken by one and the same process: where a contestant knows no other way, or its users do not need one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.account import harvest, settle
from benchmarks.adapters import Handle, Ticket
from benchmarks.crew import StartLine, clock
from benchmarks.payload import Payload
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.workloads.contract import BATCH, Arena, Entrant, Repetition, measured
from benchmarks.workloads.transfer import Transfer, offered


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What the process reports; times are nanoseconds."""

    putting: int
    getting: int
    cpu: float
    account: dict[str, int]


def put_and_take(line: StartLine, ticket: Ticket, batch: bool, mixed: bool, payload: Payload, count: int) -> Done:
    """All is put, then all is taken; `mixed`: a thousand are put and taken, then the next thousand."""
    items = payload.make(0, 0, count)
    handle = ticket.open()
    kept: list[Any] = []
    putting = getting = 0
    cpu = -time.process_time()
    line.cross()
    rounds = [items[at : at + BATCH] for at in range(0, count, BATCH)] if mixed else [items]
    for some in rounds:
        begun = clock()
        _put(handle, some, batch)
        between = clock()
        _take(handle, kept, len(some), batch)
        putting, getting = putting + between - begun, getting + clock() - between
    cpu += time.process_time()
    handle.close()
    account = settle({0: count}, [harvest(payload, kept)]).demand()
    return Done(putting=putting, getting=getting, cpu=cpu, account=asdict(account))


def _put(handle: Handle, items: list[Any], batch: bool) -> None:
    if batch:
        put_many = offered(handle.put_many)
        for at in range(0, len(items), BATCH):
            put_many(items[at : at + BATCH])
    else:
        put = handle.put
        for item in items:
            put(item)


def _take(handle: Handle, kept: list[Any], count: int, batch: bool) -> None:
    if batch:
        get_many = offered(handle.get_many)
        end = len(kept) + count
        while len(kept) < end:
            kept += get_many(BATCH)
    else:
        get = offered(handle.get)
        for _ in range(count):
            kept.append(get())


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A workload of this kind; an entrant's mode is words among `batch` and `mixed`."""

    name: str
    title: str
    payload: Payload
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    items: Callable[[Scale], int]
    columns: Sequence[str] = ("rate", "put_rate", "get_rate")

    def repetitions(self, scale: Scale) -> int:
        return scale.few

    def footprint(self, scale: Scale) -> int:
        return 2 * self.items(scale) * self.payload.size

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        return run_alone(entrant, arena, self.payload, (entrant.items or self.items)(arena.scale))


def run_alone(entrant: Entrant, arena: Arena, payload: Payload, count: int) -> Repetition:
    words = entrant.mode.split()
    ticket = entrant.prepare(arena.directory)
    with arena.crew(1) as crew:
        work = ("batch" in words, "mixed" in words, payload, count)
        done: Done = crew.result(crew.start("process", put_and_take, ticket, *work))
    return Repetition(
        metrics=measured(
            rate=count / (done.putting + done.getting) * 1e9,
            put_rate=count / done.putting * 1e9,
            get_rate=count / done.getting * 1e9,
        ),
        account=done.account,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside(Transfer):
    """A transfer in which entrants of a mode with the word "alone" do it within one process: they know no other way."""

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        if "alone" in entrant.mode.split():
            return run_alone(entrant, arena, self.payload, (entrant.items or self.items)(arena.scale))
        return Transfer.run(self, entrant, arena)
