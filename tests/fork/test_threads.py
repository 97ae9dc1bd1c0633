"""Threads share a handle, and many handles share a process: the account is exact."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import segq

THREADS = 8


def together(works: list[Callable[[], object]]) -> None:
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert errors == []


@pytest.mark.parametrize("shared", [True, False], ids=["one handle", "a handle each"])
@pytest.mark.parametrize("settings", [{}, {"capacity": 20}, {"lease": 60.0}, {"prefetch": 1}], ids=str)
def test_threads_that_put_and_get_account_for_every_item_once(queue_path: str, shared: bool, settings: dict[str, Any]) -> None:
    each = 400
    prefetch = settings.pop("prefetch", None) if "prefetch" in settings else None
    with segq.Queue(queue_path, segment_items=300, prefetch=prefetch, **settings) as q:
        handles = [q if shared else segq.Queue(queue_path, prefetch=prefetch) for _ in range(THREADS)]
        found: list[Any] = []
        lock = threading.Lock()

        def put(handle: segq.Queue, name: int) -> None:
            for n in range(each):
                if n % 10:
                    handle.put([name, n])
                else:
                    handle.put_many([[name, n]])

        def get(handle: segq.Queue, name: int) -> None:
            mine: list[Any] = []
            while True:
                match len(mine) % 3:
                    case 0:
                        value = handle.get(timeout=60)
                    case 1:
                        m = handle.receive(timeout=60)
                        value = m.value
                        m.ack()
                    case _:
                        (value,) = handle.get_many(1, timeout=60)
                if value is None:
                    break
                mine.append(value)
            with lock:
                found.extend(mine)

        getters = [lambda h=h, n=n: get(h, n) for n, h in enumerate(handles[: THREADS // 2])]

        def put_all() -> None:
            together([lambda h=h, n=n: put(h, n) for n, h in enumerate(handles[THREADS // 2 :])])
            for _ in getters:
                q.put(None)

        together([*getters, put_all])
        expected = Counter(str([name, n]) for name in range(THREADS // 2) for n in range(each))
        assert Counter(map(str, found)) == expected
        assert q.empty()
        if not shared:
            for handle in handles:
                handle.close()


def test_threads_that_nack_and_ack_settle_every_item_once(queue_path: str) -> None:
    total, done, lock = 400, Counter[int](), threading.Lock()
    with segq.Queue(queue_path, segment_items=64) as q:
        q.put_many(range(total))

        def work(seed: int) -> None:
            while True:
                try:
                    m = q.receive(timeout=0.3)
                except segq.Empty:
                    return
                if (m.value * 7 + m.deliveries + seed) % 3 == 0 and m.deliveries < 4:
                    m.nack()
                else:
                    m.ack()
                    with lock:
                        done[m.value] += 1

        together([lambda n=n: work(n) for n in range(THREADS)])
        assert done == Counter(range(total))
        assert q.stats().items == 0


def test_handles_opened_and_closed_by_threads_all_the_time_lose_nothing(queue_path: str) -> None:
    each = 12
    with segq.Queue(queue_path, segment_items=40) as q:

        def work(name: int) -> None:
            for n in range(each):
                with segq.Queue(queue_path) as mine:
                    mine.put_many([[name, n], [name, n + 1000]])
                    mine.put([name, n + 2000])
                    mine.receive(timeout=20).nack()

        together([lambda n=n: work(n) for n in range(4)])
        found: list[Any] = []
        while len(found) < 4 * each * 3:
            found += q.get_many(100, timeout=20)
        expected = {(name, n + extra) for name in range(4) for n in range(each) for extra in (0, 1000, 2000)}
        assert sorted(map(tuple, found)) == sorted(expected)
        assert q.empty()
