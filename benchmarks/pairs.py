"""`python -m benchmarks.pairs`: what being watched costs. The same processes, watched and not, a few seconds each in turns.

Processor time for each item is compared within a pair, so what else the machine does falls on both alike. The watch is stopped
and continued by signals; which of the two comes first alternates.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import psutil

from benchmarks.crew import CONTEXT, WorkerError

ITEM = b"x" * 100
ROLES = ("producer", "consumer")
PATIENCE = 60.0


def feed(path: str) -> None:
    import segq

    put = segq.Queue(path).put
    while True:
        put(ITEM)


def eat(path: str) -> None:
    import segq

    get = segq.Queue(path).get
    while True:
        get()


def window(counts: Callable[[], list[tuple[int, float]]], seconds: float) -> list[float]:
    """Microseconds of processor time an item, of the producer and of the consumer."""
    before = counts()
    time.sleep(seconds)
    return [(cpu - cpu_before) / (items - items_before) * 1e6
            for (items_before, cpu_before), (items, cpu) in zip(before, counts(), strict=True)]  # fmt: skip


def measure(path: str, pairs: int, seconds: float) -> list[list[float]]:
    """For the producer and the consumer, of each pair: time an item while watched, by that while not."""
    import segq
    from segq.watch import Watcher

    segq.Queue(path, serializer="raw", capacity=1_000_000).close()
    workers = [CONTEXT.Process(target=work, args=(path,), daemon=True) for work in (feed, eat)]
    for worker in workers:
        worker.start()
    command = [sys.executable, "-m", "segq", "watch", path, "--json", "--interval", "1"]
    watch = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    processes = [psutil.Process(worker.pid) for worker in workers]
    looker = Watcher(path)

    def counts() -> list[tuple[int, float]]:
        seen = {each.pid: each.puts + each.gets for each in looker.look().processes}
        return [(seen[each.pid], sum(each.cpu_times()[:2])) for each in processes]

    ratios: list[list[float]] = [[], []]
    try:
        give_up = time.monotonic() + PATIENCE
        while sum(each.puts + each.gets > 0 for each in looker.look().processes) < len(workers):
            if time.monotonic() > give_up:
                raise WorkerError("the processes did not begin to work")
            time.sleep(0.1)
        for pair in range(pairs):
            took: dict[bool, list[float]] = {}
            for watched in (True, False) if pair % 2 else (False, True):
                os.kill(watch.pid, signal.SIGCONT if watched else signal.SIGSTOP)
                took[watched] = window(counts, seconds)
            for role in range(len(ROLES)):
                ratios[role].append(took[True][role] / took[False][role])
    finally:
        os.kill(watch.pid, signal.SIGCONT)
        watch.kill()
        watch.wait()
        for worker in workers:
            worker.kill()
            worker.join()
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description="What being watched costs.")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=2.2, help="of each half of a pair")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segq-pairs-") as directory:
        ratios = measure(os.path.join(directory, "queue"), chosen.pairs, chosen.seconds)
    for role, found in zip(ROLES, ratios, strict=True):
        error = statistics.stdev(found) / len(found) ** 0.5
        print(
            f"{role}: processor time an item, watched by unwatched: median {statistics.median(found):.3f},"
            f" mean {statistics.mean(found):.3f} ± {error:.3f}, {len(found)} pairs"
        )


if __name__ == "__main__":
    main()
