"""A consumer that keeps up takes each item in one step, without claiming it first; all else is as if it had claimed it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import segq
from segq._core.format.format import IndexWord, OwnerWord
from segq._core.segment.ledger import Ledger


@pytest.fixture(params=["queue", "label"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """Where to put, and where to get."""
    if request.param == "queue":
        with segq.Queue(tmp_path / "q") as q:
            yield q, q
    else:
        with segq.Topic(tmp_path / "t") as topic, topic.subscribe("x") as label:
            yield topic, label


def test_what_is_waited_for_is_not_claimed(ends: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    into, out = ends
    into.put("the first is claimed")
    assert out.get(timeout=5) == "the first is claimed"
    taken: list[int] = []
    take = Ledger.take_fresh

    def noted(self: Ledger, i: int, *how: Any) -> bool:
        taken.append(i)
        return take(self, i, *how)

    monkeypatch.setattr(Ledger, "take_fresh", noted)
    for n in range(20):
        into.put(n)
        assert out.get(timeout=5) == n
    assert len(taken) > 15  # not in the moments in which others are looked after


def test_threads_that_wait_get_each_item_once_and_all_are_counted(tmp_path: Path) -> None:
    with segq.Queue(tmp_path / "q") as q:
        got: list[int] = []

        def work() -> None:
            while (item := q.get()) is not None:
                got.append(item)
                q.task_done()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for n in range(2000):
            q.put(n)
        q.join(timeout=30)
        assert sorted(got) == list(range(2000))
        for _ in threads:
            q.put(None)
        for thread in threads:
            thread.join(30)


def test_each_of_several_that_wait_is_woken_for_one_of_several_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one is woken at a time, and wakes the next: if it did not, that one would sleep for a minute."""
    monkeypatch.setattr("segq._core.take.maintenance.LOOK_AGAIN", 60.0)
    queues = [segq.Queue(tmp_path / "q") for _ in range(5)]
    got: list[int] = []
    threads = [threading.Thread(target=lambda q=q: got.append(q.get())) for q in queues[1:]]
    for thread in threads:
        thread.start()
    for n in range(len(threads)):
        queues[0].put(n)
    begun = time.monotonic()
    for thread in threads:
        thread.join(40)
    assert sorted(got) == [0, 1, 2, 3]
    assert time.monotonic() - begun < 30
    for q in queues:
        q.close()


def test_of_many_that_wait_one_looks_after_others_each_second_and_the_rest_sleep_longer(tmp_path: Path) -> None:
    with segq.Queue(tmp_path / "q") as q:
        assert q.empty()
        consumer = q._consumer
        words = consumer._index.words

        def pauses() -> Iterator[float]:
            for somebody_just_did in (True, True, True, False, True):
                words[IndexWord.RESCUED_AT] = time.monotonic_ns() if somebody_just_did else 1
                consumer.look_after_others()
                yield consumer.pause()

        assert list(pauses()) == [1, 1, 1, 1, 1]  # nobody else waits
        for slot in range(20, 40):
            words[consumer._index.owner_word(slot, OwnerWord.WAITED)] = time.monotonic_ns() // 1_000_000 - 4000
        assert list(pauses()) == [2, 4, 4, 1, 2]


def test_taking_makes_room(tmp_path: Path) -> None:
    with segq.Queue(tmp_path / "q", capacity=1) as q:
        producer = threading.Thread(target=lambda: [q.put(n, timeout=30) for n in range(300)])
        producer.start()
        assert [q.get(timeout=30) for _ in range(300)] == list(range(300))
        producer.join(30)


def test_what_was_given_back_comes_before_a_fresh_item(ends: tuple[Any, Any]) -> None:
    into, out = ends
    for n in range(3):
        into.put(n)
        assert out.get(timeout=5) == n
    into.put("old")
    message = out.receive(timeout=5)
    into.put("new")
    message.nack()
    assert [out.get(timeout=5), out.get(timeout=5)] == ["old", "new"]


def test_a_fresh_item_that_cannot_be_decoded_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "q"
    with segq.Queue(path, serializer="json") as q:
        q.put(1)
        assert q.get(timeout=5) == 1
        q._producer.put_stored([b"no json"])
        q.put(2)
        assert q.get(timeout=5) == 2
        assert len(list((path / "quarantine").glob("*.item"))) == 1
        assert q.empty()
