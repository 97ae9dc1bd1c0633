"""Other processes, other loops, other threads; and what is left when a process with a loop is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from accounts import until
from cli_command import environment
from loops import PATIENCE, in_loop, waiting

import segq
from segq import aio
from segq._core.system import futex
from segq._core.system.futex import MOST_WORDS, Word, wait_any
from segq.aio import watcher

WORKER = """
import asyncio, os, sys
from segq import aio

async def work(q, report):
    async for message in q.messages(timeout=float(sys.argv[3])):
        os.write(report, b"%d\\n" % message.value)
        await asyncio.sleep(0)

async def main():
    report = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with aio.Queue(sys.argv[1]) as q:
        os.write(1, b"here\\n")
        await asyncio.gather(*(work(q, report) for _ in range(10)))

asyncio.run(main())
"""


def worker(path: str, report: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, path, str(report), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())


@in_loop
async def test_coroutines_and_another_process_wake_each_other(queue_path: str, tmp_path: Path) -> None:
    async with aio.Queue(queue_path, capacity=3) as q:
        with worker(queue_path, tmp_path / "report", 1) as process:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "here\n"
            for n in range(200):
                await q.put(n)
            await q.join()
        assert process.returncode == 0
        assert sorted(map(int, (tmp_path / "report").read_text().split())) == list(range(200))


def test_what_a_killed_process_with_a_loop_held_comes_back(queue_path: str, tmp_path: Path) -> None:
    total, report = 2000, tmp_path / "report"
    with segq.Queue(queue_path, segment_items=700) as q:
        q.put_many(range(total))
        for _ in range(2):
            with worker(queue_path, report, PATIENCE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                size = report.stat().st_size if report.exists() else 0
                until(lambda size=size: report.exists() and report.stat().st_size > size + 2000, PATIENCE, "it works")
                process.send_signal(signal.SIGKILL)
        with worker(queue_path, report, 2) as process:
            process.communicate()
        assert process.returncode == 0
        until(lambda: q.stats().items == 0, PATIENCE, "all is acknowledged")
    worked = [int(line) for line in report.read_text().split()]
    assert set(worked) == set(range(total))
    assert len(worked) <= total + 2 * 10  # the ten in hand at each kill


@in_loop
async def test_a_forked_child_uses_the_handles_in_a_loop_of_its_own(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q, aio.Queue(f"{queue_path}2") as back:
        get = asyncio.create_task(q.get())
        await waiting(q._bound.items, 1)
        pid = os.fork()
        if not pid:
            code = 1
            try:

                async def child() -> None:
                    await q.put("from the child")
                    assert await back.get(timeout=PATIENCE) == "for the child"
                    with pytest.raises(segq.Empty):
                        await back.get(timeout=0.01)
                    await q.close()
                    await back.close()

                asyncio.events._set_running_loop(None)
                asyncio.run(child())
                code = 0
            finally:
                os._exit(code)
        assert await get == "from the child"
        await back.put("for the child")
        assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 0


def test_loops_in_several_threads_share_a_queue(queue_path: str) -> None:
    found: list[int] = []
    over = threading.Lock()

    async def consume(count: int) -> None:
        async with aio.Queue(queue_path) as q, asyncio.timeout(PATIENCE):
            got = await asyncio.gather(*(q.get() for _ in range(count)))
        with over:
            found.extend(got)

    threads = [threading.Thread(target=asyncio.run, args=(consume(100),)) for _ in range(4)]
    with segq.Queue(queue_path) as q:
        for thread in threads:
            thread.start()
        for n in range(400):
            q.put(n)
        for thread in threads:
            thread.join(PATIENCE)
    assert sorted(found) == list(range(400))


def test_a_handle_belongs_to_one_loop_while_that_is_open(queue_path: str) -> None:
    q = aio.Queue(queue_path)
    first = asyncio.new_event_loop()
    first.run_until_complete(q.put(1))
    with pytest.raises(RuntimeError, match="bound to a different event loop"):
        asyncio.run(q.get())
    first.close()
    assert asyncio.run(q.get()) == 1
    asyncio.run(q.close())


def test_a_loop_that_ended_while_somebody_waited_leaves_the_wakes_to_others(queue_path: str) -> None:
    q = aio.Queue(queue_path)

    async def give_up() -> None:
        waiter = asyncio.create_task(q.get())
        await waiting(q._bound.items, 1) if q._bound else await asyncio.sleep(0.05)
        assert not waiter.done()

    asyncio.run(give_up())
    with segq.Queue(queue_path) as other:
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(other.get()))
        thread.start()
        with segq.Queue(queue_path) as third:
            third.put(1)
        thread.join(PATIENCE)
        assert got == [1]
    asyncio.run(q.close())


@in_loop
async def test_more_bells_than_one_sleep_of_the_kernel_takes(queue_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "MOST_WORDS", 4)
    monkeypatch.setattr(watcher, "_watchers", [])
    queues = [aio.Queue(f"{queue_path}{n}") for n in range(8)]
    gets = [asyncio.create_task(q.get()) for q in queues]
    for q in queues:
        while q._bound is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await waiting(q._bound.items, 1)
    assert len(watcher._watchers) == 3
    order = list(range(8))
    random.Random(1).shuffle(order)
    for n in order:
        await queues[n].put(n)
        assert await gets[n] == n
    for q in queues:
        await q.close()


@pytest.mark.parametrize("kernel", [True, False])
def test_a_sleep_on_several_words_ends_when_one_of_them_changes(monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    if not kernel:
        monkeypatch.setattr(futex, "_can_wait_any", False)
    halves = memoryview(bytearray(4 * MOST_WORDS)).cast("I")
    words = [Word(halves, n) for n in range(MOST_WORDS)]
    wait_any(words, [0] * MOST_WORDS, 0.01)  # in time
    wait_any(words, [0] * (MOST_WORDS - 1) + [7], PATIENCE)  # at once
    over = threading.Event()

    def sleep() -> None:
        wait_any(words, [0] * MOST_WORDS, 60)
        over.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    halves[77] = 1
    until(lambda: words[77].wake(1) is not None and over.is_set(), PATIENCE, "the sleeper wakes")
    thread.join()


@in_loop
async def test_it_works_where_the_kernel_cannot_sleep_on_several_words(
    queue_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(futex, "_can_wait_any", False)
    monkeypatch.setattr(watcher, "_watchers", [])
    async with aio.Queue(queue_path) as q:
        gets = [asyncio.create_task(q.get()) for _ in range(10)]
        await waiting(q._bound.items, 10)
        await q.put_many(range(10))
        assert await asyncio.gather(*gets) == list(range(10))


UVLOOP = """
import asyncio, sys, uvloop
run = asyncio.run
if sys.version_info >= (3, 12):
    asyncio.run = lambda main: run(main, loop_factory=uvloop.new_event_loop)
else:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
asyncio.new_event_loop = uvloop.new_event_loop
"""


@pytest.mark.external
def test_uvloop(queue_path: str, tmp_path: Path) -> None:
    """All of the above but the tests of processes, in uvloop's loops."""
    pytest.importorskip("uvloop", reason="uvloop is not installed: pip install uvloop")
    here = Path(__file__).parent
    plugin = tmp_path / "with_uvloop.py"
    plugin.write_text(UVLOOP)
    tests = [str(path) for path in sorted(here.glob("test_*.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "with_uvloop", "-p", "no:cacheprovider", *tests]
    command += ["-k", "not forked"]  # libuv does not allow it while a loop runs
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tmp_path), env.get("PYTHONPATH")]))
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, cwd=here.parent.parent)
    assert ended.returncode == 0, ended.stdout[-3000:]
