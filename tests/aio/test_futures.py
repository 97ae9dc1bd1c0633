"""`segq.futures`: the non-blocking API for ordinary code."""

from __future__ import annotations

import asyncio
import concurrent.futures
import doctest
import os
import random
import threading
import time
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from accounts import until
from loops import PATIENCE

import segq
from segq import futures


def all_of(many: list[Future[Any]]) -> list[Any]:
    return [future.result(PATIENCE) for future in many]


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(futures)
    assert results.attempted
    assert not results.failed


def test_what_can_be_done_at_once_is_done_when_the_future_is_returned(queue_path: str) -> None:
    with futures.Queue(queue_path) as q:
        all_of([q.put(0), q.get()])
        assert all(q.put(n).done() for n in range(100))
        gets = [q.get() for _ in range(50)]
        assert all(get.done() for get in gets[10:])
        assert all_of(gets) == list(range(50))
        assert q.get_many(30).result(PATIENCE) == list(range(50, 80))
        with q.receive().result(PATIENCE) as message:
            assert message.value == 80
        messages = q.receive_many(30).result(PATIENCE)
        assert [message.value for message in messages] == list(range(81, 100))
        for message in messages:
            message.ack()
        for _ in range(81):
            q.task_done()
        assert q.join().result(PATIENCE) is None
        assert q.stats().result(PATIENCE).items == q.qsize() == q.in_flight == 0


def test_gets_wait_without_a_thread_each_and_are_served_in_turn(queue_path: str) -> None:
    with futures.Queue(queue_path, max_in_flight=500) as q, segq.Queue(queue_path) as other:
        threads = threading.active_count()
        gets = [q.get() for _ in range(500)]
        until(lambda: len(q._handle._bound.items.waiting if q._handle._bound else ()) == 500, PATIENCE, "all wait")
        assert threading.active_count() <= threads + 5  # the loop's, the watcher, the worker that looked first
        other.put_many(range(500))
        assert all_of(gets) == list(range(500))


def test_puts_are_stored_in_the_order_they_were_begun(queue_path: str) -> None:
    """Also where each waits for room, and some take more of it than others."""
    with futures.Queue(queue_path, capacity=10) as q, segq.Queue(queue_path) as other:
        puts, n = [], 0
        chance = random.Random(3)
        while n < 300:
            count = chance.randint(1, 6)
            puts.append(q.put(n) if count == 1 else q.put_many(range(n, n + count)))
            n += count
        found: list[int] = []
        while len(found) < n:
            found += other.get_many(4, timeout=PATIENCE)
        all_of(puts)
        assert found == list(range(n))


def test_an_item_is_stored_as_it_is_when_it_is_put(queue_path: str) -> None:
    with futures.Queue(queue_path, capacity=1) as q:
        q.put([0])
        item = [1]
        put = q.put(item)
        item.append(2)
        assert all_of([q.get(), put, q.get()]) == [[0], None, [1]]


def test_errors_come_out_of_the_future(queue_path: str) -> None:
    with futures.Queue(queue_path, capacity=2) as q:
        assert isinstance(q.get(block=False).exception(PATIENCE), segq.Empty)
        assert isinstance(q.get(timeout=0.01).exception(PATIENCE), segq.Empty)
        assert isinstance(q.get_many(5, timeout=0.01).exception(PATIENCE), segq.Empty)
        all_of([q.put(1), q.put(2)])
        assert isinstance(q.put(3, block=False).exception(PATIENCE), segq.Full)
        assert isinstance(q.put(3, timeout=0.01).exception(PATIENCE), segq.Full)
        assert isinstance(q.put_many([1, 2, 3]).exception(PATIENCE), segq.ItemTooLarge)
        assert isinstance(q.join(timeout=0.01).exception(PATIENCE), TimeoutError)
        for refused in (lambda: q.put(object()), lambda: q.put(1, ttl=-1), lambda: q.get(timeout="1"), lambda: q.get_many(0)):
            with pytest.raises(segq.QueueError):
                refused()
        assert all_of([q.get(), q.get()]) == [1, 2]
        waiting = q.get()
        q.shutdown()
        assert isinstance(waiting.exception(PATIENCE), segq.ShutDown)
        with pytest.raises(segq.SettingsConflict):
            futures.Queue(queue_path, capacity=3)
        with pytest.raises(segq.SettingsError):
            futures.Queue(queue_path, max_in_flight=0)


def test_what_is_cancelled_while_it_waits_has_taken_and_stored_nothing(queue_path: str) -> None:
    with futures.Queue(queue_path, capacity=1) as q:
        for get in (q.get, q.receive, lambda: q.get_many(5), lambda: q.receive_many(5)):
            waiting = get()
            assert waiting.cancel()
        assert q.put(1).result(PATIENCE) is None
        puts = [q.put(2), q.put(3), q.put(4)]
        assert puts[1].cancel()
        assert puts[0].cancel()
        with pytest.raises(CancelledError):
            puts[0].result(PATIENCE)
        assert all_of([q.get(), puts[2], q.get()]) == [1, None, 4]
        until(lambda: q.in_flight == 0, PATIENCE, "nothing is under way")


def test_nothing_is_lost_or_doubled_when_gets_are_cancelled_at_any_moment(queue_path: str) -> None:
    chance, total = random.Random(7), 1000
    found: list[int] = []
    with futures.Queue(queue_path, segment_items=300) as q, segq.Queue(queue_path) as other:
        putter = threading.Thread(target=lambda: [other.put(n) for n in range(total)])
        putter.start()
        while len(found) < total:
            gets = [chance.choice([q.get, q.receive, lambda: q.get_many(5)])() for _ in range(20)]
            time.sleep(chance.choice([0, 0, 0.0005]))
            for get in gets:
                if not get.cancel():
                    got = get.result(PATIENCE)
                    if isinstance(got, segq.Message):
                        got.ack()
                        got = got.value
                    found += got if isinstance(got, list) else [got]
        putter.join()
        assert sorted(found) == list(range(total))
        assert q.qsize() == 0


def test_who_begins_more_than_may_be_in_flight_waits(queue_path: str) -> None:
    with futures.Queue(queue_path, max_in_flight=3) as q, segq.Queue(queue_path) as other:
        gets = [q.get() for _ in range(3)]
        assert q.in_flight == 3
        more: list[Future[Any]] = []
        thread = threading.Thread(target=lambda: more.append(q.get()))
        thread.start()
        time.sleep(0.05)
        assert not more
        other.put_many(["a", "cd", "x", "y"])
        thread.join(PATIENCE)
        assert all_of(gets + more) == ["a", "cd", "x", "y"]


def test_puts_that_wait_for_the_disk_go_together(queue_path: str) -> None:
    with futures.Queue(queue_path, durability="power") as q, segq.Queue(queue_path) as other:
        producer = q._sync._producer
        store, calls = producer.store, []

        def counted(data: list[bytes], *arguments: Any, **options: Any) -> Any:
            calls.append(len(data))
            return store(data, *arguments, **options)

        producer.store = counted
        concurrent.futures.wait([q.put(n) for n in range(500)], PATIENCE)
        assert len(calls) < 250
        assert other.get_many(1000) == list(range(500))


def test_closing_finishes_puts_and_cancels_gets(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=1) as other:
        with futures.Queue(queue_path) as q:
            assert q.put(0).result(PATIENCE) is None
            puts = [q.put(n) for n in range(1, 4)]
            getter = threading.Thread(target=lambda: [other.get() for _ in range(3)])
            getter.start()
        assert all_of(puts) == [None] * 3
        getter.join(PATIENCE)
        assert other.get() == 3
        other.put("full")
        q = futures.Queue(queue_path)
        put = q.put("cancelled")
        q.close(wait=False)
        q.close()
        assert put.cancelled()
        q = futures.Queue(queue_path)
        assert q.get().result(PATIENCE) == "full"
        get = q.get()
        q.close()
        assert get.cancelled()
        for refused in (q.get, lambda: q.put(1), lambda: q.put_many([1]), lambda: q.get_many(1), q.qsize, q.join, q.task_done):
            with pytest.raises(segq.ClosedError):
                refused()


def test_topics(queue_path: str) -> None:
    with futures.Topic(queue_path, ttl=60) as t, futures.Subscription(queue_path, "mail") as mail:
        waiting = mail.get()
        t.put("a")
        t.put_many(["b", "c"])
        assert all_of([waiting, mail.get_many(5)]) == ["a", ["b", "c"]]
        assert t.stats().result(PATIENCE).kind == "topic"
        assert mail.stats().result(PATIENCE).acknowledged == 3


def test_a_forked_child_has_a_loop_of_its_own(queue_path: str) -> None:
    with futures.Queue(queue_path) as q, futures.Queue(f"{queue_path}2") as back:
        waiting = q.get()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                assert back.in_flight == 0
                assert q.put("from the child").result(PATIENCE) is None
                assert back.get().result(PATIENCE) == "for the child"
                q.close()
                back.close()
                code = 0
            finally:
                os._exit(code)
        assert waiting.result(PATIENCE) == "from the child"
        back.put("for the child")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_futures_that_are_done_at_once_are_futures(queue_path: str) -> None:
    with futures.Queue(queue_path) as q:
        all_of([q.put(0), q.get()])
        puts = {q.put(n): n for n in range(20)}
        assert len(puts) == 20
        assert sorted(puts[put] for put in concurrent.futures.as_completed(puts, PATIENCE)) == list(range(20))
        assert len(concurrent.futures.wait(puts, PATIENCE).done) == 20
        get = q.get()
        called: list[Any] = []
        get.add_done_callback(lambda done: called.append(done.result()))
        assert (get.done(), get.running(), get.cancelled(), get.cancel(), called) == (True, False, False, False, [0])
        assert "finished" in repr(get)
        with pytest.raises(concurrent.futures.InvalidStateError):
            get.set_result(1)
        assert asyncio.run(wrapped(q.get())) == 1
        failed = all_of([q.get_many(50)]) and q.get(block=False)
        assert isinstance(failed.exception(), segq.Empty)
        with pytest.raises(segq.Empty):
            failed.result()


async def wrapped(future: Future[Any]) -> Any:
    return await asyncio.wrap_future(future)
