"""RocksQ's API: the same assertions for the real one (where it is installed) and for `segq.compat.rocksq`.

What is the stand-in's own, and better, stands at the end. The scripts of RocksQ's own repository are not in its package, so they cannot be
had here; what they assert is asserted here in other words.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from accounts import until
from cli_command import environment

import segq
from segq.compat import rocksq as ours

PATIENCE = 60
BOTH = [pytest.param("segq.compat.rocksq"), pytest.param("rocksq", marks=pytest.mark.external)]


@pytest.fixture(params=BOTH)
def rocksq(request: pytest.FixtureRequest) -> ModuleType:
    pytest.importorskip(request.param, reason="RocksQ is not installed: pip install rocksq")
    package = ModuleType(request.param)
    package.__dict__.update(vars(importlib.import_module(request.param)))
    for name in ("blocking", "nonblocking"):  # the real one does not show them as attributes
        setattr(package, name, importlib.import_module(f"{request.param}.{name}"))
    return package


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Where a test may create a queue; nothing may be wrong with it afterwards, if it is segq's."""
    place = str(tmp_path / "queue")
    yield place
    if (tmp_path / "queue" / "queue.json").exists():
        report = segq.check(place)
        assert report.ok, report.problems


class Answers:
    """A queue of either kind, asked the same way: nonblocking answers are waited for."""

    def __init__(self, queue: Any, parts: dict[str, str]) -> None:
        self.queue, self._parts = queue, parts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.queue, name)
        if not callable(found):
            return self._had(name, found)
        return lambda *arguments, **options: self._had(name, found(*arguments, **options))

    def _had(self, name: str, found: Any) -> Any:
        if not hasattr(found, "try_get"):
            return found
        answer = found.get()
        return getattr(answer, self._parts[name]) if name in self._parts else None


PARTS = {"pop": "data", "next": "data", "len": "len", "labels": "labels", "remove_label": "removed_label"}
PARTS |= {"disk_size": "size", "payload_size": "size"}


@pytest.fixture(params=["blocking", "nonblocking"])
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(rocksq: ModuleType, path: str, flavour: str) -> Callable[..., Any]:
    return lambda *limits: Answers(getattr(rocksq, flavour).PersistentQueueWithCapacity(path, *limits), PARTS)


@pytest.fixture
def make_mpmc(rocksq: ModuleType, path: str, flavour: str) -> Callable[..., Any]:
    return lambda ttl=60: Answers(getattr(rocksq, flavour).MpmcQueue(path, ttl), PARTS)


# --- the queue with a capacity ---


@pytest.mark.parametrize("no_gil", [True, False])
def test_what_is_pushed_is_popped_in_order(make: Callable[..., Any], no_gil: bool) -> None:
    q = make()
    for n in range(200):
        data = [str(n).encode()]
        assert q.push(data, no_gil=no_gil) is None
        assert q.pop(max_elements=1, no_gil=no_gil) == data
    for n in range(200):
        q.push([str(n).encode()], no_gil=no_gil)
    for n in range(200):
        assert q.pop(no_gil=no_gil) == [str(n).encode()]
    assert q.pop() == []


def test_several_at_once(make: Callable[..., Any]) -> None:
    q = make(5)
    q.push(items=[b"\x01\x02\x03", b"\x04\x05\x06", b"\x07\x08\x09"])
    assert (q.len, q.payload_size) == (3, 9)
    assert q.pop(2) == [b"\x01\x02\x03", b"\x04\x05\x06"]
    assert (q.len, q.payload_size) == (1, 3)
    assert q.pop(10) == [b"\x07\x08\x09"]
    assert (q.len, q.payload_size) == (0, 0)
    assert q.pop(10) == []
    q.push([])
    assert q.len == 0
    assert q.disk_size > 0


def test_what_is_bytes_like_is_taken(make: Callable[..., Any]) -> None:
    q = make()
    q.push([b"", bytearray(b"a"), [98, 99]])
    assert q.pop(3) == [b"", b"a", b"bc"]


def test_what_is_left_is_there_when_it_is_opened_again_and_comes_first(make: Callable[..., Any]) -> None:
    for n in range(5):
        q = make()
        assert q.len == 2 * n
        q.push([b"%d" % m for m in range(3 * n, 3 * n + 3)])
        assert q.pop() == [b"%d" % n]
        del q
    q = make()
    assert [q.pop()[0] for _ in range(5)] + q.pop(10) == [b"%d" % n for n in range(5, 15)]


def test_the_capacity_is_that_of_whoever_opens_it(make: Callable[..., Any]) -> None:
    q = make(2)
    q.push([b"a", b"b"])
    del q
    q = make(3)
    q.push([b"c"])
    assert q.pop(5) == [b"a", b"b", b"c"]


def test_a_full_queue_raises(rocksq: ModuleType, path: str) -> None:
    q = rocksq.blocking.PersistentQueueWithCapacity(path, 3)
    q.push([b"a", b"b"])
    for items in ([b"c", b"d"], [b"1", b"2", b"3", b"4"]):
        with pytest.raises(RuntimeError) as caught:
            q.push(items)
        assert str(caught.value) == "Failed to push item: Queue is full"
    assert (q.len, q.is_empty) == (2, False)
    q.push([b"c"])
    with pytest.raises(RuntimeError, match="Queue is full"):
        q.push([b"d"])
    q.push([])
    assert q.pop(9) == [b"a", b"b", b"c"]
    assert q.is_empty is True


def test_wrong_arguments(rocksq: ModuleType, path: str, flavour: str) -> None:
    kind = getattr(rocksq, flavour).PersistentQueueWithCapacity
    with pytest.raises(OverflowError):
        kind(path, -1)
    with pytest.raises(OverflowError):
        kind(path, 1 << 65)
    with pytest.raises(TypeError):
        kind(5)
    with pytest.raises(TypeError):
        kind(path, "5")
    q = kind(path)
    for items in ((b"a",), b"a", None, 5):
        with pytest.raises(TypeError):
            q.push(items)
    with pytest.raises(OverflowError):
        q.pop(-1)
    for count in ("1", 1.5, None):
        with pytest.raises(TypeError):
            q.pop(count)
    with pytest.raises(
        RuntimeError, match="Failed to create persistent queue: max_elements can't be greater than 1844674407370955"
    ):
        rocksq.blocking.PersistentQueueWithCapacity(path + "2", (1 << 64) - 1)


# --- the queue with labels ---


@pytest.mark.parametrize("no_gil", [True, False])
def test_each_label_gets_everything(rocksq: ModuleType, make_mpmc: Callable[..., Any], no_gil: bool) -> None:
    start = rocksq.StartPosition
    q = make_mpmc()
    assert q.labels == []
    for n in range(50):
        data = [str(n).encode()]
        assert q.add(data, no_gil=no_gil) is None
        assert q.next(label="one", start_position=start.Oldest, max_elements=1, no_gil=no_gil) == (data, False)
    assert q.next("one", start.Oldest) == ([], False)
    assert q.next("two", start.Newest) == ([b"49"], False)
    assert sorted(q.labels) == ["one", "two"]
    assert q.remove_label("three", no_gil=no_gil) is False
    assert q.remove_label("one") is True
    assert q.labels == ["two"]
    assert q.next("one", start.Oldest) == ([b"0"], False)
    assert q.next("one", start.Newest, 60) == ([b"%d" % n for n in range(1, 50)], False)
    assert q.len == 50
    assert q.disk_size > 0


def test_a_label_may_begin_before_there_is_anything(rocksq: ModuleType, make_mpmc: Callable[..., Any]) -> None:
    start = rocksq.StartPosition
    q = make_mpmc()
    assert q.next("old", start.Oldest, 5) == ([], False)
    assert q.next("new", start.Newest, 5) == ([], False)
    assert q.next("nothing", start.Oldest, 0) == ([], False)
    q.add([])
    assert q.len == 0
    q.add([b"a", b"b"])
    for label in ("old", "new", "nothing"):
        assert q.next(label, start.Oldest, 5) == ([b"a", b"b"], False)
    assert q.next("", start.Newest, 5) == ([b"b"], False)
    assert sorted(q.labels) == ["", "new", "nothing", "old"]


def test_labels_stay_where_they_are_when_it_is_opened_again(rocksq: ModuleType, make_mpmc: Callable[..., Any]) -> None:
    start = rocksq.StartPosition
    for n in range(4):
        q = make_mpmc(60 + n)
        q.add([b"%d" % m for m in range(2 * n, 2 * n + 2)])
        assert q.next("a", start.Oldest) == ([b"%d" % n], False)
        assert q.len == 2 * n + 2
        del q
    assert make_mpmc().next("a", start.Newest, 9) == ([b"4", b"5", b"6", b"7"], False)


def test_wrong_arguments_of_the_queue_with_labels(rocksq: ModuleType, path: str, flavour: str) -> None:
    kind = getattr(rocksq, flavour).MpmcQueue
    for ttl in (-1, 1 << 32):
        with pytest.raises(OverflowError):
            kind(path, ttl)
    for ttl in (1.5, "1", None):
        with pytest.raises(TypeError):
            kind(path, ttl)
    with pytest.raises(TypeError):
        kind(path)
    q = kind(path, 0)
    with pytest.raises(TypeError):
        q.next("x")
    with pytest.raises(TypeError):
        q.next("x", 0)
    with pytest.raises(TypeError):
        q.next(5, rocksq.StartPosition.Oldest)
    with pytest.raises(OverflowError):
        q.next("x", rocksq.StartPosition.Oldest, -1)
    with pytest.raises(TypeError):
        q.add((b"a",))


def test_the_package(rocksq: ModuleType, path: str) -> None:
    start = rocksq.StartPosition
    assert (start.Oldest == 0, start.Newest == 1, int(start.Newest)) == (True, True, 1)
    assert start.Oldest != start.Newest
    assert (repr(start.Oldest), rocksq.version()) == ("StartPosition.Oldest", "0.3.0")
    assert rocksq.remove_queue(path) is None
    assert rocksq.remove_mpmc_queue(path) is None
    for kind, remove in (
        (rocksq.blocking.PersistentQueueWithCapacity, rocksq.remove_queue),
        (lambda place: rocksq.blocking.MpmcQueue(place, 1), rocksq.remove_mpmc_queue),
    ):
        q = kind(path)
        with pytest.raises(RuntimeError, match=r"^Failed to remove (persistent|mpmc) queue: "):
            remove(path)
        del q
        remove(path)
        assert not Path(path).exists()
    for missing in ("Response", "ResponseVariant", "MpmcResponse", "MpmcResponseVariant"):
        with pytest.raises(TypeError, match="No constructor defined"):
            getattr(rocksq.nonblocking, missing)()


# --- responses ---


def test_a_response_can_be_had_once(rocksq: ModuleType, path: str) -> None:
    q = rocksq.nonblocking.PersistentQueueWithCapacity(path, 5, 10)
    response = q.push([b"a", b"bc"])
    answer = response.get()
    assert (answer.data, answer.len, answer.size) == (None, None, None)
    assert response.is_ready is False
    for again in (response.get, response.try_get):
        with pytest.raises(RuntimeError, match=r"^Failed to get response: "):
            again()
    response = q.pop(5)
    until(lambda: response.is_ready, PATIENCE, "it is done")
    answer = response.try_get()
    assert (answer.data, answer.len, answer.size) == ([b"a", b"bc"], None, None)
    assert answer.data == [b"a", b"bc"]
    answer = q.len.get()
    assert (answer.data, answer.len, answer.size) == (None, 0, None)
    answer = q.payload_size.get()
    assert (answer.data, answer.len, answer.size) == (None, None, 0)
    assert q.inflight_ops == 0
    assert not hasattr(q, "is_empty")


def test_operations_are_done_in_the_order_they_were_begun(rocksq: ModuleType, path: str) -> None:
    q = rocksq.nonblocking.PersistentQueueWithCapacity(path, 1000, 3)
    responses = [(q.push([b"%d" % n]), q.pop(), q.len) for n in range(100)]
    assert [(push.get().data, pop.get().data, length.get().len) for push, pop, length in responses] == [
        (None, [b"%d" % n], 0) for n in range(100)
    ]
    assert q.inflight_ops == 0


def test_answers_of_the_queue_with_labels(rocksq: ModuleType, path: str) -> None:
    q = rocksq.nonblocking.MpmcQueue(path, 60, 10)

    def parts(answer: Any) -> tuple[Any, ...]:
        return answer.data, answer.labels, answer.removed_label, answer.len, answer.size

    assert parts(q.add([b"a"]).get()) == (None, None, None, None, None)
    assert parts(q.next("x", rocksq.StartPosition.Oldest).get()) == (([b"a"], False), None, None, None, None)
    assert parts(q.labels.get()) == (None, ["x"], None, None, None)
    assert parts(q.remove_label("x").get()) == (None, None, True, None, None)
    assert parts(q.len.get()) == (None, None, None, 1, None)
    assert parts(q.disk_size.get())[4] > 0
    assert q.inflight_ops == 0


def test_threads_share_a_queue(rocksq: ModuleType, path: str) -> None:
    """What RocksQ's threaded script does without end."""
    q = rocksq.blocking.PersistentQueueWithCapacity(path, 100)
    total, popped = 1000, []

    def push() -> None:
        n = 0
        while n < total:
            try:
                q.push([b"%d" % n])
                n += 1
            except RuntimeError as error:
                if "Queue is full" not in error.args[0]:
                    raise

    pusher = threading.Thread(target=push)
    pusher.start()
    while len(popped) < total:
        assert q.len <= 100
        popped += q.pop(7)
    pusher.join()
    assert popped == [b"%d" % n for n in range(total)]


# --- the stand-in's own ---


def test_pop_of_none_returns_none_of_them(path: str) -> None:
    q = ours.blocking.PersistentQueueWithCapacity(path)
    q.push([b"a"])
    assert q.pop(0) == []
    assert q.len == 1


def test_an_element_that_is_no_bytes_is_a_type_error_and_nothing_is_stored(path: str) -> None:
    q = ours.blocking.PersistentQueueWithCapacity(path)
    for item in ("a", 1, None, object()):
        with pytest.raises(TypeError):
            q.push([b"a", item])  # type: ignore[list-item]
    assert q.is_empty


def test_a_push_that_failed_says_so_through_its_response(path: str) -> None:
    q = ours.nonblocking.PersistentQueueWithCapacity(path, 1)
    responses = [q.push([b"a"]), q.push([b"b"])]
    assert responses[0].get().data is None
    with pytest.raises(RuntimeError, match=r"^Failed to push item: Queue is full$"):
        responses[1].get()
    assert q.pop(5).get().data == [b"a"]


def test_who_begins_more_than_may_be_in_flight_waits(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go, begun = threading.Event(), threading.Event()

    def slow(*_: Any) -> None:
        begun.set()
        assert go.wait(PATIENCE)

    monkeypatch.setattr(ours.blocking.PersistentQueueWithCapacity, "push", slow)
    q = ours.nonblocking.PersistentQueueWithCapacity(path, 10, 2)
    responses = [q.push([b"a"])]
    assert begun.wait(PATIENCE)
    responses += [q.push([b"b"]), q.push([b"c"])]
    assert q.inflight_ops == 2
    assert not responses[0].is_ready
    assert responses[0].try_get() is None
    fourth = threading.Thread(target=lambda: responses.append(q.push([b"d"])))
    fourth.start()
    time.sleep(0.05)
    assert len(responses) == 3
    go.set()
    fourth.join(PATIENCE)
    assert [response.get().data for response in responses] == [None] * 4


def test_what_expired_unread_is_told_once_to_each_label_also_after_a_restart(path: str) -> None:
    start = ours.StartPosition
    q = ours.blocking.MpmcQueue(path, 1)
    q.add([b"a", b"b", b"c"])
    assert q.next("told", start.Oldest) == ([b"a"], False)
    assert q.next("late", start.Oldest, 0) == ([], False)
    until(lambda: q.len == 0, PATIENCE, "all expired")
    assert q.next("told", start.Oldest) == ([], True)
    assert q.next("told", start.Oldest) == ([], False)
    assert q.next("new", start.Oldest) == ([], False)
    q.add([b"d"])
    assert q.next("told", start.Oldest, 5) == ([b"d"], False)
    del q
    q = ours.blocking.MpmcQueue(path, 60)
    q.add([b"e"])
    assert q.next("told", start.Oldest)[1] is False
    assert q.next("late", start.Oldest, 5)[1] is True
    assert q.next("late", start.Oldest, 5) == ([], False)
    q.remove_label("late")
    assert q.next("late", start.Oldest, 5)[1] is False


PUSHER = """
import sys
from segq.compat.rocksq.blocking import PersistentQueueWithCapacity
q = PersistentQueueWithCapacity(sys.argv[1], 50)
n = 0
while n < 200:
    try:
        q.push([b"%d" % n, b"%d" % (n + 1)])
        n += 2
    except RuntimeError as error:
        assert str(error) == "Failed to push item: Queue is full"
"""


def test_several_processes_share_a_queue_and_its_capacity(path: str) -> None:
    q = ours.blocking.PersistentQueueWithCapacity(path, 50)
    processes = [subprocess.Popen([sys.executable, "-c", PUSHER, path], env=environment()) for _ in range(2)]
    popped: list[bytes] = []
    most, begun = 0, time.monotonic()
    while len(popped) < 400 and time.monotonic() < begun + PATIENCE:
        most = max(most, q.len)
        popped += q.pop(5)
    assert [process.wait(PATIENCE) for process in processes] == [0, 0]
    assert sorted(popped) == sorted(b"%d" % n for n in range(200) for _ in range(2))
    assert most <= 50


def test_a_queue_of_rocksqs_own_is_not_touched(path: str) -> None:
    Path(path).mkdir()
    (Path(path) / "CURRENT").write_text("MANIFEST-000005\n")
    with pytest.raises(RuntimeError, match=r"^Failed to create persistent queue: ") as caught:
        ours.blocking.PersistentQueueWithCapacity(path)
    assert isinstance(caught.value.__cause__, segq.NotAQueueError)
    with pytest.raises(RuntimeError, match=r"^Failed to remove persistent queue: "):
        ours.remove_queue(path)
    assert (Path(path) / "CURRENT").exists()


def test_a_label_that_another_process_removed_begins_anew(path: str) -> None:
    q, other = ours.blocking.MpmcQueue(path, 60), ours.blocking.MpmcQueue(path, 60)
    q.add([b"a"])
    assert q.next("x", ours.StartPosition.Oldest) == ([b"a"], False)
    assert other.remove_label("x")
    assert q.next("x", ours.StartPosition.Oldest) == ([b"a"], False)


def test_more_labels_than_are_kept_open(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours.blocking, "_MOST_LABELS", 3)
    q = ours.blocking.MpmcQueue(path, 60)
    q.add([b"a", b"b"])
    labels = [f"label {n}" for n in range(5)]
    for expected in (b"a", b"b"):
        assert [q.next(label, ours.StartPosition.Oldest) for label in labels] == [([expected], False)] * 5
