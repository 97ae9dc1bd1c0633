"""Guarantee G5: the capacity is never exceeded, and `Full` is never raised while there is room."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from accounts import until
from actors import Child

import segq

PRODUCER = (
    "import random\n"
    "r = random.Random(int(sys.argv[2])); most = int(sys.argv[3]); n = 0\n"
    "while n < int(sys.argv[4]):\n"
    "    k = r.randint(1, most)\n"
    "    if r.random() < 0.5: q.put(bytes(r.randint(0, 40))); n += 1\n"
    "    else: q.put_many([bytes(r.randint(0, 40)) for _ in range(k)]); n += k\n"
    "q.close(); say(n)\n"
)
CONSUMER = (
    "n = 0\n"
    "try:\n"
    "    while True:\n"
    "        item = q.get(timeout=1.5) if n % 3 else q.receive(timeout=1.5)\n"
    "        if isinstance(item, segq.Message): item.ack()\n"
    "        n += 1\n"
    "except segq.Empty: pass\n"
    "q.close(); say(n)\n"
)


@pytest.mark.parametrize(
    ("settings", "total"),
    [({"capacity": 7}, 700), ({"capacity": 1000}, 6000), ({"max_bytes": 400}, 700), ({"capacity": 50, "max_bytes": 600}, 900)],
    ids=str,
)
def test_the_capacity_is_never_exceeded_by_processes_that_fight_for_it(
    queue_path: str, settings: dict[str, Any], total: int
) -> None:
    most = settings.get("capacity", 10**9), settings.get("max_bytes", 10**9)
    over: list[Any] = []
    samples = 0
    with segq.Queue(queue_path, serializer="raw", segment_items=200, **settings) as monitor:
        producers = [Child(PRODUCER, queue_path, seed, 5, total) for seed in range(3)]
        consumers = [Child(CONSUMER, queue_path) for _ in range(2)]
        try:
            while any(child.process.poll() is None for child in producers):
                # All that is published and not done, read straight off the ledgers.
                parts = monitor._parts
                with parts.tally_lock, parts.tally.decided() as taken:
                    pass
                items, size = taken.items, taken.bytes
                samples += 1
                if items > most[0] or (settings.get("max_bytes") and size > most[1]):
                    over.append((items, size))
            put = sum(int(child.ends()) for child in producers)
            got = sum(int(child.ends()) for child in consumers)
        finally:
            for child in producers + consumers:
                child.__exit__(None, None, None)
        assert over == []
        assert samples > 20
        assert got == put
        assert monitor.qsize() == 0


def test_room_that_another_producer_has_reserved_ahead_is_room(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=1000) as q, Child("q.put(1); say('put'); wait(); q.close()\n", queue_path) as other:
        other.hear()
        for _ in range(999):
            q.put_nowait(0)
        with pytest.raises(segq.Full):
            q.put_nowait(0)
        other.go()
        other.ends()
        q.purge()


def test_room_that_a_killed_producer_had_reserved_is_room(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=1000) as q:
        with Child("q.put(1); say('put'); wait()\n", queue_path) as other:
            other.hear()
            other.kill()
        for _ in range(999):
            q.put_nowait(0)
        with pytest.raises(segq.Full):
            q.put_nowait(0)
        q.purge()


def test_a_batch_that_needs_all_the_room_there_is_gets_it(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=1000) as q, Child("q.put(1); say('put'); wait(); q.close()\n", queue_path) as other:
        other.hear()
        q.put_many([0] * 999, block=False)
        assert q.full()
        other.go()
        other.ends()
        q.purge()


def test_a_full_queue_has_room_as_soon_as_one_item_is_acknowledged(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=3) as q, segq.Queue(queue_path) as other:
        for n in range(50):
            while not q.full():
                q.put_nowait(n)
            with pytest.raises(segq.Full):
                other.put_nowait(n)
            m = other.receive()
            with pytest.raises(segq.Full):
                q.put_nowait(n)
            m.ack()
            other.put_nowait(n)
        other.purge()


def test_bytes_are_counted_exactly(queue_path: str) -> None:
    with segq.Queue(queue_path, max_bytes=1000, serializer="raw") as q:
        q.put(b"x" * 400)
        q.put_many([b"x" * 300, b"x" * 299])
        with pytest.raises(segq.Full):
            q.put_nowait(b"xx")
        q.put_nowait(b"x")
        q.put_nowait(b"")
        with pytest.raises(segq.Full):
            q.put_nowait(b"x")
        assert q.get() == b"x" * 400
        q.put_nowait(b"x" * 400)
        with pytest.raises(segq.Full):
            q.put_nowait(b"x")
        assert q.stats().bytes == 1000


@pytest.mark.parametrize("count", [1, 5])
def test_those_who_wait_for_room_all_get_it_in_the_end(queue_path: str, count: int) -> None:
    with segq.Queue(queue_path, capacity=5) as q:
        q.put_many(range(5))
        threads = [threading.Thread(target=q.put_many, args=(list(range(count)),)) for _ in range(6)]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        found = 0
        while found < 5 + 6 * count:
            found += len(q.get_many(2, timeout=10))
        for thread in threads:
            thread.join(20)
        assert time.monotonic() - begun < 10
        assert q.empty()


def test_a_putter_that_waits_is_woken_by_an_ack_in_another_process_without_delay(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=1) as q:
        q.put(1)
        code = "m = q.receive(); say('have'); wait(); m.ack(); say(time.monotonic()); wait(); q.close()\n"
        with Child(code, queue_path) as child:
            child.hear()
            stored: list[float] = []

            def put() -> None:
                q.put(2)
                stored.append(time.monotonic())

            thread = threading.Thread(target=put)
            thread.start()
            until(lambda: q._parts.index.words[32], 20, "the putter is about to sleep")
            child.go()
            acked = float(child.hear())
            thread.join(20)
            assert stored[0] - acked < 0.5  # it would look again by itself after a second
            child.go()
            child.ends()
        assert q.get() == 2
