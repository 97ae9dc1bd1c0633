"""What it costs a queue to be watched: the same transfer, with `segq watch` looking on from a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from benchmarks.crew import WorkerError
from benchmarks.workloads.contract import Arena, Entrant, Repetition
from benchmarks.workloads.transfer import Transfer


@contextmanager
def watched(queue: Path) -> Iterator[psutil.Process]:
    """`segq watch --json` looks at the queue once a second, and has begun to; its process."""
    command = [sys.executable, "-m", "segq", "watch", str(queue), "--json", "--interval", "1"]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = ""
    try:
        assert watch.stdout is not None
        if not watch.stdout.readline():
            raise WorkerError("segq watch ended at once")
        yield psutil.Process(watch.pid)
    finally:
        watch.terminate()
        seen, _ = watch.communicate()
    if seen.count("\n") > 2 and not any(json.loads(line)["state"] == "open" for line in seen.splitlines()):
        raise WorkerError("segq watch did not see the queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched(Transfer):
    """A workload of this kind. An entrant of mode `watched` is looked at."""

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        plain = replace(entrant, mode="single")
        if entrant.mode != "watched":
            return Transfer.run(self, plain, arena)
        with watched(arena.directory / "queue") as process:
            before, began = sum(process.cpu_times()[:2]), time.monotonic()
            repetition = Transfer.run(self, plain, arena)
            share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        return replace(repetition, facts={"watch_cpu_percent": round(share * 100, 2)})
