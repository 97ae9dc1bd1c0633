"""The stand-in for persist-queue where its own tests do not look: several processes, kills, and what was mended."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import pickle
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accounts import until

import segq
from segq.compat import persistqueue
from segq.compat.persistqueue.serializers import json as json_serializer

SERVER = multiprocessing.get_context("forkserver")  # processes of their own, that import everything only once
SERVER.set_forkserver_preload(["segq.compat.persistqueue"])


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "queue")
    if (tmp_path / "queue" / "queue.json").exists():
        report = segq.check(tmp_path / "queue")
        assert report.ok, report.problems


def drained(queue: Any) -> list[Any]:
    """Everything that can be got."""
    items = []
    while True:
        try:
            items.append(queue.get(block=False))
        except persistqueue.Empty:
            return items


# --- several processes, and kills ---

KINDS: dict[str, Callable[[str], Any]] = {
    "Queue": persistqueue.Queue,
    "Queue with a maxsize": lambda path: persistqueue.Queue(path, maxsize=40),
    "SQLiteQueue": lambda path: persistqueue.SQLiteQueue(path, durability="process"),
    "SQLiteQueue, commit by task_done": lambda path: persistqueue.SQLiteQueue(path, auto_commit=False, durability="process"),
    "PriorityQueue": lambda path: persistqueue.PriorityQueue(path, durability="process"),
    "PriorityQueue, commit by task_done": lambda path: persistqueue.PriorityQueue(
        path, auto_commit=False, durability="process"
    ),
    "FILOSQLiteQueue, commit by task_done": lambda path: persistqueue.FILOSQLiteQueue(
        path, auto_commit=False, durability="process"
    ),
    "SQLiteAckQueue": lambda path: persistqueue.SQLiteAckQueue(path, durability="process"),
    "UniqueAckQ": lambda path: persistqueue.UniqueAckQ(path, serializer=json_serializer, durability="process"),
}
EACH = 60  # items of each producer
COMES_BACK = {kind for kind in KINDS if kind.startswith(("Queue", "SQLiteAck", "UniqueAck")) or "task_done" in kind}


def produce(kind: str, path: str, name: str) -> None:
    queue = KINDS[kind](path)
    for n in range(EACH):
        queue.put(f"{name}/{n}")
    queue.close()


def consume(kind: str, path: str, report: str, die_after: int | None) -> None:
    """Reports what it got before it says that it is done. One is killed with its tenth in hand, the other waits for that."""
    queue = KINDS[kind](path)
    victim = str(Path(report).with_name("0.report"))
    until(
        lambda: die_after or (os.path.exists(victim) and Path(victim).read_text().count("\n") >= 9), 60, "the victim got nine"
    )
    descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    taken = 0
    while True:
        item = queue.get()
        taken += 1
        if taken == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(descriptor, f"{item}\n".encode())
        if isinstance(queue, persistqueue.SQLiteAckQueue):
            queue.ack(item)
        else:
            queue.task_done()


def reported(directory: Path) -> list[str]:
    return [line for file in sorted(directory.glob("*.report")) for line in file.read_text().splitlines()]


ALWAYS = ("Queue", "SQLiteQueue", "SQLiteQueue, commit by task_done", "SQLiteAckQueue")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in ALWAYS else pytest.mark.external) for k in KINDS])
def test_processes_share_it_and_a_killed_one_loses_only_what_it_had_committed_to(kind: str, path: str, tmp_path: Path) -> None:
    KINDS[kind](path).close()
    producers = [SERVER.Process(target=produce, args=(kind, path, name)) for name in "ab"]
    consumers = [
        SERVER.Process(target=consume, args=(kind, path, str(tmp_path / f"{n}.report"), die_after), daemon=True)
        for n, die_after in enumerate((10, None))
    ]
    for process in (*consumers, *producers):
        process.start()
    put = {f"{name}/{n}" for name in "ab" for n in range(EACH)}
    lost = 0 if kind in COMES_BACK else 1  # where a get is final, what a consumer is killed with is gone
    until(lambda: consumers[0].exitcode is not None and len(reported(tmp_path)) >= len(put) - lost, 60, "everything was got")
    for process in (*producers, *consumers):
        if process in consumers:
            process.kill()
        process.join()
    got = reported(tmp_path)
    assert len(got) == len(set(got)) == len(put) - lost
    assert set(got) <= put
    assert [process.exitcode for process in producers] == [0, 0]
    queue = KINDS[kind](path)
    assert drained(queue) == []
    queue.close()


def put_for_ever(path: str, told: Any) -> None:
    queue = persistqueue.SQLiteQueue(path, durability="process")
    for n in range(1_000_000):
        queue.put(n)
        told.send(n)


def test_what_was_put_into_sqlite_survives_the_kill_of_its_producer(path: str) -> None:
    hears, told = SERVER.Pipe(duplex=False)
    victim = SERVER.Process(target=put_for_ever, args=(path, told))
    victim.start()
    last = -1
    while last < 300:
        last = hears.recv()
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    while hears.poll():
        try:
            last = hears.recv()
        except EOFError:
            break
    with persistqueue.SQLiteQueue(path) as queue:
        got = drained(queue)
        assert got in (list(range(last + 1)), list(range(last + 2)))
        rows = sqlite3.connect(os.path.join(path, "data.db"))
        assert rows.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows.close()


def child_of_a_fork(queue: Any, told: Any) -> None:
    told.send((queue.get(timeout=20), queue.put("from the child")))
    told.send(queue.qsize())
    os._exit(0)


@pytest.mark.filterwarnings(
    "ignore:.*fork.*:DeprecationWarning"
)  # of a process with threads, since Python 3.12: that is the point
@pytest.mark.parametrize("kind", ["Queue", "SQLiteQueue", "SQLiteAckQueue", "PriorityQueue"])
def test_an_open_queue_may_be_carried_over_a_fork_and_pickled(kind: str, path: str) -> None:
    queue = KINDS[kind](path)
    queue.put("first")
    queue.put("second")
    assert queue.get() == "first"
    hears, told = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=child_of_a_fork, args=(queue, told))
    child.start()
    assert hears.recv()[0] == "second"
    assert hears.recv() == 1
    child.join()
    assert queue.get() == "from the child"
    twin = pickle.loads(pickle.dumps(queue))
    queue.put("third")
    until(lambda: twin.qsize() >= 1, 20, "the twin sees it")  # beside what the child had in hand when it ended
    assert "third" in drained(twin)
    twin.close()
    queue.close()


# --- what was mended ---


def test_another_process_that_opens_an_ack_queue_leaves_work_in_progress_alone(path: str) -> None:
    first = persistqueue.SQLiteAckQueue(path)
    first.put("a")
    first.put("b")
    assert first.get() == "a"
    with persistqueue.SQLiteAckQueue(path) as second:
        assert (second.unack_count(), second.ready_count()) == (1, 0)
        second.resume_unack_tasks()
        assert drained(second) == ["b"]
        with pytest.raises(persistqueue.Empty):
            second.get(block=False, id=1)
        first.close()
        until(lambda: drained(second) == ["a"], 20, "the closed one's came back")


def test_ack_queues_in_memory_resume_their_own(path: str) -> None:
    queue = persistqueue.SQLiteAckQueue(":memory:")
    queue.put("a")
    assert queue.get() == "a"
    queue.resume_unack_tasks()
    assert queue.get(block=False) == "a"
    assert not os.path.exists(path)


def test_equal_items_in_hand_are_acknowledged_one_by_one(path: str) -> None:
    with persistqueue.SQLiteAckQueue(path, durability="process") as queue:
        for _ in range(3):
            queue.put("same")
        items = [queue.get() for _ in range(3)]
        assert [queue.ack(item) for item in items[:2]] == [1, 2] or queue.unack_count() == 1
        assert queue.unack_count() == 1
        assert queue.ack("never seen") is None
        with pytest.raises(ValueError, match="not both"):
            queue.ack("x", 5)
        with pytest.raises(ValueError, match="Specify"):
            queue.nack()


def test_clear_acked_data_without_a_limit(path: str) -> None:
    with persistqueue.SQLiteAckQueue(path, durability="process") as queue:
        for n in range(20):
            queue.put(n)
        for n in range(20):
            (queue.ack_failed if n % 2 else queue.ack)(id=queue.get(raw=True)["pqid"])
        queue.clear_acked_data(max_delete=0, keep_latest=3)
        assert (queue.acked_count(), queue.ack_failed_count()) == (3, 10)
        queue.clear_acked_data(keep_latest=0, clear_ack_failed=True)
        assert queue.queue() == []


def test_the_size_is_that_of_all_processes_and_a_waiting_get_sees_what_others_put(path: str) -> None:
    with persistqueue.SQLiteQueue(path) as one, persistqueue.SQLiteQueue(path) as other:
        assert (len(one), len(other)) == (0, 0)
        one.put(1)
        other.put(2)
        assert (one.size, other.total, one.empty()) == (2, 2, False)
        assert [other.get(), other.get()] == [1, 2]
        assert one.size == 0
        got: list[Any] = []
        waiting = threading.Thread(target=lambda: got.append(one.get(timeout=20)))
        waiting.start()
        other.put(3)
        waiting.join()
        assert got == [3]
        with pytest.raises(persistqueue.Empty):
            one.get(timeout=0.01)


def test_the_priority_queue_deletes_what_was_got_and_nothing_else(path: str) -> None:
    with persistqueue.PriorityQueue(path, auto_commit=False) as queue:
        for priority in (5, 1, 3):
            queue.put(f"p{priority}", priority)
        assert queue.get() == "p1"
        queue.task_done()
        assert [item["data"] for item in queue.queue()] == ["p5", "p3"]  # persist-queue deletes all ids up to p1's
    with persistqueue.PriorityQueue(path) as queue:
        assert drained(queue) == ["p3", "p5"]


def test_what_one_thread_got_is_not_done_by_another_ones_task_done(path: str) -> None:
    with persistqueue.Queue(path) as queue:
        queue.put("mine")
        queue.put("theirs")
        thread = threading.Thread(target=queue.get)
        thread.start()
        thread.join()
        assert queue.get() == "theirs"
        queue.task_done()
        assert queue.unfinished_tasks == 1
    with persistqueue.Queue(path) as queue:
        assert drained(queue) == ["mine"]
        for _ in range(1):
            queue.task_done()


def test_an_item_that_cannot_be_read_does_not_block_the_rest(path: str) -> None:
    with persistqueue.SQLiteQueue(path) as queue, persistqueue.SQLiteAckQueue(path) as acked:
        for each in (queue, acked):
            each.put("good")
            each.put("bad")
            each.put("good")
        rows = sqlite3.connect(os.path.join(path, "data.db"))
        rows.execute("UPDATE queue_default SET data = x'00' WHERE _id = 2")
        rows.execute("UPDATE ack_queue_default SET data = x'00' WHERE _id = 2")
        rows.commit()
        assert drained(queue) == drained(acked) == ["good", "good"]
        assert rows.execute("SELECT queue, id, data FROM segq_quarantine").fetchall() == [("queue_default", 2, b"\0")]
        assert acked.ack_failed_count() == 1
        rows.close()


def test_a_filo_queue_gives_raw_items_and_unique_ones_take_block(path: str) -> None:
    with persistqueue.FILOSQLiteQueue(path) as queue:
        queue.put("a")
        assert queue.get(raw=True)["data"] == "a"
    with persistqueue.UniqueQ(path) as unique:
        assert (unique.put_nowait({"a": 1, "b": 2}), unique.put({"b": 2, "a": 1})) == (1, None)
    with pytest.raises(ValueError, match="durability"):
        persistqueue.SQLiteQueue(path, durability="none")


def test_dicts_methods_work_on_what_is_stored(path: str) -> None:
    stored = persistqueue.PDict(path, "d", durability="process")
    stored.update({"a": 1}, b=2)
    assert (stored.pop("a"), stored.pop("a", None), stored.setdefault("c", 3), stored.setdefault("b", 5)) == (1, None, 3, 2)
    other = persistqueue.PDict(path, "d")
    assert (len(other), "b" in other, bool(other), other["c"]) == (2, True, True, 3)
    other.clear()
    assert not stored
    for refused in (stored.keys, stored.popitem, stored.copy):
        with pytest.raises(NotImplementedError):
            refused()
    stored.close()
    other.close()


def test_files_of_persist_queue_itself_are_pointed_out(path: str) -> None:
    os.makedirs(path)
    Path(path, "info").write_bytes(b"")
    with pytest.raises(segq.NotAQueueError, match="segq import"):
        persistqueue.Queue(path)
    with pytest.raises(ImportError, match="no MySQLQueue"):
        persistqueue.MySQLQueue  # noqa: B018


def test_the_serializers_write_several_values_to_one_file() -> None:
    for module in (json_serializer, persistqueue.queue.pickle_serializer):
        file = io.BytesIO()
        module.dump({"b": 1, "a": 2}, file, sort_keys=True)
        module.dump("next", file)
        file.seek(0)
        assert [list(module.load(file)), module.load(file)] == [["a", "b"], "next"]


# --- asyncio ---


def test_async_queues_wait_for_other_processes_and_a_cancelled_get_loses_nothing(path: str, tmp_path: Path) -> None:
    async def scene() -> None:
        file = str(tmp_path / "async.db")
        async with (
            persistqueue.AsyncQueue(path) as queue,
            persistqueue.AsyncSQLiteQueue(file) as table,
            persistqueue.AsyncFILOSQLiteQueue(file, auto_commit=False) as filo,
            persistqueue.AsyncUniqueQ(file) as unique,
        ):
            other = persistqueue.Queue(path)
            waiting = asyncio.create_task(queue.get(timeout=20))
            await asyncio.sleep(0)
            other.put("from elsewhere")
            assert await waiting == "from elsewhere"
            await queue.task_done()
            await queue.join()
            for each in (queue, table):
                for n in range(50):
                    await each.put(n)
                got: list[Any] = []
                for n in range(200):
                    taking = asyncio.create_task(each.get())
                    for _ in range(n % 7):
                        await asyncio.sleep(0.0003)
                    taking.cancel()
                    try:
                        got.append(await taking)
                    except asyncio.CancelledError:
                        continue
                while not await each.empty():
                    got.append(await each.get(timeout=5))
                assert sorted(got) == list(range(50))
            await filo.put("a")
            await filo.put("b")
            assert await filo.get(raw=True) is not None
            await filo.task_done()
            assert await filo.get() == "a"
            assert [await unique.put(1), await unique.put(1)] == [1, None]
            with pytest.raises(persistqueue.Empty):
                await table.get(id=77)
            other.close()

    begun = time.monotonic()
    asyncio.run(scene())
    assert time.monotonic() - begun < 60
