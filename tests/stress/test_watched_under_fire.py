"""A queue watched while its processes are shot: no look fails, no total goes back, and in the end all is counted."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest
from accounts import Report, item_id, until

import segq
from segq.watch import Flow, Snapshot, Watcher

pytestmark = pytest.mark.torture
SECONDS = 20.0
SEGMENT = 64  # items: many segments come and go between two looks


def feeds(path: str, number: int) -> None:
    with segq.Queue(path) as q:
        report = Report(os.devnull)
        for n in range(1 << 30):
            report.put(q, *(item_id(f"{number}", n * 20 + i) for i in range(20)), many=True)
            if not n % 50:
                time.sleep(0.01)


def eats(path: str, _number: int) -> None:
    with segq.Queue(path) as q:
        while True:
            for message in q.receive_many(10):
                message.ack()


def shot(path: str, work: Callable[[str, int], None], number: int) -> int:
    """A child at work; its pid."""
    pid = os.fork()
    if not pid:
        try:
            work(path, number)
        finally:
            os._exit(0)
    return pid


def sane(before: Snapshot, now: Snapshot) -> None:
    assert now.state == "open", now
    assert min(now.items, now.waiting, now.claimed) >= 0
    assert now.waiting + now.claimed == now.items
    for name in Flow.__slots__:
        assert getattr(now.totals, name) >= getattr(before.totals, name)
    assert len({process.pid for process in now.processes}) == len(now.processes)


def test_no_look_fails_while_processes_die(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=3000, segment_items=SEGMENT):
        pass
    chance = random.Random(11)
    watcher = Watcher(queue_path)
    before = watcher.look()
    works = [feeds, feeds, eats, eats]
    pids = [shot(queue_path, work, n) for n, work in enumerate(works)]
    told: set[str] = set()
    deaths, end = 0, time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            now = watcher.look()
            sane(before, now)
            told |= {event.kind for event in now.events}
            before = now
            time.sleep(chance.choice((0, 0.002, 0.05)))
            if chance.random() < 0.02:
                n = chance.randrange(len(pids))
                os.kill(pids[n], 9)
                os.waitpid(pids[n], 0)
                deaths += 1
                pids[n] = shot(queue_path, works[n], 100 * deaths + n)
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    with segq.Queue(queue_path) as q:
        until(lambda: not any(owner.pid in pids for owner in q.stats().owners), 10, "all are rescued")
        said, seen = q.stats(), watcher.look()
        assert (seen.items, seen.waiting, seen.claimed, seen.segments) == (
            said.items,
            said.waiting,
            said.claimed,
            said.segments,
        )
        assert seen.rescues == said.rescues >= deaths
        assert deaths > 3
        assert {"died", "rescue"} <= told
        q.purge()
        seen = watcher.look()
        assert seen.items == 0
        assert seen.totals.put >= seen.totals.ack
        assert seen.totals.put - seen.totals.ack <= SEGMENT  # none of it is there any more
