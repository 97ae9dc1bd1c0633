"""`segq import`: every item of another library's queue, once, however often the import is killed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from accounts import until
from cli_command import segq as segq_command

import segq
from segq import transfer
from segq.compat import persistqueue, turbo_queue
from segq.transfer import importing

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["segq.transfer", "segq.compat.persistqueue"])
PACKAGE = os.path.dirname(transfer.__file__)


def turbo_files(path: Path, *files: tuple[str, list[Any]]) -> Path:
    """As turbo-queue leaves them: a SQLite file for each batch, its state in its name."""
    path.mkdir(exist_ok=True)
    for name, events in files:
        file = sqlite3.connect(path / name)
        file.execute("CREATE TABLE logs (log_data json)")
        file.executemany("INSERT INTO logs VALUES (?)", [(json.dumps(event),) for event in events])
        file.commit()
        file.close()
    return path


def three_files(path: Path) -> Path:
    return turbo_files(
        path,
        ("ready_1700000002_b.db", [{"n": n} for n in range(1000, 2500)]),
        ("unload_1700000001_a.db_7", [{"n": n} for n in range(1000)]),
        ("load_1700000003_c.db", [{"n": n} for n in range(2500, 2600)]),
    )


def contents(queue: Path | str) -> list[Any]:
    with segq.Queue(queue, create=False) as q:
        items = q.get_many(100_000, block=False)
    assert segq.check(queue).ok
    return items


def test_the_command_brings_over_files_of_turbo_queue_in_order_and_refuses_to_do_it_twice(tmp_path: Path) -> None:
    source, queue = three_files(tmp_path / "old"), tmp_path / "new"
    before = sorted(os.listdir(source))
    command = ("import", "--from", "turbo-queue", source, queue)
    ended = segq_command(*command)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.decode() == f"2,600 items imported; {source} is as it was\n"
    assert ended.stderr == b""
    assert sorted(os.listdir(source)) == sorted([*before, "segq-imported.json"])
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]
    ended = segq_command(*command)
    assert (ended.returncode, b"was imported into" in ended.stderr) == (1, True)
    assert segq_command(*command, "--again").returncode == 0
    assert contents(queue) == [{"n": n} for n in (*range(2600), *range(2600))]
    segq.remove(queue)
    assert segq_command(*command).returncode == 0  # what was imported before is gone, so this is the first time
    assert segq_command("import", "--from", "turbo-queue", tmp_path, queue).returncode == 1


def test_the_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diskcache", None)
    (tmp_path / "cache.db").write_bytes(b"")
    with pytest.raises(transfer.SourceError, match="pip install diskcache"):
        transfer.transfer("diskcache", tmp_path, tmp_path / "queue")
    assert not (tmp_path / "queue.importing").exists()


TABLES: dict[str, tuple[Callable[[str], Any], list[Any]]] = {
    "queue_default": (persistqueue.SQLiteQueue, ["a", "b", "c"]),
    "filo_queue_default": (persistqueue.FILOSQLiteQueue, ["c", "b", "a"]),
    "unique_queue_default": (persistqueue.UniqueQ, ["a", "b", "c"]),
    "priority_queue_default": (persistqueue.PriorityQueue, ["a", "b", "c"]),
    "ack_queue_default": (persistqueue.SQLiteAckQueue, ["b", "c"]),
    "ack_filo_queue_default": (persistqueue.FILOSQLiteAckQueue, ["b", "a"]),
}


def test_tables_of_persist_queue_come_over_one_by_one_and_acknowledged_items_do_not(tmp_path: Path) -> None:
    source = str(tmp_path / "old")
    for kind, _ in TABLES.values():
        with kind(source) as queue:
            for item in "abc":
                queue.put(item)
            if isinstance(queue, persistqueue.SQLiteAckQueue):
                queue.ack(queue.get())
                queue.get()  # in somebody's hands: to be done yet
    with pytest.raises(transfer.SourceError, match="several queues"):
        transfer.transfer("persist-queue", source, tmp_path / "new")
    for number, (table, (_, expected)) in enumerate(TABLES.items()):
        options = transfer.Options(table=table)
        assert transfer.transfer("persist-queue", source, tmp_path / f"{number}", options=options).items == len(expected)
        assert contents(tmp_path / f"{number}") == expected


@pytest.mark.parametrize("item", [(1, 2), {1, 2}, {1: "a"}, float("nan")])
def test_an_item_that_would_come_out_as_another_is_refused_and_pickle_takes_it(tmp_path: Path, item: Any) -> None:
    source, queue = str(tmp_path / "old"), tmp_path / "new"
    with persistqueue.SQLiteQueue(source) as q:
        q.put("first")
        q.put(item)
    serializer = "json" if isinstance(item, dict) else None
    with pytest.raises(segq.SerializationError, match=r"item 2 .*--serializer pickle"):
        transfer.transfer("persist-queue", source, queue, serializer=serializer)
    assert not queue.exists()
    with pytest.raises(transfer.SourceError, match=r"delete .*new\.importing"):
        transfer.transfer("persist-queue", source, queue, serializer="pickle")
    segq._core.system.fs.remove_tree(f"{queue}.importing")
    transfer.transfer("persist-queue", source, queue, serializer="pickle")
    assert repr(contents(queue)) == repr(["first", item])


def test_a_source_that_changed_since_the_import_began_is_refused(tmp_path: Path) -> None:
    source, queue = three_files(tmp_path / "old"), tmp_path / "new"
    assert killed_at(300, source, queue)
    turbo_files(source, ("ready_1700000000_z.db", ["new"]))
    with pytest.raises(transfer.SourceError, match="changed since"):
        transfer.transfer("turbo-queue", source, queue)
    (source / "ready_1700000000_z.db").unlink()
    with pytest.raises(transfer.SourceError, match="is not finished"):
        transfer.transfer("turbo-queue", three_files(tmp_path / "other"), queue)
    assert transfer.transfer("turbo-queue", source, queue).items == 2600
    assert contents(queue) == [{"n": n} for n in range(2600)]


# --- kills ---


def doomed(line: int, source: str, queue: str) -> None:
    """Imports, and is killed at the `line`-th line of segq.transfer that it comes to."""
    left = line

    def count(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    importing._BATCH_ITEMS = 10  # several batches of few items
    sys.settrace(count)
    transfer.transfer("turbo-queue", source, queue)


def killed_at(line: int, source: Path, queue: Path) -> bool:
    """Whether the import was killed there; otherwise it came to its end."""
    child = SERVER.Process(target=doomed, args=(line, str(source), str(queue)))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def rehearsed(source: Path, queue: Path) -> int:
    """How many lines an import has."""
    importing._BATCH_ITEMS, usual = 10, importing._BATCH_ITEMS
    passed = 0

    def count(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal passed
        passed += event == "line"
        return count if frame.f_code.co_filename.startswith(PACKAGE) else None

    sys.settrace(count)
    try:
        transfer.transfer("turbo-queue", source, queue)
    finally:
        sys.settrace(None)
        importing._BATCH_ITEMS = usual
    return passed


def small(path: Path) -> Path:
    return turbo_files(path, ("ready_1_a.db", list(range(25))), ("ready_2_b.db", list(range(25, 37))))


def through_kills(source: Path, queue: Path, first: int, step: int) -> int:
    """Kills the import at one line after another, each time going on with what is there, until it comes to its end."""
    kills = 0
    while killed_at(first + step * kills, source, queue):
        kills += 1
        assert kills < 500
    return kills


@pytest.mark.parametrize("existing", [False, True])
def test_an_import_killed_again_and_again_brings_every_item(tmp_path: Path, existing: bool) -> None:
    source, queue = small(tmp_path / "old"), tmp_path / "new"
    if existing:
        with segq.Queue(queue, serializer="json") as q:
            q.put("there before")
    kills = through_kills(source, queue, 20, 45)
    assert kills >= 5
    found = contents(queue)
    if existing:
        assert set(found) == {"there before", *range(37)}
        assert len(found) <= 38 + kills  # one item twice for each kill, at most
    else:
        assert found == list(range(37))
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]


@pytest.mark.torture
@pytest.mark.parametrize("existing", [False, True])
def test_an_import_killed_once_at_any_line_brings_every_item(tmp_path: Path, existing: bool) -> None:
    total = rehearsed(small(tmp_path / "rehearsal"), tmp_path / "rehearsed")
    for line in range(1, total + 60, 13):
        source, queue = small(tmp_path / f"old{line}"), tmp_path / f"new{line}"
        if existing:
            segq.Queue(queue, serializer="json").close()
        killed = killed_at(line, source, queue)
        ended = not killed or (source / "segq-imported.json").exists()
        with contextlib.suppress(transfer.SourceError) if ended else contextlib.nullcontext():  # refused once it has ended
            assert transfer.transfer("turbo-queue", source, queue).items == 37
        found = contents(queue)
        assert sorted(set(found)) == list(range(37)), line
        assert len(found) <= 37 + existing, line
        assert existing or found == list(range(37)), line
        segq.remove(queue)


# --- with the libraries themselves ---


@pytest.mark.external
def test_rocksq_queues_come_over_and_are_left_as_they_were(tmp_path: Path) -> None:
    rocksq = pytest.importorskip("rocksq", reason="pip install 'segq[external]'")
    from rocksq.blocking import MpmcQueue, PersistentQueueWithCapacity

    from segq.compat.rocksq import blocking

    items = [f"{n}".encode() * 100 for n in range(3000)]
    source = PersistentQueueWithCapacity(str(tmp_path / "plain"), 10_000)
    source.push(items)
    assert source.pop(500) == items[:500]
    ended = segq_command("import", "--from", "rocksq", tmp_path / "plain", tmp_path / "q1")
    assert ended.returncode == 1
    assert b"is open in another process" in ended.stderr
    del source
    ended = segq_command("import", "--from", "rocksq", tmp_path / "plain", tmp_path / "q1")
    assert ended.returncode == 0, ended.stderr
    stand_in = blocking.PersistentQueueWithCapacity(str(tmp_path / "q1"))
    assert stand_in.pop(1) == items[500:501]
    del stand_in
    assert contents(tmp_path / "q1") == items[501:]
    source = PersistentQueueWithCapacity(str(tmp_path / "plain"), 10_000)
    assert source.len == 2500
    del source
    topic = MpmcQueue(str(tmp_path / "topic"), 3600)
    topic.add(items)
    assert len(topic.next("mail", rocksq.StartPosition.Oldest, 1200)[0]) == 1200
    del topic
    for label, expected in ((None, items), ("mail", items[1200:])):
        options = transfer.Options(table=label)
        assert transfer.transfer("rocksq", tmp_path / "topic", tmp_path / f"q-{label}", options=options).items == len(expected)
        assert contents(tmp_path / f"q-{label}") == expected


@pytest.mark.external
def test_persist_queues_file_queue_and_its_tables_come_over(tmp_path: Path) -> None:
    theirs = pytest.importorskip("persistqueue", reason="pip install 'segq[external]'")
    from persistqueue.serializers import json as their_json

    queue = theirs.Queue(str(tmp_path / "files"), chunksize=7, serializer=their_json)
    for n in range(40):
        queue.put({"n": n})
    for _ in range(10):
        queue.get()
    queue.task_done()
    assert queue.get() == {"n": 10}  # not done
    del queue
    options = transfer.Options(serializer="json")
    assert transfer.transfer("persist-queue", tmp_path / "files", tmp_path / "q1", options=options).items == 30
    assert contents(tmp_path / "q1") == [{"n": n} for n in range(10, 40)]
    assert theirs.Queue(str(tmp_path / "files"), serializer=their_json).qsize() == 30
    acked = theirs.SQLiteAckQueue(str(tmp_path / "acked"))
    for n in range(5):
        acked.put(n)
    acked.ack(acked.get())
    acked.close()
    transfer.transfer("persist-queue", tmp_path / "acked", tmp_path / "q2")
    assert contents(tmp_path / "q2") == [1, 2, 3, 4]
    with persistqueue.SQLiteAckQueue(str(tmp_path / "acked")) as ours:  # and opened as it lies there
        assert (ours.qsize(), ours.acked_count(), ours.get()) == (4, 1, 1)


TURBO_QUEUE = """
import turbo_queue
enqueue = turbo_queue.Enqueue()
enqueue.root_path, enqueue.queue_name, enqueue.max_events_per_file = ".", "old", 10
enqueue.setup_logging()
enqueue.start()
for n in range(25):
    enqueue.add({"n": n})
enqueue._close_db()  # what a clean end does; a killed one loses the batch that is not full
"""


@pytest.mark.external
def test_turbo_queues_own_files_come_over_and_its_stand_in_reads_them(tmp_path: Path) -> None:
    if importlib.util.find_spec("turbo_queue") is None:
        pytest.skip("turbo-queue is not installed: pip install 'segq[external]'")
    subprocess.run([sys.executable, "-W", "ignore", "-c", TURBO_QUEUE], cwd=tmp_path, check=True, timeout=60)
    transfer.transfer("turbo-queue", tmp_path / "old", tmp_path / "new")
    dequeue = turbo_queue.Dequeue()
    dequeue.root_path, dequeue.queue_name = str(tmp_path), "new"
    generator = dequeue.get()
    got: list[Any] = []
    until(lambda: got.extend(iter(lambda: next(generator), None)) or len(got) >= 25, 30, "all came")
    in_order = sorted(got, key=lambda event: event["n"])  # files of one second are in no order, to turbo-queue neither
    assert in_order == [{"n": n} for n in range(25)]
    dequeue.close()


@pytest.mark.external
def test_diskcache_deques_and_pushed_items_come_over(tmp_path: Path) -> None:
    diskcache = pytest.importorskip("diskcache", reason="pip install 'segq[external]'")
    diskcache.Deque(({"n": n, "x": b"x" * 50_000 * (n % 2)} for n in range(40)), directory=str(tmp_path / "deque"))
    transfer.transfer("diskcache", tmp_path / "deque", tmp_path / "q1")
    assert [item["n"] for item in contents(tmp_path / "q1")] == list(range(40))
    with diskcache.Cache(str(tmp_path / "cache")) as cache:
        cache["an entry"] = 1
        for n in range(5):
            cache.push(n, prefix="jobs")
    transfer.transfer("diskcache", tmp_path / "cache", tmp_path / "q2", options=transfer.Options(table="jobs"))
    assert contents(tmp_path / "q2") == list(range(5))
