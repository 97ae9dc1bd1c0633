"""Producers put while consumers take: from the barrier until the last consumer has its last item."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

from benchmarks.account import harvest, settle
from benchmarks.adapters import Handle, Ticket
from benchmarks.crew import Crew, StartLine, Worker, WorkerError, clock
from benchmarks.payload import STOP, Payload
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.usage import Written, peak_memory, total_written
from benchmarks.workloads.contract import BATCH, Arena, Entrant, Repetition, measured

Offer = TypeVar("Offer")

CLOCK_EVERY = 16
"""Reading the clock costs 40 ns, a fair part of a get: the last item's time is known to within this many items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """A producer's report; times are `clock` readings."""

    began: int
    ended: int
    cpu: float
    count: int
    written: Written | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumed:
    """A consumer's report."""

    last_item: int
    cpu: float
    taken: dict[int, array[int]]
    written: Written | None
    peak: float | None


def produce(
    line: StartLine, ticket: Ticket, mode: str, payload: Payload, producer: int, count: int, size: int = BATCH
) -> Produced:
    """Work of a producer process: items are made before the barrier, and everything is flushed before it ends."""
    items = payload.make(producer, 0, count)
    batches = [items[at : at + size] for at in range(0, count, size)]
    handle = ticket.open()
    cpu = -time.process_time()
    began = line.cross()
    if "batch" in mode:
        put_many = offered(handle.put_many)
        for batch in batches:
            put_many(batch)
    else:
        put = handle.put
        for item in items:
            put(item)
    ended = clock()
    handle.close()
    cpu += time.process_time()
    return Produced(began=began, ended=ended, cpu=cpu, count=count, written=Written.so_far())


def consume(line: StartLine, ticket: Ticket, mode: str, payload: Payload, keep_whole: bool, size: int = BATCH) -> Consumed:
    """Work of a consumer process: takes until it is told to stop, and only then looks at what it has."""
    kept: list[Any] = []
    # A consumer that kept items of a mebibyte would time the page faults of its own memory.
    keep = kept.append if keep_whole else lambda item: kept.append(payload.identify(item))
    handle = ticket.open()
    cpu = -time.process_time()
    line.cross()
    if mode == "batch":
        last_item = _take_batches(handle, kept, size)
    elif mode == "acked":
        last_item = _take(offered(handle.receive), keep, CLOCK_EVERY)
    else:
        last_item = _take(offered(handle.get), keep, CLOCK_EVERY if keep_whole else 1)
    cpu += time.process_time()
    handle.close()
    taken = harvest(payload, kept) if keep_whole else _by_producer(kept)
    return Consumed(last_item=last_item, cpu=cpu, taken=taken, written=Written.so_far(), peak=peak_memory())


def _take(get: Callable[[], Any], keep: Callable[[Any], object], clock_every: int) -> int:
    last = clock()
    while True:
        for _ in range(clock_every):
            item = get()
            if item == STOP:
                return last
            keep(item)
        last = clock()


def _take_batches(handle: Handle, kept: list[Any], size: int) -> int:
    get_many = offered(handle.get_many)
    last = clock()
    while True:
        items = get_many(size)
        kept += items
        # Nothing is put after a stop, and the next one only when this one was taken.
        if items[-1] == STOP:
            kept.pop()
            return last if len(items) == 1 else clock()
        last = clock()


def _by_producer(identities: Sequence[tuple[int, int]]) -> dict[int, array[int]]:
    taken: dict[int, array[int]] = {}
    for producer, sequence in identities:
        taken.setdefault(producer, array("I")).append(sequence)
    return taken


def offered(method: Offer | None) -> Offer:
    """The method, if this contestant has it."""
    if method is None:
        raise LookupError("this contestant does not offer what the workload needs")
    return method


def dismiss(crew: Crew, ticket: Ticket, consumers: Sequence[Worker], patience: float) -> None:
    """Wait until nothing is left to take, then stop the consumers one by one.

    A stop that went ahead of items, or two of them claimed by one consumer, would falsify the run.
    """
    handle = ticket.open()
    drained = offered(handle.drained)
    deadline = time.monotonic() + patience
    while not drained():
        if time.monotonic() > deadline:
            raise WorkerError("stuck: the producers are done, but the queue does not become empty")
        time.sleep(0.002)
    remaining = list(consumers)
    while remaining:
        handle.put(STOP)
        remaining.remove(crew.first(remaining))
    handle.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A workload of this kind."""

    name: str
    title: str
    payload: Payload
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    items: Callable[[Scale], int]
    producers: int = 1
    consumers: int = 1
    few: bool = False
    columns: Sequence[str] = ("rate", "producer_cpu", "consumer_cpu", "written_ratio")

    def repetitions(self, scale: Scale) -> int:
        return scale.few if self.few else scale.repetitions

    def footprint(self, scale: Scale) -> int:
        return 2 * self.items(scale) * self.payload.size

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        total = (entrant.items or self.items)(arena.scale)
        putting, taking = entrant.producers or self.producers, entrant.consumers or self.consumers
        shares = [total // putting] * putting
        ticket = entrant.prepare(arena.directory)
        keep_whole = self.payload.size < 1 << 16
        with arena.crew(putting + taking) as crew:
            put_by = partial(crew.start, "producer", produce, ticket, entrant.mode, self.payload)
            take = (ticket, entrant.mode, self.payload, keep_whole, entrant.batch)
            consumers = [crew.start("consumer", consume, *take) for _ in range(taking)]
            producers = [put_by(number, share, entrant.batch) for number, share in enumerate(shares)]
            produced: list[Produced] = crew.results(producers)
            dismiss(crew, ticket, consumers, arena.scale.patience)
            consumed: list[Consumed] = crew.results(consumers)
        taken = [report.taken for report in consumed]
        account = settle(dict(enumerate(shares)), taken, ordered=entrant.ordered).demand()
        return Repetition(metrics=self._metrics(produced, consumed), account=asdict(account))

    def _metrics(self, produced: Sequence[Produced], consumed: Sequence[Consumed]) -> dict[str, float]:
        count = sum(report.count for report in produced)
        seconds = (max(report.last_item for report in consumed) - min(report.began for report in produced)) / 1e9
        payload_bytes = count * self.payload.size
        written = total_written([*(report.written for report in produced), *(report.written for report in consumed)])
        peaks = [report.peak for report in consumed if report.peak is not None]
        return measured(
            seconds=seconds,
            rate=count / seconds,
            bandwidth=payload_bytes / seconds / (1 << 20),
            put_seconds=max(report.ended - report.began for report in produced) / 1e9,
            producer_cpu=sum(report.cpu for report in produced) / count * 1e6,
            consumer_cpu=sum(report.cpu for report in consumed) / count * 1e6,
            consumer_peak=max(peaks, default=None),
            written_ratio=None if written is None else written.dirtied / payload_bytes,
            cancelled_ratio=None if written is None else written.cancelled / payload_bytes,
        )
