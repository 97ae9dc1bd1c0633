"""The public interface as a type checker sees it; checked by `mypy --strict tests/typing`, never run."""

from __future__ import annotations

import json
import os
import pickle
import queue
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, assert_type

import segq
from segq import aio, futures
from segq.compat import rocksq


class Upper:
    def dumps(self, item: Any, /) -> bytes:
        return str(item).upper().encode()

    def loads(self, data: bytes, /) -> Any:
        return data.decode()


def opening(path: str, place: Path, like: os.PathLike[str]) -> None:
    segq.Queue(path)
    segq.Queue(place, 10, 1000, "raw", "power", 5, 1, 100, 1 << 20, False)
    segq.Queue(like, serializer=Upper(), lease=0.5, allow_network_fs=True)
    segq.Queue(path, serializer=pickle)
    segq.Queue(5)  # type: ignore[arg-type]
    segq.Queue(path, capacity="many")  # type: ignore[arg-type]
    segq.Queue(path, serializer=5)  # type: ignore[arg-type]
    segq.Queue(path, serializer=json)  # type: ignore[arg-type]  # its dumps returns str
    serializer: segq.Serializer = Upper()
    segq.Queue(path, serializer=serializer)


def giving_up(q: segq.Queue, t: segq.Topic) -> None:
    segq.Queue("q", max_deliveries=5)
    segq.Queue("q", max_deliveries="5")  # type: ignore[arg-type]
    message = q.receive()
    message.nack(delay=1.5)
    message.nack(5)  # type: ignore[call-arg]  # by name only
    message.reject("reason")
    assert_type(q.dead, segq.DeadLetters)
    assert_type(t.dead, segq.DeadLetters)
    assert_type([letter.reason for letter in q.dead], list[str])
    assert_type(q.dead.find("id"), segq.DeadLetter | None)
    assert_type(q.dead.requeue(["id"], timeout=1), int)


def putting(q: segq.Queue, items: Iterable[object]) -> None:
    q.put({"a": 1})
    q.put("x", True, 1.5)
    q.put("x", block=False, timeout=None)
    q.put_nowait(None)
    q.put_many(items)
    q.put_many([1, 2], timeout=1)
    q.put("x", timeout="1")  # type: ignore[arg-type]


def getting(q: segq.Queue) -> None:
    assert_type(q.get(timeout=1), Any)
    assert_type(q.get_nowait(), Any)
    assert_type(q.get_many(5, block=False), list[Any])
    assert_type(q.peek(), list[Any])
    assert_type(q.receive(), segq.Message)
    assert_type(q.receive_many(5, True, 1.0), list[segq.Message])
    assert_type(q.purge(), int)
    with q.receive() as m:
        assert_type(m, segq.Message)
        assert_type(m.value, Any)
        assert_type(m.id, str)
        assert_type(m.enqueued_at, float)
        assert_type(m.deliveries, int)
        m.extend(5)
        m.ack()
        m.nack()


def counting(path: str) -> None:
    with segq.Queue(path) as q:
        assert_type(q, segq.Queue)
        assert_type(q.qsize(), int)
        assert_type(len(q), int)
        assert_type(q.empty(), bool)
        assert_type(q.full(), bool)
        assert_type(q.settings, segq.Settings)
        assert_type(q.path, str)
        q.task_done()
        q.join(timeout=1)
        q.shutdown(immediate=True)
        stats = q.stats()
        assert_type(stats, segq.Stats)
        assert_type(stats.items, int)
        assert_type(stats.bytes, int | None)
        assert_type(stats.owners, tuple[segq.OwnerStats, ...])
        stats.items = 5  # type: ignore[misc]


def checking(path: Path) -> None:
    report = segq.check(path, fix=True)
    assert_type(report, segq.Report)
    assert_type(report.ok, bool)
    problems: Sequence[segq.Problem] = report.problems
    assert_type(problems[0].what, str)
    assert_type(problems[0].severity, str)
    assert_type(report.quarantine, tuple[segq.Quarantined, ...])
    assert_type(segq.salvage(path, path / "out", acknowledged=True).unreadable, int)
    segq.remove(path)


def catching(q: segq.Queue) -> None:
    try:
        q.put_nowait(1)
    except segq.Full as error:
        stdlib: queue.Full = error
        assert_type(error.path, str | None)
        print(stdlib)
    except segq.StorageError as error:
        disk: OSError = error
        print(disk.errno)
    except segq.QueueError as error:
        assert_type(error.segment, str | None)


async def awaiting(path: str, items: Iterable[object]) -> None:
    async with aio.Queue(path, capacity=5) as q:
        assert_type(q, aio.Queue)
        await q.put("x", timeout=1)
        await q.put_many(items, ttl=5)
        assert_type(await q.get(), Any)
        assert_type(await q.get_many(5), list[Any])
        assert_type(await q.receive_many(5), list[segq.Message])
        assert_type(q.qsize(), int)
        assert_type(await q.stats(), segq.Stats)
        with await q.receive(timeout=1) as m:
            assert_type(m, segq.Message)
        async for message in q.messages():
            assert_type(message, segq.Message)
        await q.join()
        await q.put("x", timeout="1")  # type: ignore[arg-type]
    async with aio.Topic(path) as t, await t.subscribe("a") as s:
        assert_type(s, aio.Subscription)
        assert_type(await s.lag(), segq.Lag)
        assert_type(await t.labels(), list[str])


def beginning(path: str) -> None:
    with futures.Queue(path, capacity=5, max_in_flight=10) as q:
        assert_type(q.put(1), Future[None])
        assert_type(q.get(), Future[Any])
        assert_type(q.receive(), Future[segq.Message])
        assert_type(q.receive_many(5), Future[list[segq.Message]])
        assert_type(q.in_flight, int)


def moving_over(path: str) -> None:
    q = rocksq.blocking.PersistentQueueWithCapacity(path, 10)
    q.push([b"a"])
    assert_type(q.pop(), list[bytes])
    assert_type(rocksq.blocking.MpmcQueue(path, 60).next("a", rocksq.StartPosition.Oldest), tuple[list[bytes], bool])
    assert_type(rocksq.nonblocking.PersistentQueueWithCapacity(path).pop().get().data, list[bytes] | None)
