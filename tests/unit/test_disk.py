"""Full and read-only disks: a put that fails stores nothing and says why; when the cause is gone, all goes on by itself."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from actors import Child
from disks import fill, read_only, tmpfs

import segq


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", "24m") as place:
        yield place


def everything(q: segq.Queue) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            found += q.get_many(1000, block=False)
        except segq.Empty:
            return found


def put_until_full(q: segq.Queue, many: int, size: int) -> tuple[list[bytes], segq.StorageError]:
    """Puts until the disk refuses; returns what was stored."""
    stored: list[bytes] = []
    for n in range(1_000_000):
        items = [b"%d-%d:" % (n, k) + b"x" * size for k in range(many)]
        try:
            if many == 1:
                q.put(items[0])
            else:
                q.put_many(items)
        except segq.StorageError as error:
            return stored, error
        stored += items
    raise AssertionError("the disk is never full")


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize(("many", "size"), [(1, 20_000), (1, 300_000), (50, 3000), (2000, 200)])
def test_on_a_full_disk_puts_fail_stored_items_flow_and_puts_work_again_when_there_is_room(
    disk: Path, durability: str, many: int, size: int
) -> None:
    path = str(disk / "queue")
    settings: dict[str, Any] = {"serializer": "raw", "durability": durability, "segment_bytes": 4 << 20}
    with segq.Queue(path, **settings) as q, segq.Queue(path) as other:
        stored, error = put_until_full(q, many, size)
        assert error.errno == errno.ENOSPC
        assert "full" in str(error)
        assert len(stored) * size > 4 << 20
        assert q.qsize() == len(stored)
        again, _ = put_until_full(q, 1, size)  # what still fits is stored, and nothing else
        assert q.get_many(1) == stored[:1]
        assert everything(other) == stored[1:] + again
        q.put(b"after")
        q.put_many([b"x" * 300_000, b"last"])
        assert everything(other) == [b"after", b"x" * 300_000, b"last"]
    assert segq.check(path).ok


@pytest.mark.parametrize(("many", "size"), [(1, 100), (1, 40_000), (100, 1000), (1, 300_000)])
def test_a_disk_that_others_fill_and_free_stops_puts_only_for_that_time(disk: Path, many: int, size: int) -> None:
    path = str(disk / "queue")
    with segq.Queue(path, serializer="raw") as q:
        q.put_many([b"a", b"b"])
        q.put(b"c")
        plug = fill(disk)
        stored, error = put_until_full(q, many, size)
        assert error.errno == errno.ENOSPC
        assert q.peek(3) == [b"a", b"b", b"c"]
        plug.unlink()
        later = [b"later" + b"y" * size] * 3
        for item in later:
            q.put(item)
        q.put_many(later)
        assert everything(q) == [b"a", b"b", b"c", *stored, *later, *later]
    assert segq.check(path).ok


def test_a_handle_can_be_closed_and_another_opened_on_a_full_disk_and_nothing_is_lost(disk: Path) -> None:
    path = str(disk / "queue")
    q = segq.Queue(path, serializer="raw")
    items = [b"%d" % n * 50 for n in range(500)]
    for item in items:
        q.put(item)
    plug = fill(disk)
    with contextlib.suppress(segq.StorageError):
        q.close()
    with pytest.raises(segq.ClosedError):
        q.put(b"x")
    with contextlib.suppress(segq.StorageError):
        segq.Queue(path).close()
    plug.unlink()
    with segq.Queue(path) as again:
        assert everything(again) == items
    assert segq.check(path, fix=True).ok


def test_items_of_a_producer_that_was_killed_while_the_disk_was_full_come_when_there_is_room(disk: Path) -> None:
    path = str(disk / "queue")
    with segq.Queue(path) as q:
        with Child("for n in range(300): q.put(n)\nsay('put'); wait()\n", path) as child:
            child.hear()
            plug = fill(disk)
            child.kill()
        found = [q.get(timeout=20)]
        plug.unlink()
        while len(found) < 300:
            found.append(q.get(timeout=20))
        assert found == list(range(300))
    assert segq.check(path, fix=True).ok


def test_a_consumer_can_be_started_on_a_full_disk_and_makes_room(disk: Path) -> None:
    path = str(disk / "queue")
    with segq.Queue(path, serializer="raw") as q:
        q.put_many([b"x" * 1000] * 500)
        q.put(b"last")
    plug = fill(disk)
    with segq.Queue(path) as q:
        assert everything(q) == [b"x" * 1000] * 500 + [b"last"]
        plug.unlink()
    assert segq.check(path).ok


def test_creating_a_queue_on_a_full_disk_is_an_error_and_works_when_there_is_room(disk: Path) -> None:
    plug = fill(disk)
    path = str(disk / "queue")
    with pytest.raises(segq.StorageError) as caught:
        segq.Queue(path).put(1)
    assert caught.value.errno == errno.ENOSPC
    plug.unlink()
    with segq.Queue(path) as q:
        q.put(1)
        assert q.get() == 1


def test_a_queue_on_a_read_only_file_system_cannot_be_opened_or_made_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with segq.Queue(str(path)) as q:
        q.put(1)
    with read_only(tmp_path):
        for place in (path, tmp_path / "other"):
            with pytest.raises(segq.StorageError, match="read-only") as caught:
                segq.Queue(str(place))
            assert caught.value.errno == errno.EROFS
    with segq.Queue(str(path)) as q:
        assert q.get() == 1


def test_a_file_system_that_becomes_read_only_stops_puts_with_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with segq.Queue(str(path), segment_items=4) as q:
        q.put(1)
        with read_only(tmp_path), pytest.raises(segq.QueueError):
            for _ in range(20):
                q.put_many(range(3))
    assert segq.check(path, fix=True).ok
