"""Slow work is spread over idle workers, and nobody keeps what he does not use."""

from __future__ import annotations

import time

import pytest
from accounts import until
from actors import Child

import segq
from segq._core.take.claims import MOST_AT_ONCE, Pace

TASK = 0.3  # seconds


def test_four_slow_tasks_of_one_producer_are_done_by_four_idle_workers_at_the_same_time(queue_path: str) -> None:
    worker = (
        "import time\n"
        "say('idle')\n"
        "with q.receive(timeout=30) as m:\n"
        f"    time.sleep({TASK}); m.ack()\n"
        "say(time.monotonic()); q.close()\n"
    )
    with segq.Queue(queue_path) as q:
        workers = [Child(worker, queue_path) for _ in range(4)]
        try:
            for child in workers:
                assert child.hear() == "idle"
            begun = time.monotonic()
            for n in range(4):
                q.put(n)
            ended = [float(child.hear()) for child in workers]
            assert max(ended) - begun < 3 * TASK  # one after the other it is four
            for child in workers:
                child.ends()
        finally:
            for child in workers:
                child.__exit__(None, None, None)
        assert q.stats().items == 0


def test_what_a_quick_consumer_took_ahead_is_given_back_when_it_falls_into_a_long_task(queue_path: str) -> None:
    with segq.Queue(queue_path) as q, segq.Queue(queue_path) as slow:
        q.put_many(range(3000))
        got = [slow.get() for _ in range(200)]  # quick: by now it claims many at a time
        assert slow._consumer.holding()
        begun = time.monotonic()
        rest = []
        while len(rest) < 3000 - len(got):
            rest += q.get_many(3000, timeout=10)
        assert time.monotonic() - begun < 5
        assert sorted(got + rest) == list(range(3000))


def test_items_taken_ahead_are_given_back_within_a_moment(queue_path: str) -> None:
    with segq.Queue(queue_path, prefetch=100) as hoarder, segq.Queue(queue_path) as other:
        hoarder.put_many(range(100))
        assert hoarder.get() == 0
        begun = time.monotonic()
        assert other.get(timeout=10) == 1
        assert time.monotonic() - begun < 2
        until(lambda: not hoarder._consumer.holding(), 10, "nothing is held")
        assert other.qsize() == 98
        other.purge()


def test_a_fixed_prefetch_is_what_is_claimed() -> None:
    pace = Pace(7)
    pace.took(1e-6, 7)
    assert pace.count() == 7


def test_a_quick_consumer_claims_more_and_more_and_a_slow_one_a_single_item() -> None:
    pace = Pace(None)
    counts = []
    for _ in range(40):
        counts.append(pace.count())
        pace.took(1e-7 * counts[-1], counts[-1])
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] == MOST_AT_ONCE
    pace.took(1.0, 1)
    assert pace.count() == 1


@pytest.mark.parametrize("seconds", [0.0, 1e-12])
def test_a_clock_that_stands_still_does_no_harm(seconds: float) -> None:
    pace = Pace(None)
    for _ in range(50):
        pace.took(seconds, 1)
        assert 1 <= pace.count() <= MOST_AT_ONCE
