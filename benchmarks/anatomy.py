"""``python -m benchmarks.anatomy``: where each microsecond goes, in segq alone. Figures move with the machine; shares less."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_UN, flock
from multiprocessing.connection import Connection
from pathlib import Path
from timeit import repeat

from rich.console import Console
from rich.table import Table

import segq
from benchmarks.crew import clock
from segq._core.format import blocks
from segq._core.segment.rocksdb import SegmentReader, SegmentWriter
from segq._core.segment.wal import WalReader
from segq._core.system import futex

ITEM = b"x" * 100
ROUNDS, COUNT = 9, 20_000
WAITED_FOR, PERIOD = 3_000, 1_000_000
WARM_UP = 0.1
BLOCK_ITEMS, BLOCKS = 2_600, 20

Row = tuple[str, float]


def _each(work: Callable[[], object], count: int) -> float:
    """Microseconds of one call, in a loop of `count`."""
    begun = clock()
    for _ in range(count):
        work()
    return (clock() - begun) / count / 1e3


def operations(place: Path) -> list[Row]:
    """The calls of the API, all in one process, with the items live."""
    with segq.Queue(place / "q", serializer="raw") as q:
        thousand = [ITEM] * 1000

        def in_turn() -> None:
            q.put(ITEM)
            q.get()

        def acked() -> None:
            q.receive().ack()

        found: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for name, work, count, items in (
                ("put", lambda: q.put(ITEM), COUNT, 1),
                ("get, of items claimed together", q.get, COUNT, 1),
                ("put and get in turn", in_turn, COUNT, 1),
                ("put_many(1000), an item", lambda: q.put_many(thousand), COUNT // 1000, 1000),
                ("receive and ack", acked, COUNT, 1),
                ("put_many(1000), an item", lambda: q.put_many(thousand), COUNT // 1000, 1000),
                ("get_many(1000), an item", lambda: q.get_many(1000), COUNT // 1000, 1000),
            ):
                found.setdefault(name, []).append(_each(work, count) / items)
    return [(name, statistics.median(times)) for name, times in found.items()]


def rocksdb(place: Path) -> list[Row]:
    """What is paid for a half of the open batch that consumers are behind of, and for each segment."""
    found: dict[str, list[float]] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        begun = clock()
        yield
        found.setdefault(name, []).append((clock() - begun) / 1e3)

    for n in range(ROUNDS):
        path = place / f"segment-{n}"
        path.mkdir()
        with timed("an instance made"):
            writer = SegmentWriter(str(path))
        for first in range(0, BLOCKS * BLOCK_ITEMS, BLOCK_ITEMS):
            block = blocks.encode(first, [ITEM] * BLOCK_ITEMS, 1)
            with timed("a block of 254 KiB written"):
                writer.write(first, block, sync=False)
        writer.close()
        with timed("its log opened for reading"):
            log = WalReader.open(str(path))
        assert log is not None
        for first in range(0, BLOCKS * BLOCK_ITEMS, BLOCK_ITEMS):
            with timed("a block read from it"):
                log.block(first)
        log.close()
        with timed(f"for comparison: RocksDB opened for {BLOCKS} blocks"):
            reader = SegmentReader(str(path), None)
        reader.close()
    return [(name, statistics.median(times)) for name, times in found.items()]


def pieces(place: Path) -> list[Row]:
    """What any Python program pays for the steps that a put and a get are made of."""
    descriptor = os.open(place / "lock", os.O_CREAT | os.O_RDWR)
    bytes_there = memoryview(mmap.mmap(-1, 1 << 20))
    known = {
        "lock": threading.Lock(), "time": time.time, "there": bytes_there, "item": ITEM, "words": bytes_there[:4096].cast("Q"),
        "left": deque(range(10**7)), "flock": flock, "fd": descriptor, "EX": LOCK_EX, "UN": LOCK_UN,
        "wake": futex.Word(bytes_there[:4096].cast("I"), 0).wake,
    }  # fmt: skip
    loop = min(repeat("pass", number=COUNT, repeat=ROUNDS))
    steps = {
        "a lock between threads, taken and let go": "with lock: pass",
        "the clock": "time()",
        "100 bytes into a mapping": "there[5000:5100] = item",
        "100 bytes out of one": "bytes(there[5000:5100])",
        "a word of it stored": "words[7] = 9",
        "a state byte stored": "there[99] = 2",
        "taken from a deque": "left.popleft()",
        "a lock between processes (flock), taken and let go": "flock(fd, EX); flock(fd, UN)",
        "a wake, nobody asleep (futex)": "wake(1)",
    }
    best = {name: min(repeat(step, globals=known, number=COUNT, repeat=ROUNDS)) - loop for name, step in steps.items()}
    os.close(descriptor)
    return [(name, seconds / COUNT * 1e6) for name, seconds in best.items()]


def _put_at_a_pace(path: str, results: Connection) -> None:
    stamps: list[int] = []
    wake = futex.FutexWord.wake

    def stamped(self: futex.FutexWord, count: int) -> int:
        stamps.append(clock())
        return wake(self, count)

    futex.FutexWord.wake = stamped  # type: ignore[method-assign]
    puts: list[int] = []
    with segq.Queue(path) as q:
        due = clock()
        for _ in range(WAITED_FOR):
            due += PERIOD
            time.sleep(max(0, due - clock()) / 1e9)
            puts.append(clock())
            q.put(ITEM)
    results.send((puts, stamps))


def _wait_for_each(path: str, results: Connection) -> None:
    stamps: list[int] = []
    wait = futex.FutexWord.wait

    def stamped(self: futex.FutexWord, expected: int, seconds: float) -> None:
        wait(self, expected, seconds)
        stamps.append(clock())

    futex.FutexWord.wait = stamped  # type: ignore[method-assign]
    gets: list[int] = []
    with segq.Queue(path) as q:
        for _ in range(WAITED_FOR):
            q.get()
            gets.append(clock())
    results.send((gets, stamps))


def waiting(place: Path) -> list[Row]:
    """An item to somebody who waits for it in another process, 1,000 of them a second."""
    path = str(place / "waited")
    segq.Queue(path, serializer="raw").close()
    context = multiprocessing.get_context("spawn")
    reports = []
    for work in (_wait_for_each, _put_at_a_pace):
        mine, theirs = context.Pipe()
        context.Process(target=work, args=(path, theirs)).start()
        reports.append(mine)
    (gets, woken), (puts, wakes) = (report.recv() for report in reports)
    parts: list[tuple[int, ...]] = []
    for put, got in list(zip(puts, gets, strict=True))[int(WAITED_FOR * WARM_UP) :]:
        a, b = bisect_left(wakes, put), bisect_right(woken, got) - 1
        if a < len(wakes) and put < wakes[a] < woken[b] < got:  # else the consumer was not asleep
            parts.append((wakes[a] - put, woken[b] - wakes[a], got - woken[b], got - put))
    names = ("put is called → wakes", "wakes → the other process runs", "it runs → get returns", "altogether")
    return [(name, statistics.median(part) / 1e3) for name, part in zip(names, zip(*parts, strict=True), strict=True)]


def main() -> None:
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for title, measure in (
            ("Calls (100 B, one process)", operations),
            ("An item to who waits for it (two processes, 1,000/s)", waiting),
            ("Where consumers are behind", rocksdb),
            ("Steps", pieces),
        ):
            table = Table("", "µs", title=title, title_justify="left")
            for name, microseconds in measure(place):
                table.add_row(name, f"{microseconds:,.2f}")
            console.print(table)


if __name__ == "__main__":
    main()
