"""asyncio and futures, in pairs: each against what it is to be compared with, in turns, in one run.

Run it: ``python -m benchmarks.aio [--items 20000] [--repetitions 5]``. It prints Markdown. Each figure is the median of the
repetitions; the ratio is the median of the ratios of the pairs, which the load of a shared machine moves less.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import segq
from segq import aio, futures

ITEM = b"x" * 100


@contextmanager
def directory() -> Iterator[str]:
    place = tempfile.mkdtemp(prefix="segq-benchmark-")
    try:
        yield place + "/queue"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def timed(work: Callable[[], object], items: int) -> float:
    begun = time.perf_counter()
    work()
    return items / (time.perf_counter() - begun)


def sync_put_get(items: int) -> float:
    """All puts, then all gets, one by one."""
    with directory() as path, segq.Queue(path, serializer="raw") as q:

        def work() -> None:
            for _ in range(items):
                q.put(ITEM)
            for _ in range(items):
                q.get()

        return timed(work, items)


def aio_put_get(items: int) -> float:
    async def main(path: str) -> float:
        async with aio.Queue(path, serializer="raw") as q:
            begun = time.perf_counter()
            for _ in range(items):
                await q.put(ITEM)
            for _ in range(items):
                await q.get()
            return items / (time.perf_counter() - begun)

    with directory() as path:
        return asyncio.run(main(path))


def asyncio_put_get(items: int) -> float:
    async def main() -> float:
        q: asyncio.Queue[bytes] = asyncio.Queue()
        begun = time.perf_counter()
        for _ in range(items):
            await q.put(ITEM)
        for _ in range(items):
            await q.get()
        return items / (time.perf_counter() - begun)

    return asyncio.run(main())


def sync_wakes(items: int) -> float:
    """A thread that waits in `get` for each item, which is put when the last one was got: round trips of two queues."""
    with directory() as path, segq.Queue(path, serializer="raw") as there, segq.Queue(path + "2", serializer="raw") as back:

        def answer() -> None:
            for _ in range(items):
                back.put(there.get())

        thread = threading.Thread(target=answer)
        thread.start()

        def work() -> None:
            for _ in range(items):
                there.put(ITEM)
                back.get()

        rate = timed(work, items)
        thread.join()
        return rate


def aio_wakes(items: int) -> float:
    async def main(path: str) -> float:
        async with aio.Queue(path, serializer="raw") as there, aio.Queue(path + "2", serializer="raw") as back:

            async def answer() -> None:
                for _ in range(items):
                    await back.put(await there.get())

            answering = asyncio.create_task(answer())
            begun = time.perf_counter()
            for _ in range(items):
                await there.put(ITEM)
                await back.get()
            rate = items / (time.perf_counter() - begun)
            await answering
            return rate

    with directory() as path:
        return asyncio.run(main(path))


def futures_pipelined(items: int) -> float:
    """Puts without waiting for their futures, then gets; a thousand in flight."""
    with directory() as path, futures.Queue(path, serializer="raw") as q:

        def work() -> None:
            for future in [q.put(ITEM) for _ in range(items)]:
                future.result()
            for future in [q.get() for _ in range(items)]:
                future.result()

        return timed(work, items)


def rocksq_pipelined(package: Any, items: int) -> float:
    """The same with RocksQ's nonblocking API: the real one, or ours."""
    with directory() as path:
        q = package.PersistentQueueWithCapacity(path)

        def work() -> None:
            for response in [q.push([ITEM]) for _ in range(items)]:
                response.get()
            for response in [q.pop() for _ in range(items)]:
                assert response.get().data == [ITEM]

        return timed(work, items)


def rocksq_thousands(package: Any, items: int) -> float:
    """RocksQ's blocking API, a thousand elements at a time."""
    with directory() as path:
        q = package.PersistentQueueWithCapacity(path)

        def work() -> None:
            for _ in range(items // 1000):
                q.push([ITEM] * 1000)
            for _ in range(items // 1000):
                assert len(q.pop(1000)) == 1000

        return timed(work, items // 1000 * 1000)


def rocksq_singles(package: Any, items: int) -> float:
    """RocksQ's blocking API, element by element."""
    with directory() as path:
        q = package.PersistentQueueWithCapacity(path)

        def work() -> None:
            for _ in range(items):
                q.push([ITEM])
            for _ in range(items):
                q.pop()

        return timed(work, items)


Pair = tuple[str, str, Callable[[int], float], str, Callable[[int], float], int]


def pairs() -> list[Pair]:
    """(workload, ours, its function, theirs, its function, share of the items)."""
    from segq.compat.rocksq import blocking, nonblocking

    found: list[Pair] = [
        ("put each, get each", "segq.aio", aio_put_get, "segq.Queue", sync_put_get, 1),
        ("put each, get each", "segq.aio", aio_put_get, "asyncio.Queue (memory)", asyncio_put_get, 1),
        ("round trips, each waited for", "segq.aio", aio_wakes, "segq.Queue, two threads", sync_wakes, 10),
    ]
    try:
        import rocksq.blocking as their_blocking
        import rocksq.nonblocking as theirs
    except ImportError:
        print("RocksQ is not installed (pip install rocksq): without it")
        return found

    def rocksq(function: Callable[[Any, int], float], package: Any) -> Callable[[int], float]:
        return lambda items: function(package, items)

    real = "RocksQ nonblocking"
    return [
        *found,
        ("pipelined single puts and gets", "segq.futures", futures_pipelined, real, rocksq(rocksq_pipelined, theirs), 1),
        (
            "the same, RocksQ's API",
            "segq.compat.rocksq",
            rocksq(rocksq_pipelined, nonblocking),
            real,
            rocksq(rocksq_pipelined, theirs),
            1,
        ),
        (
            "blocking, one by one",
            "segq.compat.rocksq",
            rocksq(rocksq_singles, blocking),
            "RocksQ blocking",
            rocksq(rocksq_singles, their_blocking),
            1,
        ),
        (
            "blocking, by thousands",
            "segq.compat.rocksq",
            rocksq(rocksq_thousands, blocking),
            "RocksQ blocking",
            rocksq(rocksq_thousands, their_blocking),
            1,
        ),
    ]


def main() -> None:
    """Runs all pairs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=20_000, help="per repetition; a tenth of it for round trips")
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args()
    print("| workload, 100-byte items, one process | | /s | compared with | /s | ratio |\n|---|---|---|---|---|---|")
    for workload, ours, our_function, theirs, their_function, share in pairs():
        items = max(1000, chosen.items // share)
        rates = [(our_function(items), their_function(items)) for _ in range(chosen.repetitions)]
        mine, other = (statistics.median(rate[side] for rate in rates) for side in (0, 1))
        ratio = statistics.median(a / b for a, b in rates)
        print(f"| {workload} | {ours} | {mine:,.0f} | {theirs} | {other:,.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
