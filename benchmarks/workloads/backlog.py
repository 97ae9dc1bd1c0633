"""A backlog is put, then taken: its size must not show in the rates, nor in the consumer's memory.

Both sizes are measured alike: a handle is opened, then chunks of which every call of `put` and of `get` is timed, the
first and the last, those that create, seal, open and delete segments among them; making and checking the items is not.
One process has put all of it before the other opens the queue. A short backlog is over in milliseconds, so the
same two processes do a number of fresh queues. As its rates bear the cost of a first segment, a second look is
taken within each backlog: how the rate of its second half compares with that of its first (`…_drift`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.account import AccountError
from benchmarks.adapters import Ticket
from benchmarks.crew import StartLine, clock
from benchmarks.payload import BytesPayload
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.usage import Written, peak_memory
from benchmarks.workloads.contract import Arena, Entrant, Repetition, measured
from benchmarks.workloads.transfer import offered

CHUNK = 1000


class Stopwatch:
    """Nanoseconds spent in the first and in the second half of the chunks."""

    def __init__(self, count: int) -> None:
        self.halves = [0, 0]
        self._middle = count // 2
        self._began = 0

    def start(self) -> None:
        self._began = clock()

    def stop(self, first: int) -> None:
        """The chunk that begins with item ``first`` is through."""
        self.halves[first >= self._middle] += clock() - self._began


def fill(line: StartLine, tickets: Sequence[Ticket], payload: BytesPayload, count: int) -> tuple[list[int], Written | None]:
    """Put ``count`` items into each queue; returns the time that took, and what was written."""
    line.cross()
    watch = Stopwatch(count)
    for ticket in tickets:
        handle = ticket.open()
        put = handle.put
        for first in range(0, count, CHUNK):
            items = payload.make(0, first, min(CHUNK, count - first))
            watch.start()
            for item in items:
                put(item)
            watch.stop(first)
        handle.close()
    return watch.halves, Written.so_far()


def drain(line: StartLine, tickets: Sequence[Ticket], payload: BytesPayload, count: int) -> tuple[list[int], float | None]:
    """Take them again, checking each; returns the time the taking took, and this process's peak memory."""
    line.cross()
    watch = Stopwatch(count)
    for ticket in tickets:
        handle = ticket.open()
        get = offered(handle.get)
        for first in range(0, count, CHUNK):
            numbers = range(first, min(first + CHUNK, count))
            watch.start()
            items = [get() for _ in numbers]
            watch.stop(first)
            if [payload.identify(item) for item in items] != [(0, number) for number in numbers]:
                raise AccountError(f"items {numbers} of the backlog came back otherwise")
        if not offered(handle.drained)():
            raise AccountError("all of the backlog was taken, and there is more")
        handle.close()
    return watch.halves, peak_memory()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A workload of this kind; an entrant of mode "many" does `Scale.backlog_small_queues` fresh queues."""

    name: str
    title: str
    payload: BytesPayload
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    columns: Sequence[str] = ("put_rate", "get_rate", "put_drift", "get_drift", "consumer_peak", "written_ratio")

    def repetitions(self, scale: Scale) -> int:
        return scale.backlog_repetitions

    def footprint(self, scale: Scale) -> int:
        return 2 * scale.backlog_large * self.payload.size

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        if entrant.items is None:
            raise ValueError("an entrant of a backlog says how many items")
        count = entrant.items(arena.scale)
        queues = arena.scale.backlog_small_queues if entrant.mode == "many" else 1
        tickets = [entrant.prepare(_made(arena.directory / str(number))) for number in range(queues)]
        with arena.crew(1) as crew:
            put_ns, written = crew.result(crew.start("producer", fill, tickets, self.payload, count))
        with arena.crew(1) as crew:
            get_ns, peak = crew.result(crew.start("consumer", drain, tickets, self.payload, count))
        everything = count * queues
        metrics = measured(
            put_rate=everything / sum(put_ns) * 1e9,
            get_rate=everything / sum(get_ns) * 1e9,
            put_drift=_drift(put_ns),
            get_drift=_drift(get_ns),
            consumer_peak=peak,
            written_ratio=None if written is None else written.dirtied / (everything * self.payload.size),
        )
        return Repetition(metrics=metrics, account={"put": everything, "got": everything}, facts={"queues": queues})


def _drift(halves: Sequence[int]) -> float | None:
    """None for a backlog of a single chunk."""
    return halves[0] / halves[1] if halves[1] else None


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
