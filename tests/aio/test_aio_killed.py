"""A process whose coroutines put is killed: what a put returned for is there, and nothing that nobody began."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accounts import until
from cli_command import environment
from loops import PATIENCE

import segq

PRODUCER = """
import asyncio, os, sys
from segq import aio

async def put(q, name, report):
    n = 0
    while True:
        items = [f"{name}/{n + i}" for i in range(1 + n % 3)]
        os.write(report, ("begun " + " ".join(items) + "\\n").encode())
        await (q.put(items[0]) if len(items) == 1 else q.put_many(items))
        os.write(report, ("stored " + " ".join(items) + "\\n").encode())
        n += len(items)
        await asyncio.sleep(0)

async def main():
    report = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with aio.Queue(sys.argv[1]) as q:
        await asyncio.gather(*(put(q, f"{sys.argv[3]}.{n}", report) for n in range(20)))

asyncio.run(main())
"""


def ids(report: Path, what: str) -> set[str]:
    lines = report.read_text().split("\n")[:-1]  # one that a kill cut short says nothing
    return {item for line in lines if line.startswith(what) for item in line.split()[1:]}


def killed(queue_path: str, report: Path, durability: str, kills: int) -> None:
    chance = random.Random(durability)
    with segq.Queue(queue_path, durability=durability, segment_items=500) as q:
        found: list[str] = []
        for kill in range(kills):
            size = report.stat().st_size if report.exists() else 0
            command = [sys.executable, "-c", PRODUCER, queue_path, str(report), str(kill)]
            with subprocess.Popen(command, env=environment()) as process:
                until(lambda size=size: report.exists() and report.stat().st_size > size + 4000, PATIENCE, "it puts")
                time.sleep(chance.random() * 0.1)  # at any moment
                process.send_signal(signal.SIGKILL)
            if kill % 2:  # sometimes with a consumer beside it, sometimes what is left of several
                found += drained(q)
        found += drained(q)  # who waits rescues the dead, within a second
    stored, begun = ids(report, "stored"), ids(report, "begun")
    assert stored <= set(found) <= begun
    assert len(found) == len(set(found))
    for name in {item.split("/")[0] for item in found}:
        numbers = [int(item.split("/")[1]) for item in found if item.split("/")[0] == name]
        assert numbers == list(range(len(numbers)))  # in the order put, and none left out


def drained(q: segq.Queue) -> list[str]:
    found: list[str] = []
    while True:
        try:
            found += q.get_many(1000, timeout=1.5)
        except segq.Empty:
            return found


@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_a_killed_process_had_put_is_there(queue_path: str, tmp_path: Path, durability: str) -> None:
    killed(queue_path, tmp_path / "report", durability, 1)


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_many_killed_processes_had_put_is_there(queue_path: str, tmp_path: Path, durability: str) -> None:
    killed(queue_path, tmp_path / "report", durability, 8)
