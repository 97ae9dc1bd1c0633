"""What `queue.Queue` does, `segq.Queue` does: the same tests for both where they overlap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from accounts import until

import segq

Make = Callable[..., Any]


@pytest.fixture(params=["queue.Queue", "segq.Queue"])
def make(request: pytest.FixtureRequest, queue_path: str) -> Iterator[Make]:
    """Makes a queue of the capacity given."""
    made: list[segq.Queue] = []

    def ours(capacity: int = 0) -> segq.Queue:
        made.append(segq.Queue(queue_path, capacity=capacity or None))
        return made[-1]

    yield queue.Queue if request.param == "queue.Queue" else ours
    for q in made:
        q.close()


def test_items_come_out_in_the_order_put(make: Make) -> None:
    q = make()
    for n in range(100):
        q.put(n)
    assert [q.get() for _ in range(100)] == list(range(100))


def test_sizes(make: Make) -> None:
    q = make(2)
    assert (q.qsize(), q.empty(), q.full()) == (0, True, False)
    q.put(1)
    assert (q.qsize(), q.empty(), q.full()) == (1, False, False)
    q.put(2)
    assert (q.qsize(), q.empty(), q.full()) == (2, False, True)
    q.get()
    assert (q.qsize(), q.empty(), q.full()) == (1, False, False)


def test_an_empty_queue_raises_empty(make: Make) -> None:
    q = make()
    for get in (
        q.get_nowait,
        lambda: q.get(False),
        lambda: q.get(block=False),
        lambda: q.get(timeout=0.01),
        lambda: q.get(True, 0.01),
    ):
        with pytest.raises(queue.Empty):
            get()
    with pytest.raises(queue.Empty):
        q.get(timeout=0)


def test_a_full_queue_raises_full_and_stores_nothing(make: Make) -> None:
    q = make(1)
    q.put("a")
    for put in (
        lambda: q.put_nowait("b"),
        lambda: q.put("b", False),
        lambda: q.put("b", block=False),
        lambda: q.put("b", timeout=0.01),
        lambda: q.put("b", True, 0.01),
        lambda: q.put("b", timeout=0),
    ):
        with pytest.raises(queue.Full):
            put()
    assert q.get() == "a"
    with pytest.raises(queue.Empty):
        q.get_nowait()


def test_a_negative_timeout_is_a_value_error(make: Make) -> None:
    q = make(1)
    with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
        q.get(timeout=-1)
    with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
        q.put(1, timeout=-1)
    assert q.empty()


def test_a_blocked_put_goes_on_when_room_appears(make: Make) -> None:
    q = make(1)
    q.put(1)
    stored = threading.Event()

    def put() -> None:
        q.put(2, timeout=30)
        stored.set()

    thread = threading.Thread(target=put)
    thread.start()
    assert not stored.wait(0.1)
    assert q.get() == 1
    assert stored.wait(30)
    thread.join()
    assert q.get() == 2


def test_a_blocked_get_goes_on_when_an_item_comes(make: Make) -> None:
    q = make()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(q.get(timeout=30)))
    thread.start()
    q.put("x")
    thread.join(30)
    assert found == ["x"]


def test_task_done_more_often_than_items_were_got_is_a_value_error(make: Make) -> None:
    q = make()
    with pytest.raises(ValueError, match="called too many times"):
        q.task_done()
    q.put(1)
    q.get()
    q.task_done()
    with pytest.raises(ValueError, match="called too many times"):
        q.task_done()


def test_join_waits_for_task_done(make: Make) -> None:
    q = make()
    q.join()
    q.put_nowait(1)
    q.put_nowait(2)
    joined = threading.Event()

    def join() -> None:
        q.join()
        joined.set()

    thread = threading.Thread(target=join)
    thread.start()
    q.get()
    q.task_done()
    q.get()
    assert not joined.wait(0.1)
    q.task_done()
    assert joined.wait(30)
    thread.join()


def test_workers_that_share_the_queue_finish_all_tasks_once(make: Make) -> None:
    q, done = make(10), []

    def work() -> None:
        while (task := q.get()) is not None:
            done.append(task)
            q.task_done()
        q.task_done()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for n in range(300):
        q.put(n)
    for _ in workers:
        q.put(None)
    q.join()
    for worker in workers:
        worker.join(30)
    assert sorted(done) == list(range(300))


def test_none_and_falsy_items_are_items(make: Make) -> None:
    q = make()
    items = [None, 0, False, "", []]
    for item in items:
        q.put(item)
    assert [q.get(timeout=1) for _ in items] == items


@pytest.mark.skipif(not hasattr(queue, "ShutDown"), reason="queue.Queue has shutdown since Python 3.13")
def test_shutdown(make: Make) -> None:
    q = make()
    q.put(1)
    q.shutdown()
    with pytest.raises(queue.ShutDown):
        q.put(2)
    assert q.get() == 1
    with pytest.raises(queue.ShutDown):
        q.get()
    with pytest.raises(queue.ShutDown):
        q.get_nowait()


@pytest.mark.skipif(not hasattr(queue, "ShutDown"), reason="queue.Queue has shutdown since Python 3.13")
def test_an_immediate_shutdown(make: Make) -> None:
    q = make()
    for n in range(5):
        q.put(n)
    q.get()
    q.task_done()
    q.shutdown(immediate=True)
    with pytest.raises(queue.ShutDown):
        q.get()
    until(lambda: q.qsize() == 0, 10, "all are dropped")
    q.join()
