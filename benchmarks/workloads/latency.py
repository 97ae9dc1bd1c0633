"""How old an item is when a consumer that was waiting for it has it: items at a steady pace, the clock inside them."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from benchmarks.account import settle
from benchmarks.adapters import Ticket
from benchmarks.crew import StartLine, clock
from benchmarks.payload import HEADER, BytesPayload
from benchmarks.sample import percentile
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.workloads.contract import Arena, Entrant, Repetition
from benchmarks.workloads.transfer import offered

WARM_UP = 0.1
"""Share of the items at the start that are not counted: first segment, first page faults, cold caches."""


def pace(line: StartLine, ticket: Ticket, payload: BytesPayload, count: int, period: int) -> None:
    """Put an item every ``period`` nanoseconds, stamped at the last moment; one that is late is put at once."""
    handle = ticket.open()
    put, stamped, sleep = handle.put, payload.stamped, time.sleep
    due = line.cross()
    for sequence in range(count):
        due += period
        early = due - clock()
        if early > 0:
            sleep(early / 1e9)
        put(stamped(0, sequence, clock()))
    handle.close()


def await_each(line: StartLine, ticket: Ticket, count: int) -> tuple[list[bytes], array[int]]:
    """Take the items and note when each was in hand."""
    handle = ticket.open()
    get = offered(handle.get)
    items: list[bytes] = []
    arrivals = array("Q")
    line.cross()
    for _ in range(count):
        item = get()
        arrivals.append(clock())
        items.append(item)
    handle.close()
    return items, arrivals


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A workload of this kind."""

    name: str
    title: str
    payload: BytesPayload
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    items: Callable[[Scale], int]
    period: int = 1_000_000
    few: bool = False
    columns: Sequence[str] = ("p50", "p95", "p99", "max")

    def repetitions(self, scale: Scale) -> int:
        return scale.few if self.few else scale.repetitions

    def footprint(self, scale: Scale) -> int:
        return 2 * self.items(scale) * self.payload.size

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        count = self.items(arena.scale)
        ticket = entrant.prepare(arena.directory)
        with arena.crew(2) as crew:
            consumer = crew.start("consumer", await_each, ticket, count)
            producer = crew.start("producer", pace, ticket, self.payload, count, self.period)
            crew.result(producer)
            items, arrivals = crew.result(consumer)
        taken: dict[int, array[int]] = {}
        for item in items:
            who, sequence = self.payload.identify(item)
            taken.setdefault(who, array("I")).append(sequence)
        account = settle({0: count}, [taken]).demand()
        counted = slice(int(count * WARM_UP), None)
        ages = sorted(
            arrival - HEADER.unpack_from(item)[2] for item, arrival in zip(items[counted], arrivals[counted], strict=True)
        )
        metrics = {name: percentile(ages, share) / 1e3 for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
        return Repetition(metrics={**metrics, "max": ages[-1] / 1e3}, account=asdict(account))
