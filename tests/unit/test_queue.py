"""`Queue`: every method, used alone and by threads, and what each refuses."""

from __future__ import annotations

import inspect
import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from accounts import until
from actors import Child, states

import segq


@pytest.fixture
def q(queue_path: str) -> Iterator[segq.Queue]:
    with segq.Queue(queue_path) as queue:
        yield queue


# --- messages ---


def test_a_message_says_what_it_is(q: segq.Queue) -> None:
    before = time.time() - 0.002
    q.put("a")
    q.put_many(["b", "c"])
    after = time.time() + 0.002
    messages = q.receive_many(5)
    assert [m.value for m in messages] == ["a", "b", "c"]
    assert [m.deliveries for m in messages] == [1, 1, 1]
    assert len({m.id for m in messages}) == 3
    assert all(before <= m.enqueued_at <= after for m in messages)
    for m in messages:
        m.ack()
    assert q.qsize() == 0


def test_the_time_an_item_was_put_stays_with_it_through_batch_block_and_redelivery(
    q: segq.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: clock[0])
        patched.setattr(time, "time_ns", lambda: int(clock[0] * 1e9))
        for n in range(3000):  # more runs than a half of the batch has place for
            clock[0] = 1000.0 + n / 500
            q.put(n)
        clock[0] = 900.0  # the clock goes back
        q.put_many([3000, 3001])
    messages = q.receive_many(5000)
    assert [round(m.enqueued_at, 3) for m in messages] == [1000.0 + n / 500 for n in range(3000)] + [900.0] * 2
    messages[1500].nack()
    assert round(q.receive().enqueued_at, 3) == 1003.0


def test_an_id_stays_the_same_each_time_the_item_is_delivered(q: segq.Queue) -> None:
    q.put("a")
    first = q.receive()
    first.nack()
    second = q.receive()
    assert (second.id, second.value, second.deliveries) == (first.id, "a", 2)
    second.ack()


def test_a_process_that_may_have_no_more_threads_puts_and_gets_all_the_same(
    queue_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the handle's threads would do is done when one can be started again."""

    def refusing(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with segq.Queue(queue_path, capacity=1000, prefetch=10) as q, segq.Queue(queue_path) as other:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refusing)
            q.put_many(range(50))
            q.put("with a time to live", ttl=3600)
            assert q.get() == 0
            assert other.get_many(9) == list(range(1, 10))  # no item is kept ahead
            other.put_many(["filling"] * 959, block=False)  # and no room
            assert q.qsize() == 1000
        assert q.get() == 10
        q.put("another", ttl=3600)
        assert {"segq-keeper", "segq-tidier"} <= {thread.name for thread in threading.enumerate()}


def test_settling_twice_or_too_late_raises_a_receipt_error(q: segq.Queue) -> None:
    q.put_many(["a", "b"])
    a, b = q.receive_many(2)
    a.ack()
    for again in (a.ack, a.nack, lambda: a.extend(5)):
        with pytest.raises(segq.ReceiptError, match="settled before"):
            again()
    b.nack()
    with pytest.raises(segq.ReceiptError):
        b.ack()
    assert q.get() == "b"


def test_a_message_as_a_context_is_acknowledged_or_given_back(q: segq.Queue) -> None:
    q.put("a")
    with pytest.raises(RuntimeError, match="mine"), q.receive() as m:
        raise RuntimeError("mine")
    with q.receive() as m:
        assert (m.value, m.deliveries) == ("a", 2)
    assert q.qsize() == 0
    q.put("b")
    with q.receive() as m:
        m.ack()
    q.put("c")
    with q.receive() as m:
        m.nack()
    assert q.get() == "c"


def test_a_message_whose_handle_was_closed_is_void_and_its_item_waits_again(queue_path: str) -> None:
    q = segq.Queue(queue_path)
    q.put("a")
    m = q.receive()
    q.close()
    for late in (m.ack, m.nack, lambda: m.extend(1)):
        with pytest.raises(segq.ReceiptError):
            late()
    with segq.Queue(queue_path) as again:
        assert again.receive().deliveries == 2


def test_a_lease_that_runs_out_hands_the_item_to_somebody_else_and_refuses_the_late_ack(queue_path: str) -> None:
    with segq.Queue(queue_path, lease=0.15) as one, segq.Queue(queue_path) as other:
        one.put("a")
        late = one.receive()
        m = other.receive(timeout=20)
        assert (m.value, m.deliveries, m.id) == ("a", 2, late.id)
        with pytest.raises(segq.ReceiptError, match="lease"):
            late.ack()
        m.ack()
        assert other.stats().redelivered == 1


def test_an_extended_lease_keeps_the_item(queue_path: str) -> None:
    with segq.Queue(queue_path, lease=0.3) as one, segq.Queue(queue_path) as other:
        one.put("a")
        m = one.receive()
        m.extend(60)
        with pytest.raises(segq.Empty):
            other.receive(timeout=0.6)
        with pytest.raises(segq.SettingsError, match="seconds"):
            m.extend(0)
        m.ack()


def test_an_item_got_under_a_lease_does_not_come_back(queue_path: str) -> None:
    with segq.Queue(queue_path, lease=0.1, prefetch=10) as q:
        q.put_many(range(10))
        got = [q.get() for _ in range(10)]
        with pytest.raises(segq.Empty):
            q.get(timeout=0.4)
        assert got == list(range(10))


def test_prefetched_items_whose_lease_ran_out_in_our_hands_are_delivered_once_in_all(queue_path: str) -> None:
    with segq.Queue(queue_path, lease=0.1, prefetch=10) as one, segq.Queue(queue_path) as other:
        one.put_many(range(10))
        got = [one.get()]
        one._parts.keeper.stop()  # as in a process that computes without letting go of the GIL
        while len(got) < 4:
            got.append(other.get(timeout=20))
        while True:
            try:
                got.append(one.get(timeout=0.3))
            except segq.Empty:
                break
        assert sorted(got) == list(range(10))


# --- getting and putting ---


def test_put_many_takes_any_iterable_and_nothing_of_one_that_fails(q: segq.Queue) -> None:
    q.put_many(n for n in range(3))
    q.put_many([])
    q.put_many({"k": 1})

    def failing() -> Iterator[int]:
        yield 1
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        q.put_many(failing())
    with pytest.raises(segq.SerializationError, match="object"):
        q.put_many([1, object()])
    assert q.get_many(100) == [0, 1, 2, "k"]


@pytest.mark.parametrize("wrong", ["text", b"bytes", bytearray(b"x"), 5, None], ids=repr)
def test_put_many_of_what_is_one_item_is_a_type_error(q: segq.Queue, wrong: Any) -> None:
    with pytest.raises(TypeError):
        q.put_many(wrong)
    assert q.empty()


@pytest.mark.parametrize("size", [0, 1, 255, 256 << 10, (256 << 10) + 1, 5 << 20])
def test_an_item_of_any_size_comes_out_as_it_went_in(queue_path: str, size: int) -> None:
    items = [os.urandom(size) for _ in range(3)]
    with segq.Queue(queue_path, serializer="raw") as q:
        q.put(items[0])
        q.put(b"small")
        q.put_many(items[1:])
        assert [q.get() for _ in range(4)] == [items[0], b"small", *items[1:]]


@pytest.mark.parametrize("sizes", [(1000, 1000), (4080, 1), (4081, 4081), (1, 4080, 1, 9000, 1), (300_000,), (65_536, 1)])
def test_batches_of_all_sizes_one_after_the_other_come_out_whole_and_in_order(queue_path: str, sizes: tuple[int, ...]) -> None:
    number, batches = 0, []
    for size in sizes:
        batches.append(list(range(number, number + size)))
        number += size
    with segq.Queue(queue_path) as q:
        for batch in batches:
            q.put(batch[0])
            q.put_many(batch)
            q.put(batch[-1])
        expected = [n for batch in batches for n in (batch[0], *batch, batch[-1])]
        found: list[int] = []
        while len(found) < len(expected):
            found += q.get_many(10_000, timeout=5)
    assert found == expected


def test_what_is_put_is_seen_by_another_process_at_once_and_survives_the_kill_of_the_putter(queue_path: str) -> None:
    code = "q.put('one'); q.put_many(['two', 'three']); say('put'); wait()\n"
    with segq.Queue(queue_path) as q, Child(code, queue_path) as child:
        assert child.hear() == "put"
        assert q.get(timeout=20) == "one"
        child.kill()
        assert q.get_many(5, timeout=20) == ["two", "three"]
        assert segq.check(queue_path, fix=True).ok


def test_a_sleeping_getter_is_woken_by_a_put(q: segq.Queue) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(q.get(timeout=30)))
    thread.start()
    until(lambda: q._parts.index.words[16], 20, "the getter is about to sleep")
    q.put("x")
    thread.join(30)
    assert found == ["x"]


def test_one_put_wakes_one_of_many_sleepers_and_puts_wake_them_all(q: segq.Queue) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(q.get(timeout=30))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for n in range(10):
        q.put(n)
    for thread in threads:
        thread.join(30)
    assert sorted(found) == list(range(10))


def test_peek_shows_what_waits_oldest_first_and_takes_nothing(q: segq.Queue) -> None:
    q.put_many(range(5))
    m = q.receive()
    assert q.peek() == [1]
    assert q.peek(10) == [1, 2, 3, 4]
    m.nack()
    assert q.peek(10) == [0, 1, 2, 3, 4]
    assert q.qsize() == 5
    assert q.get_many(10) == [0, 1, 2, 3, 4]
    assert q.peek() == []


def test_peek_goes_on_past_an_item_that_cannot_be_decoded_and_leaves_it(queue_path: str) -> None:
    class Picky:
        def dumps(self, item: bytes) -> bytes:
            return item

        def loads(self, data: bytes) -> bytes:
            if data == b"bad":
                raise ValueError("bad")
            return data

    with segq.Queue(queue_path, serializer=Picky()) as q:
        q.put_many([b"a", b"bad", b"c"])
        assert q.peek(5) == [b"a", b"c"]
        assert q.qsize() == 3
        assert q.get_many(5) == [b"a", b"c"]
        assert q.stats().quarantined == 1


def test_looking_at_many_segments_leaves_no_descriptors_open(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=1) as q:
        for n in range(60):
            q.put(n)
        before = len(os.listdir("/proc/self/fd"))
        assert q.peek(100) == list(range(60))
        assert q.qsize() == 60
        assert q.stats().items == 60
        assert len(os.listdir("/proc/self/fd")) - before < 40


def test_purge_drops_what_nobody_has_and_says_how_many(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=4) as q:
        q.put_many(range(3))
        for n in range(10):
            q.put(n)
        m = q.receive()
        assert q.purge() == 12
        assert q.purge() == 0
        assert q.qsize() == 0
        m.ack()
        q.put("next")
        assert q.get() == "next"
    assert states(queue_path) == []


def test_counts_tell_waiting_from_handed_out(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=5) as q:
        assert (q.qsize(), len(q), q.empty(), q.full(), bool(q)) == (0, 0, True, False, True)
        q.put_many(range(5))
        assert (q.qsize(), len(q), q.empty(), q.full()) == (5, 5, False, True)
        m = q.receive()
        assert (q.qsize(), q.full()) == (4, True)  # not acknowledged: it takes room
        m.ack()
        assert (q.qsize(), q.full()) == (4, False)


def test_stats_account_for_everything(queue_path: str) -> None:
    with segq.Queue(queue_path, max_bytes=1000, serializer="raw") as q, segq.Queue(queue_path) as other:
        q.put_many([b"x" * 10] * 6)
        q.get()
        m = other.receive()
        stats = q.stats()
        assert (stats.items, stats.waiting, stats.claimed, stats.bytes) == (5, 4, 1, 50)
        assert (stats.puts, stats.gets) == (6, 2)
        assert {owner.slot: (owner.puts, owner.gets, owner.alive) for owner in stats.owners} == {
            1: (6, 1, True),
            2: (0, 1, True),
        }
        assert sum(stats.segments.values()) == 1
        assert pickle.loads(pickle.dumps(stats)) == stats
        m.ack()


# --- join, task_done, shutdown ---


def test_threads_may_call_task_done_once_for_each_get(queue_path: str) -> None:
    total, errors = 3000, []
    with segq.Queue(queue_path, prefetch=1) as q:
        q.put_many(range(total))

        def work() -> None:
            try:
                while True:
                    q.get(block=False)
                    q.task_done()
            except segq.Empty:
                pass
            except Exception as error:
                errors.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert errors == []
        q.join(timeout=10)
        with pytest.raises(ValueError, match="too many"):
            q.task_done()


def test_gets_of_every_kind_count_and_receives_do_not(queue_path: str) -> None:
    with segq.Queue(queue_path, prefetch=4) as q:
        q.put_many(range(40))
        gets = 0
        for _ in range(4):
            q.get()
            q.receive().ack()
            gets += 1 + len(q.get_many(3))
            q.get_nowait()
            gets += 1
            for m in q.receive_many(2):
                m.ack()
        for _ in range(gets):
            q.task_done()
        with pytest.raises(ValueError, match="too many"):
            q.task_done()


def test_join_waits_for_acks_and_task_done_of_all_processes(queue_path: str) -> None:
    code = "q.get(); m = q.receive(); say('got'); wait(); q.task_done(); say('done'); wait(); m.ack(); wait()\n"
    with segq.Queue(queue_path) as q:
        q.put_many([1, 2])
        with Child(code, queue_path) as child:
            assert child.hear() == "got"
            with pytest.raises(TimeoutError, match="2 unfinished"):
                q.join(timeout=0.05)
            child.go()
            child.hear()
            with pytest.raises(TimeoutError, match="1 unfinished"):
                q.join(timeout=0.05)
            child.go()
            q.join(timeout=20)
            child.go()
            child.ends()


def test_join_does_not_wait_for_the_dead_but_for_their_items(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many([1, 2])
        with Child("q.get(); m = q.receive(); say('got'); wait()\n", queue_path) as child:
            child.hear()
            child.kill()
        with pytest.raises(TimeoutError):
            q.join(timeout=0.1)
        assert q.get(timeout=20) == 2
        q.task_done()
        q.join(timeout=20)


def test_shutdown_stops_puts_at_once_and_gets_when_the_queue_is_empty_for_all_handles(queue_path: str) -> None:
    with segq.Queue(queue_path) as q, segq.Queue(queue_path) as other:
        q.put_many([1, 2])
        q.shutdown()
        for handle in (q, other):
            for put in (lambda h=handle: h.put(3), lambda h=handle: h.put_nowait(3), lambda h=handle: h.put_many([3])):
                with pytest.raises(segq.ShutDown):
                    put()
        assert other.get() == 1
        assert q.get() == 2
        for handle in (q, other):
            for get in (handle.get, handle.get_nowait, lambda h=handle: h.get_many(5), handle.receive):
                with pytest.raises(segq.ShutDown):
                    get()
        assert q.stats().shutdown


def test_shutdown_lasts_while_any_handle_is_open(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.shutdown()
        with segq.Queue(queue_path) as late, pytest.raises(segq.ShutDown):
            late.put(1)
    with segq.Queue(queue_path) as again:
        again.put(1)
        assert again.get() == 1


def test_shutdown_wakes_those_who_wait_to_put_and_to_get(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=1) as q:
        q.put(1)
        ended: list[str] = []

        def wait(call: Any, name: str) -> None:
            try:
                call()
            except segq.ShutDown:
                ended.append(name)

        putter = threading.Thread(target=wait, args=(lambda: q.put(2), "put"))
        putter.start()
        until(lambda: q._parts.index.words[32], 20, "the putter is about to sleep")
        q.shutdown()
        putter.join(20)
        assert q.get() == 1
        getter = threading.Thread(target=wait, args=(q.get, "get"))
        getter.start()
        getter.join(20)
        assert ended == ["put", "get"]


def test_an_immediate_shutdown_drops_what_waits_also_what_others_have_prefetched(queue_path: str) -> None:
    with segq.Queue(queue_path) as q, segq.Queue(queue_path, prefetch=5) as other:
        q.put_many(range(20))
        assert other.get() == 0
        q.shutdown(immediate=True)
        with pytest.raises(segq.ShutDown):
            q.get()
        until(lambda: raises(segq.ShutDown, other.get), 10, "the other handle hears of it")
        until(lambda: q.qsize() == 0, 20, "all are dropped")
        while not raises(ValueError, other.task_done):
            pass
        q.join(timeout=20)


def raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


# --- handles ---


METHODS: dict[str, tuple[Any, ...]] = {
    "put": (1,),
    "put_nowait": (1,),
    "put_many": ([1],),
    "get": (),
    "get_nowait": (),
    "get_many": (1,),
    "receive": (),
    "receive_many": (1,),
    "messages": (),
    "peek": (),
    "purge": (),
    "qsize": (),
    "empty": (),
    "full": (),
    "task_done": (),
    "join": (),
    "stats": (),
    "shutdown": (),
}


def test_the_table_of_methods_is_complete() -> None:
    public = {name for name, _ in inspect.getmembers(segq.Queue, inspect.isfunction) if not name.startswith("_")}
    assert public == METHODS.keys() | {"close"}


@pytest.mark.parametrize("method", METHODS)
def test_a_closed_handle_refuses_everything(queue_path: str, method: str) -> None:
    q = segq.Queue(queue_path)
    q.close()
    q.close()
    with pytest.raises(segq.ClosedError, match="closed"):
        getattr(q, method)(*METHODS[method])


def test_closing_ends_the_wait_of_other_threads(queue_path: str) -> None:
    q = segq.Queue(queue_path, capacity=1)
    q.put(1)
    ended: list[Any] = []

    def wait(call: Any) -> None:
        try:
            call()
        except Exception as error:
            ended.append(type(error))

    m = q.receive()
    threads = [
        threading.Thread(target=wait, args=(call,)) for call in (lambda: q.put(2), q.get, q.receive, lambda: q.get_many(3))
    ]
    for thread in threads:
        thread.start()
    until(lambda: q._parts.index.words[32] and q._parts.index.words[16], 20, "they are about to sleep")
    q.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert ended == [segq.ClosedError] * 4
    with pytest.raises(segq.ReceiptError):
        m.ack()


def test_a_handle_says_where_it_leads_and_whether_it_is_closed(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        assert queue_path in repr(q)
        assert "closed" not in repr(q)
    assert "closed" in repr(q)
    with pytest.raises(AttributeError, match="colour"):
        _ = q.colour


def test_many_handles_in_one_process_are_separate(queue_path: str) -> None:
    handles = [segq.Queue(queue_path) for _ in range(20)]
    for n, handle in enumerate(handles):
        handle.put(n)
    assert sorted(handle.get(timeout=10) for handle in reversed(handles)) == list(range(20))
    for handle in handles:
        handle.close()
    assert states(queue_path) == []


def test_settings_stay_with_the_queue(queue_path: str) -> None:
    given: dict[str, Any] = {
        "capacity": 9,
        "max_bytes": 10_000,
        "serializer": "json",
        "durability": "power",
        "lease": 30.0,
        "segment_items": 7,
        "segment_bytes": 8192,
    }
    segq.Queue(queue_path, **given).close()
    with segq.Queue(queue_path) as q:
        assert q.settings.as_dict() == given
    for name, value in {**given, "capacity": 8}.items():
        if value != given[name]:
            with pytest.raises(segq.SettingsConflict, match=f"{name}=9"):
                segq.Queue(queue_path, **{name: value})
        else:
            segq.Queue(queue_path, **{name: value}).close()


def test_opening_can_be_kept_from_creating(queue_path: str) -> None:
    with pytest.raises(segq.NotAQueueError, match="no queue"):
        segq.Queue(queue_path, create=False)
    assert not os.path.lexists(queue_path)


def test_short_lived_producers_fill_one_segment(queue_path: str) -> None:
    for n in range(10):
        with segq.Queue(queue_path) as q:
            q.put(n)
    assert states(queue_path) == ["ready"]
    with segq.Queue(queue_path) as q:
        assert q.get_many(100) == list(range(10))


def test_a_consumer_that_looked_early_sees_what_later_producers_append_to_the_same_segment(queue_path: str) -> None:
    with segq.Queue(queue_path) as watcher:
        for n in range(5):
            with segq.Queue(queue_path) as q:
                q.put(n)
                assert watcher.peek(10) == list(range(n + 1))
                assert watcher.qsize() == n + 1
        assert watcher.get_many(10) == list(range(5))


def test_a_queue_is_removed_only_when_nobody_has_it_open(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put(1)
        with pytest.raises(segq.QueueError, match=f"process {os.getpid()}"):
            segq.remove(queue_path)
        assert q.get() == 1
    segq.remove(queue_path)
    assert not os.path.exists(queue_path)


def test_using_a_queue_whose_directory_was_deleted_is_an_error_of_ours(queue_path: str) -> None:
    q = segq.Queue(queue_path)
    q.put(1)
    os.rename(queue_path, queue_path + ".gone")
    try:
        with pytest.raises(segq.QueueError):
            for _ in range(20):
                q.put_many(range(10_000))
        assert not os.path.exists(queue_path)
    finally:
        shutil.rmtree(queue_path, ignore_errors=True)
        os.rename(queue_path + ".gone", queue_path)
    q.close()


def test_an_interrupted_decoding_leaves_the_item_in_the_queue(queue_path: str) -> None:
    class Interrupted:
        times = 0

        def dumps(self, item: bytes) -> bytes:
            return item

        def loads(self, data: bytes) -> bytes:
            self.times += 1
            if self.times == 2:
                raise KeyboardInterrupt
            return data

    with segq.Queue(queue_path, serializer=Interrupted(), prefetch=3) as q:
        q.put_many([b"a", b"b", b"c"])
        with pytest.raises(KeyboardInterrupt):
            q.get()
        assert sorted(q.get(timeout=10) for _ in range(3)) == [b"a", b"b", b"c"]
