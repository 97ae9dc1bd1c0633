"""A forked child ends in any way, or lives on, and harms nothing of its parent."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from accounts import until

import segq
from segq._core.directory import owners


def forked(work: Callable[[], object]) -> int:
    """A child that does `work` and then ends as a Python program does when it falls off its end; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except Exception:
        code = 71
    finally:
        os._exit(code)


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def busy(queue_path: str) -> Iterator[segq.Queue]:
    """A handle in the middle of everything: an open batch, a RocksDB writer and reader, claimed items."""
    with segq.Queue(queue_path, prefetch=5) as q:
        for n in range(20):
            q.put(n)
        q.put_many(range(20, 6000))
        for n in range(6000, 6020):
            q.put(n)
        assert [q.get() for _ in range(30)] == list(range(30))
        yield q
        q.put_many(range(6020, 12_000))
        q.put(12_000)
        found: list[int] = []
        while len(found) < 12_001 - 30:
            found += q.get_many(1000, timeout=20)
        assert found == list(range(30, 12_001))
        assert q.empty()
        assert q.stats().quarantined == 0


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda: os._exit(3), 3),
        (lambda: sys.exit(4), 4),
        (lambda: 1 // 0, 71),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), -signal.SIGTERM),
        (gc.collect, 0),
    ],
    ids=["os._exit", "sys.exit", "exception", "SIGKILL", "SIGTERM", "garbage collection"],
)
@pytest.mark.parametrize("use", ["unused", "looked at", "used", "closed", "dropped"])
def test_a_child_that_ends_harms_nothing_of_its_parent(
    busy: segq.Queue, use: str, end: Callable[[], object], code: int
) -> None:
    def work() -> None:
        nonlocal busy
        match use:
            case "looked at":
                assert busy.qsize() == 5990
            case "used":
                m = busy.receive(timeout=20)
                m.nack()
            case "closed":
                busy.close()
            case "dropped":
                del busy
                gc.collect()
        end()

    assert status(forked(work)) == code
    if use in ("looked at", "used"):  # it left without closing
        assert segq.check(busy.path, fix=True).ok


def test_a_child_with_its_atexit_handlers_run_harms_nothing(busy: segq.Queue) -> None:
    pid = os.fork()
    if not pid:
        atexit._run_exitfuncs()
        os._exit(0)
    assert status(pid) == 0


def test_many_children_one_after_the_other_leave_nothing_behind(busy: segq.Queue) -> None:
    def work() -> None:
        busy.peek(1)
        busy.close()

    for _ in range(10):
        assert status(forked(work)) == 0
    assert len(busy.stats().owners) == 1


def test_a_child_that_outlives_its_parent_does_not_keep_the_parents_items(queue_path: str) -> None:
    hold, let_go = os.pipe()

    def parent() -> None:
        q = segq.Queue(queue_path, prefetch=10)
        q.put_many(range(10))
        q.put(10)
        assert q.receive().value == 0
        child = os.fork()
        if not child:
            os.close(let_go)
            os.read(hold, 1)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    assert status(forked(parent)) == -signal.SIGKILL
    assert not owners.is_alive(queue_path, 1)
    with segq.Queue(queue_path) as q:
        assert [q.get(timeout=20) for _ in range(11)] == list(range(11))
    os.close(let_go)


def test_a_child_of_a_child_has_a_handle_of_its_own(busy: segq.Queue) -> None:
    def grandchild() -> None:
        assert len(busy.stats().owners) == 3
        busy.close()

    def child() -> None:
        busy.peek(1)
        assert len(busy.stats().owners) == 2
        assert status(forked(grandchild)) == 0
        assert len(busy.stats().owners) == 2
        busy.close()

    assert status(forked(child)) == 0
    assert len(busy.stats().owners) == 1


@pytest.mark.parametrize("lease", [None, 60.0])
def test_a_message_belongs_to_the_process_that_received_it(queue_path: str, lease: float | None) -> None:
    with segq.Queue(queue_path, lease=lease) as q:
        q.put(1)
        m = q.receive()

        def work() -> None:
            for settle in (m.ack, m.nack, lambda: m.extend(5)):
                try:
                    settle()
                except segq.ReceiptError:
                    continue
                sys.exit(5)

        assert status(forked(work)) == 0
        m.ack()
        assert q.stats().items == 0


def test_children_forked_while_threads_put_and_get_harm_nothing(queue_path: str) -> None:
    total = 6000
    with segq.Queue(queue_path, segment_items=500) as q:
        found: list[int] = []

        def put(first: int) -> None:
            for n in range(first, total, 2):
                q.put(n)

        def get() -> None:
            while (item := q.get(timeout=60)) is not None:
                found.append(item)

        threads = [threading.Thread(target=put, args=(first,)) for first in (0, 1)]
        getters = [threading.Thread(target=get) for _ in range(2)]
        for thread in threads + getters:
            thread.start()

        def child() -> None:
            q.put("from a child")
            q.close()

        children = 0
        while any(thread.is_alive() for thread in threads) or children < 5:
            assert status(forked(child)) == 0
            children += 1
        for thread in threads:
            thread.join()
        q.put_many([None, None])
        for thread in getters:
            thread.join(60)
        numbers = [item for item in found if isinstance(item, int)]
        assert sorted(numbers) == list(range(total))
        assert len(found) - total + q.qsize() == children
        q.purge()


def test_a_thread_that_waits_in_the_parent_is_not_woken_by_what_a_child_closes(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(q.get(timeout=60)))
        thread.start()
        until(lambda: q._parts.index.words[16], 20, "the thread is about to sleep")

        def child() -> None:
            assert q.empty()
            q.close()

        assert status(forked(child)) == 0
        assert thread.is_alive()
        q.put("x")
        thread.join(20)
        assert found == ["x"]
