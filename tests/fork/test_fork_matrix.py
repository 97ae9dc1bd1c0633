"""A handle reaches a child by each way there is; both go on with it, and nothing is lost or comes twice."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections import Counter
from multiprocessing.context import BaseContext

import pytest
from work import HANDLE, Doubling, inherited_child, passed_child, set_handle, worker

import segq

METHODS = ["fork", "spawn", "forkserver"]
MOST = 60.0


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> BaseContext:
    return multiprocessing.get_context(request.param)


def drained(q: segq.Queue) -> list[object]:
    found: list[object] = []
    while True:
        try:
            found += q.get_many(100, timeout=0.3)
        except segq.Empty:
            return found


@pytest.mark.parametrize("used_before", [True, False], ids=["used by the parent before", "fresh"])
@pytest.mark.parametrize("used_after", [True, False], ids=["used by the parent meanwhile", "idle in the parent"])
def test_a_handle_given_as_an_argument_works_in_parent_and_child(
    queue_path: str, context: BaseContext, used_before: bool, used_after: bool
) -> None:
    with segq.Queue(queue_path, segment_items=50, prefetch=1) as q:
        expected: list[object] = []
        if used_before:
            q.put("before")
            q.put("got by the parent")
            expected.append("got by the parent")
            assert q.get() == "before"
        child = context.Process(target=passed_child, args=(q, 120))
        child.start()
        if used_after:
            for n in range(200):
                q.put(["parent", n])
            expected += [["parent", n] for n in range(200)]
        child.join(MOST)
        assert child.exitcode == 0
        expected += [["child", n] for n in range(120)]
        found = drained(q)
        assert Counter(map(str, found)) == Counter(map(str, expected))
        for name in ("child", "parent"):
            mine = [item[1] for item in found if isinstance(item, list) and item[0] == name]
            assert mine == sorted(mine)
        assert len(q.stats().owners) == 1  # the child has gone properly


def test_a_handle_inherited_as_a_global_works_in_parent_and_child(queue_path: str) -> None:
    context = multiprocessing.get_context("fork")
    with segq.Queue(queue_path, segment_items=50) as q:
        set_handle(q)
        try:
            q.put_many([["parent", n] for n in range(10)])
            child = context.Process(target=inherited_child, args=(120,))
            child.start()
            for n in range(10, 200):
                q.put(["parent", n])
            child.join(MOST)
            assert child.exitcode == 0
        finally:
            set_handle(None)
        found = drained(q)
        assert len(found) == 320
        assert len({str(item) for item in found}) == 320
    assert HANDLE == [None]


def test_a_pool_of_workers_with_a_handle_each_does_all_tasks_once(queue_path: str, context: BaseContext) -> None:
    with segq.Queue(queue_path) as tasks, segq.Queue(queue_path + "-results") as results:
        workers = [context.Process(target=worker, args=(tasks, results)) for _ in range(3)]
        for process in workers:
            process.start()
        for n in range(300):
            tasks.put(n)
        tasks.put_many([None] * 3)
        found = [results.get(timeout=MOST) for _ in range(300)]
        for process in workers:
            process.join(MOST)
            assert process.exitcode == 0
        assert sorted(found) == [n * n for n in range(300)]
        tasks.join(timeout=10)


def test_a_closed_handle_is_opened_anew_by_pickling_and_a_custom_serializer_goes_along(queue_path: str) -> None:
    with segq.Queue(queue_path, serializer=Doubling(), prefetch=3) as q:
        q.put("ab")
        with pickle.loads(pickle.dumps(q)) as other:
            assert other.path == q.path
            assert other.get(timeout=10) == "abab"


def test_a_pickled_handle_of_a_queue_that_is_gone_says_so(queue_path: str) -> None:
    q = segq.Queue(queue_path)
    data = pickle.dumps(q)
    q.close()
    segq.remove(queue_path)
    other = pickle.loads(data)
    with pytest.raises(segq.NotAQueueError):
        other.put(1)
    assert not os.path.lexists(queue_path)
