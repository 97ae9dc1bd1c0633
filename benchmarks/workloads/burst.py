"""Bursts to a consumer that sleeps: all of one is put as fast as it can be, and the next comes when it has been drained."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.account import harvest, settle
from benchmarks.adapters import Ticket
from benchmarks.crew import StartLine, clock
from benchmarks.payload import BytesPayload
from benchmarks.sample import percentile
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.workloads.contract import Arena, Entrant, Repetition
from benchmarks.workloads.transfer import offered

PAUSE = 0.05
"""Seconds between the end of one burst and the next: the consumer is asleep again by then."""


def burst(line: StartLine, ticket: Ticket, payload: BytesPayload, bursts: int, size: int) -> list[tuple[int, int]]:
    """When the putting of each burst began and ended."""
    items = [payload.make(0, number * size, size) for number in range(bursts)]
    handle = ticket.open()
    put = handle.put
    times = []
    for some in items:
        line.cross()
        time.sleep(PAUSE)
        began = clock()
        for item in some:
            put(item)
        times.append((began, clock()))
    handle.close()
    return times


def drain(
    line: StartLine, ticket: Ticket, payload: BytesPayload, bursts: int, size: int
) -> tuple[dict[int, array[int]], list[tuple[int, int]]]:
    """What was taken, and when the first and the last item of each burst were in hand."""
    handle = ticket.open()
    get = offered(handle.get)
    kept: list[Any] = []
    times = []
    for _ in range(bursts):
        line.cross()
        kept.append(get())
        first = clock()
        kept += [get() for _ in range(size - 1)]
        times.append((first, clock()))
    handle.close()
    return harvest(payload, kept), times


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """A workload of this kind."""

    name: str
    title: str
    payload: BytesPayload
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    columns: Sequence[str] = ("rate", "put_rate", "first")

    def repetitions(self, scale: Scale) -> int:
        return scale.few

    def footprint(self, scale: Scale) -> int:
        return 2 * scale.bursts * scale.burst * self.payload.size

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        bursts, size = arena.scale.bursts, arena.scale.burst
        ticket = entrant.prepare(arena.directory)
        with arena.crew(2) as crew:
            consumer = crew.start("consumer", drain, ticket, self.payload, bursts, size)
            put = crew.result(crew.start("producer", burst, ticket, self.payload, bursts, size))
            taken, got = crew.result(consumer)
        account = settle({0: bursts * size}, [taken]).demand()
        putting = sum(ended - began for began, ended in put)
        draining = sum(last - began for (began, _), (_, last) in zip(put, got, strict=True))
        firsts = sorted(first - began for (began, _), (first, _) in zip(put, got, strict=True))
        return Repetition(
            metrics={
                "rate": bursts * size / draining * 1e9,
                "put_rate": bursts * size / putting * 1e9,
                "first": percentile(firsts, 0.5) / 1e3,
            },
            account=asdict(account),
        )
