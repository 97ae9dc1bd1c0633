"""One producer, several labels: each label takes every item."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.account import harvest, settle
from benchmarks.adapters import FanTicket
from benchmarks.crew import StartLine, clock
from benchmarks.payload import Payload
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.workloads.contract import BATCH, Arena, Entrant, Repetition, measured
from benchmarks.workloads.transfer import offered


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """What the producer reports; times are `clock` readings."""

    began: int
    ended: int
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one label reports."""

    last_item: int
    taken: dict[int, array[int]]


def put_all(line: StartLine, ticket: FanTicket, payload: Payload, count: int) -> Put:
    items = payload.make(0, 0, count)
    batches = [items[at : at + BATCH] for at in range(0, count, BATCH)]
    handle = ticket.open()
    put_many = offered(handle.put_many)
    cpu = -time.process_time()
    began = line.cross()
    for batch in batches:
        put_many(batch)
    ended = clock()
    handle.close()
    return Put(began=began, ended=ended, cpu=cpu + time.process_time())


def take_all(line: StartLine, ticket: FanTicket, payload: Payload, label: str, count: int) -> Taken:
    handle = ticket.open(label)
    get_many = offered(handle.get_many)
    kept: list[Any] = []
    line.cross()
    while len(kept) < count:
        kept += get_many(BATCH)
    last = clock()
    handle.close()
    return Taken(last_item=last, taken=harvest(payload, kept))


def in_turns(line: StartLine, ticket: FanTicket, payload: Payload, labels: int, count: int) -> tuple[Put, list[Taken]]:
    """All of it in one process: a batch is put, then each label takes it."""
    items = payload.make(0, 0, count)
    batches = [items[at : at + BATCH] for at in range(0, count, BATCH)]
    handle = ticket.open()
    put_many, get_many = offered(handle.put_many), offered(handle.get_many)
    kept: list[list[Any]] = [[] for _ in range(labels)]
    put_time, put_cpu = 0, 0.0
    began = line.cross()
    for batch in batches:
        put_time, put_cpu = put_time - clock(), put_cpu - time.process_time()
        put_many(batch)
        put_time, put_cpu = put_time + clock(), put_cpu + time.process_time()
        for label in range(labels):
            kept[label] += get_many(BATCH, str(label))  # type: ignore[call-arg]
    last = clock()
    handle.close()
    put = Put(began=began, ended=began + put_time, cpu=put_cpu)
    return put, [Taken(last_item=last, taken=harvest(payload, items)) for items in kept]


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOut:
    """A workload of this kind; an entrant's mode is the number of its labels."""

    name: str
    title: str
    payload: Payload
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    columns: Sequence[str] = ("rate", "put_rate", "producer_cpu")

    def repetitions(self, scale: Scale) -> int:
        return scale.few

    def footprint(self, scale: Scale) -> int:
        return 8 * scale.single * self.payload.size

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        labels, count = int(entrant.mode), arena.scale.single // BATCH * BATCH or BATCH
        ticket: Any = entrant.prepare(arena.directory)
        if ticket.one_process:
            with arena.crew(1) as crew:
                put, taken = crew.result(crew.start("process", in_turns, ticket, self.payload, labels, count))
        else:
            for label in range(labels):  # they exist before the race
                ticket.open(str(label)).close()
            with arena.crew(labels + 1) as crew:
                takers = [crew.start("label", take_all, ticket, self.payload, str(label), count) for label in range(labels)]
                put = crew.result(crew.start("producer", put_all, ticket, self.payload, count))
                taken = crew.results(takers)
        accounts = [settle({0: count}, [each.taken]).demand() for each in taken]
        seconds = (max(each.last_item for each in taken) - put.began) / 1e9
        return Repetition(
            metrics=measured(
                seconds=seconds,
                rate=count / seconds,
                put_rate=count / ((put.ended - put.began) / 1e9),
                producer_cpu=put.cpu / count * 1e6,
            ),
            account=asdict(accounts[0]),
            facts={"labels": labels},
        )
