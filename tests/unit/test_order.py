"""Guarantee G4: the items of one producer handle are delivered in the order put, whatever else goes on."""

from __future__ import annotations

import threading
from collections import defaultdict
from itertools import chain
from typing import Any

import pytest
from actors import Child, states

import segq


def drained(q: segq.Queue, how: str = "get_many") -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            found += q.get_many(97, block=False) if how == "get_many" else [q.get_nowait()]
        except segq.Empty:
            return found


def assert_in_order(found: list[Any], each: dict[Any, int]) -> None:
    """`found` holds (producer, number) with all numbers of each producer, in order."""
    numbers = defaultdict(list)
    for producer, number in found:
        numbers[producer].append(number)
    assert dict(numbers) == {producer: list(range(count)) for producer, count in each.items()}


@pytest.mark.parametrize("how", ["get", "get_many"])
def test_several_producers_that_roll_through_many_segments_keep_their_order(queue_path: str, how: str) -> None:
    with segq.Queue(queue_path, segment_items=7) as one, segq.Queue(queue_path) as two, segq.Queue(queue_path) as consumer:
        for n in range(60):
            one.put(["one", n])
            two.put_many([["two", 3 * n + k] for k in range(3)])
        assert_in_order(drained(consumer, how), {"one": 60, "two": 180})


def test_a_producer_that_resumes_anothers_segment_and_rolls_on_keeps_both_orders(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=10) as consumer:
        for name in ("a", "b", "c"):
            with segq.Queue(queue_path) as q:
                for n in range(13):
                    q.put([name, n])
        assert_in_order(drained(consumer), {"a": 13, "b": 13, "c": 13})


def test_a_producer_whose_half_empty_segment_is_resumed_by_another_while_it_goes_on_keeps_its_order(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=10) as one, segq.Queue(queue_path) as two, segq.Queue(queue_path) as consumer:
        one.put(["one", 0])
        one.put_many([["one", n] for n in range(1, 11)])  # does not fit: the first segment is sealed with one item
        two.put(["two", 0])
        one.put(["one", 11])
        for n in range(1, 30):
            two.put(["two", n])
        assert_in_order(drained(consumer, "get"), {"one": 12, "two": 30})


def test_what_is_given_back_comes_again_before_later_items_of_its_producer(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=4, prefetch=1) as q:
        for n in range(20):
            q.put(n)
        messages = q.receive_many(10)
        for m in reversed(messages[2:]):
            m.nack()
        for m in messages[:2]:
            m.ack()
        assert drained(q, "get") == list(range(2, 20))


def test_items_that_a_consumer_prefetched_and_gave_back_by_closing_keep_their_place(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=8) as q:
        for n in range(40):
            q.put(n)
        for n in range(6):
            with segq.Queue(queue_path, prefetch=11) as brief:
                assert brief.get() == n
        assert drained(q) == list(range(6, 40))


def test_a_lone_consumer_that_keeps_up_with_producers_in_other_processes_sees_each_ones_order(queue_path: str) -> None:
    code = (
        "import random\n"
        "r = random.Random(int(sys.argv[2])); n = 0\n"
        "while n < 4000:\n"
        "    k = min(4000 - n, r.choice([1, 1, 1, 5, 300]))\n"
        "    if k == 1: q.put([int(sys.argv[2]), n])\n"
        "    else: q.put_many([[int(sys.argv[2]), n + i] for i in range(k)])\n"
        "    n += k\n"
        "    if r.random() < 0.01: q.close(); q = segq.Queue(sys.argv[1])\n"
        "q.close()\n"
    )
    with segq.Queue(queue_path, segment_items=500) as q:
        children = [Child(code, queue_path, seed) for seed in range(3)]
        found: list[Any] = []
        try:
            while len(found) < 12_000:
                found += [q.get(timeout=30)] if len(found) % 2 else q.get_many(50, timeout=30)
            for child in children:
                child.ends()
        finally:
            for child in children:
                child.__exit__(None, None, None)
        assert_in_order(found, {0: 4000, 1: 4000, 2: 4000})
        assert q.empty()


def test_several_consumers_share_out_the_segments_of_one_producer_and_each_item_comes_once(queue_path: str) -> None:
    found: list[list[Any]] = [[], [], []]
    with segq.Queue(queue_path, segment_items=100) as q:
        handles = [segq.Queue(queue_path) for _ in found]

        def consume(handle: segq.Queue, mine: list[Any]) -> None:
            while (item := handle.get(timeout=30)) is not None:
                mine.append(item)

        threads = [threading.Thread(target=consume, args=pair) for pair in zip(handles, found, strict=True)]
        for thread in threads:
            thread.start()
        for n in range(3000):
            q.put(n)
        q.put_many([None] * 3)
        for thread in threads:
            thread.join(60)
        for handle in handles:
            handle.close()
    assert sorted(chain.from_iterable(found)) == list(range(3000))
    assert states(queue_path) == []


def test_no_producer_waits_for_ever_behind_a_busy_one(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=50) as busy, segq.Queue(queue_path) as quiet, segq.Queue(queue_path) as consumer:
        quiet.put("quiet")
        stop = threading.Event()

        def put() -> None:
            while not stop.is_set():
                busy.put_many(["busy"] * 20)

        thread = threading.Thread(target=put)
        thread.start()
        try:
            for _ in range(1_000_000):
                if consumer.get(timeout=10) == "quiet":
                    break
            else:
                pytest.fail("the quiet producer's item was not delivered")
        finally:
            stop.set()
            thread.join()
        consumer.purge()


def test_oldest_first_hands_out_what_was_put_first_across_restarts(queue_path: str) -> None:
    """A handle that is alone with what several before it left, as in a program that is started again and again."""
    for begin in range(0, 50, 10):
        with segq.Queue(queue_path, oldest_first=True) as q:
            q.put_many(range(begin, begin + 10))
            assert q.get() == begin // 10
    with segq.Queue(queue_path, oldest_first=True) as q:
        assert [q.get() for _ in range(20)] + q.get_many(100) == list(range(5, 50))


def test_oldest_first_holds_for_labels_too(queue_path: str) -> None:
    with segq.Topic(queue_path) as topic:
        topic.subscribe("a").close()
    for begin in range(0, 50, 10):
        with segq.Topic(queue_path) as topic, segq.Subscription(queue_path, "a", oldest_first=True) as label:
            topic.put_many(range(begin, begin + 10))
            assert label.get() == begin // 10
    with segq.Subscription(queue_path, "a", oldest_first=True) as label:
        assert [label.get() for _ in range(20)] + label.get_many(100) == list(range(5, 50))
