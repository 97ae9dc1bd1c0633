"""Races that a random run finds once in minutes, each played slowly: one step of another handle, in between."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accounts import quarantined

import segq
from segq._core.directory import owners
from segq._core.segment import batch
from segq._core.segment.ledger import Ledger


def in_between(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, happens: Callable[[], object]) -> None:
    """Lets `happens` happen just before the next call of `where.name`, once."""
    real = getattr(where, name)

    def step(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(where, name, real)
        happens()
        return real(*arguments, **options)

    monkeypatch.setattr(where, name, step)


def filled(path: Path, count: int) -> None:
    with segq.Queue(path) as queue:
        queue.put_many(range(count))


def test_a_segment_chosen_by_another_between_the_look_and_the_open_keeps_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "queue"
    filled(path, 5)
    with segq.Queue(path) as other, segq.Queue(path) as queue:
        in_between(monkeypatch, Ledger, "open", other.get)
        assert queue.get_many(10) == [1, 2, 3, 4]
    assert quarantined(path) == {}


def test_items_are_not_read_from_an_open_batch_that_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "queue"
    filled(path, 5)
    got: list[list[int]] = []
    with segq.Queue(path) as consumer, segq.Queue(path) as producer:
        in_between(monkeypatch, batch.BatchWriter, "turn", lambda: got.append(consumer.get_many(10, timeout=5)))
        producer.put(5)
        assert got == [[0, 1, 2, 3, 4]]
        assert consumer.get(timeout=5) == 5
    assert quarantined(path) == {}


def test_a_slot_taken_anew_is_not_settled_for_its_last_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rescuer has opened the owner's file; before it tries the lock, that handle closes and another takes the slot."""
    path = tmp_path / "queue"
    first = segq.Queue(path)
    opened: list[segq.Queue] = []

    def change_hands() -> None:
        first.close()
        opened.append(segq.Queue(path))

    in_between(monkeypatch, owners, "try_lock", change_hands)
    assert owners.is_alive(os.fspath(path), 1), "the proof was that of a file that is gone"
    with opened[0] as queue, segq.Queue(path) as other:
        queue.put("still mine")
        assert other.get(timeout=5) == "still mine"
        assert len(queue.stats().owners) == 2


def test_threads_that_open_and_close_handles_of_one_queue_lose_nothing(tmp_path: Path) -> None:
    """Structural steps of several handles in one process exclude each other as those of several processes do."""
    path = tmp_path / "queue"
    segq.Queue(path).close()
    failures: list[BaseException] = []

    def put_some(name: int) -> None:
        try:
            for number in range(8):
                with segq.Queue(path) as queue:
                    queue.put([name, number])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=put_some, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with segq.Queue(path) as queue:
        assert sorted(queue.get_many(100)) == [[name, number] for name in range(4) for number in range(8)]
