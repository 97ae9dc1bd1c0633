"""The most memory either side has while a backlog is in the queue: all of it is put before the first item is taken.

Items are made and checked on the way, a chunk at a time, so that none but the queue keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.account import AccountError
from benchmarks.adapters import Ticket
from benchmarks.crew import StartLine, WorkerError
from benchmarks.payload import BytesPayload
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.usage import peak_memory
from benchmarks.workloads.contract import Arena, Entrant, Repetition
from benchmarks.workloads.transfer import offered

CHUNK = 1000


def fill(line: StartLine, ticket: Ticket, payload: BytesPayload, count: int) -> tuple[float | None, float | None]:
    """Peak memory before the queue was opened, and after everything was put and handed on."""
    before = peak_memory()
    handle = ticket.open()
    put = handle.put
    line.cross()
    for first in range(0, count, CHUNK):
        for item in payload.make(0, first, min(CHUNK, count - first)):
            put(item)
    line.cross()  # the consumer may begin
    handle.close()
    return before, peak_memory()


def drain(line: StartLine, ticket: Ticket, payload: BytesPayload, count: int) -> tuple[float | None, float | None]:
    """Peak memory before the queue was opened, and after everything was taken."""
    before = peak_memory()
    handle = ticket.open()
    get = offered(handle.get)
    line.cross()
    line.cross()
    for number in range(count):
        if payload.identify(get()) != (0, number):
            raise AccountError(f"item {number} came back otherwise")
    handle.close()
    return before, peak_memory()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A workload of this kind."""

    name: str
    title: str
    payload: BytesPayload
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    columns: Sequence[str] = ("producer_peak", "consumer_peak", "producer_growth", "consumer_growth")

    def repetitions(self, scale: Scale) -> int:
        return scale.few

    def footprint(self, scale: Scale) -> int:
        return 2 * scale.memory * self.payload.size

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        count = (entrant.items or (lambda scale: scale.memory))(arena.scale)
        ticket = entrant.prepare(arena.directory)
        with arena.crew(2) as crew:
            consumer = crew.start("consumer", drain, ticket, self.payload, count)
            put = crew.result(crew.start("producer", fill, ticket, self.payload, count))
            got = crew.result(consumer)
        if None in put or None in got:
            raise WorkerError("the peak memory of a process can be read on Linux only")
        return Repetition(
            metrics={
                "producer_peak": put[1],
                "consumer_peak": got[1],
                "producer_growth": put[1] - put[0],
                "consumer_growth": got[1] - got[0],
            },
            account={"put": count, "got": count},
        )
