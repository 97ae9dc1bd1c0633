"""`salvage`: what can still be read comes out, in order and as it was stored; where it comes from nothing changes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from actors import Child, segments
from test_check import everything, everything_on_disk, ledger_of

import segq
from segq._core.format.format import LedgerWord
from segq.doctor.salvage import Wreck


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """A sealed segment of a queue: 9,000 items in three blocks, one of them large, the first 10 got."""
    path = tmp_path / "queue"
    with segq.Queue(path, segment_items=30_000) as q:
        for n in range(9000):
            q.put(n if n != 5000 else "large" * 10_000)
    with segq.Queue(path) as q:
        q.get_many(10)
    (name,) = segments(str(path))
    return path / name


ITEMS = [*range(5000), "large" * 10_000, *range(5001, 9000)]


def salvaged(path: Path, out: Path, **options: Any) -> tuple[segq.Salvaged, list[Any]]:
    """What came out; fails if anything changed where it came from."""
    before = everything_on_disk(str(path))
    report = segq.salvage(path, out, **options)
    assert everything_on_disk(str(path)) == before
    found = everything(str(out))
    assert report.read == len(found)
    return report, found


def test_a_whole_segment_comes_out_without_what_was_acknowledged(segment: Path, tmp_path: Path) -> None:
    report, found = salvaged(segment, tmp_path / "out")
    assert found == ITEMS[10:]
    assert (report.read, report.skipped, report.unreadable, report.notes) == (8990, 10, 0, ())
    with segq.Queue(tmp_path / "out") as out:
        assert out.settings.segment_items == 30_000  # the settings of the queue it came from


def test_all_of_it_on_demand(segment: Path, tmp_path: Path) -> None:
    report, found = salvaged(segment, tmp_path / "out", acknowledged=True)
    assert found == ITEMS
    assert (report.read, report.skipped) == (9000, 0)


def no_current(segment: Path) -> None:
    (segment / "CURRENT").unlink()


def no_manifest(segment: Path) -> None:
    for file in segment.glob("MANIFEST-*"):
        file.write_bytes(b"nonsense" * 100)


def no_ledger(segment: Path) -> None:
    (segment / "ledger").write_bytes(b"nonsense" * 1000)


def damaged_log(segment: Path) -> None:
    (log,) = segment.glob("*.log")
    data = bytearray(log.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = b"#" * 50
    log.write_bytes(data)


def damaged_blob(segment: Path) -> None:
    data = bytearray((segment / "blob").read_bytes())
    data[100] ^= 1
    (segment / "blob").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "lost", "skipped"),
    [
        (no_current, [], 10),
        (no_manifest, [], 10),
        (no_ledger, [], 0),
        (damaged_log, ITEMS[4080:8160], 10),  # one block; what lies behind it is there, though no consumer sees it
        (damaged_blob, ITEMS[5000:5001], 10),
    ],
)
def test_what_is_left_of_a_damaged_segment_comes_out(
    segment: Path, tmp_path: Path, damage: Callable[[Path], None], lost: list[Any], skipped: int
) -> None:
    damage(segment)
    report, found = salvaged(segment, tmp_path / "out")
    assert found == [item for item in ITEMS[skipped:] if item not in lost]
    assert (report.skipped, report.unreadable) == (skipped, len(lost))
    assert bool(report.notes) == (damage != damaged_log)


def test_what_a_queue_has_set_aside_comes_out_of_its_quarantine(segment: Path, tmp_path: Path) -> None:
    damaged_log(segment)
    assert segq.check(segment.parent, fix=True).ok
    assert everything(str(segment.parent)) == ITEMS[10:4080]
    (entry,) = segq.check(segment.parent).quarantine
    report, found = salvaged(segment.parent / "quarantine" / entry.name, tmp_path / "out")
    assert found == ITEMS[8160:]  # what was delivered before it was set aside is skipped
    assert (report.skipped, report.unreadable) == (4080, 4080)
    assert salvaged(segment.parent, tmp_path / "again")[1] == ITEMS[8160:]  # the whole queue, with its quarantine


def test_a_segment_needs_nothing_else_of_its_queue(segment: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere" / "some name"
    shutil.copytree(segment, alone)
    shutil.rmtree(segment.parent)
    report, found = salvaged(alone, tmp_path / "out")
    assert found == ITEMS[10:]
    assert "serializer is not known" in report.notes[0]


def test_a_queue_that_cannot_be_opened_comes_out_in_order(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with segq.Queue(path, segment_items=100, serializer="json", capacity=1000) as q:
        q.put_many(range(100))
        q.put_many(range(100, 200))
        q.put_many([200, 201])
    with Child("q.put(202); q.put(203); say(*map(repr, q.get_many(3))); wait()\n", path) as child:
        assert child.hear() == "0 1 2"
        child.kill()
    (path / "queue.json").write_bytes(b"{")
    (path / "index").unlink()
    with pytest.raises(segq.NotAQueueError):
        segq.Queue(path)
    with pytest.raises(segq.SettingsError, match="exists"):
        segq.salvage(path, path)
    report, found = salvaged(path, tmp_path / "out", serializer="json")
    assert found == list(range(3, 204))
    assert (report.segments, report.skipped, report.unreadable) == (3, 3, 0)
    with segq.Queue(tmp_path / "out") as out:
        assert (out.settings.serializer, out.settings.capacity) == ("json", None)


def test_an_open_batch_without_its_ledger_gives_what_is_certain(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with Child("for n in range(100): q.put(n)\nsay('put'); wait()\n", path) as child:
        child.hear()
        child.kill()
    (name,) = segments(str(path))
    (path / name / "ledger").unlink()
    _, found = salvaged(path / name, tmp_path / "out")
    assert found == list(range(100))
    with Child("for n in range(9000): q.put(n)\nsay('put'); wait()\n", tmp_path / "long") as child:
        child.hear()
        child.kill()
    (name,) = segments(str(tmp_path / "long"))
    (tmp_path / "long" / name / "ledger").unlink()
    _, found = salvaged(tmp_path / "long" / name, tmp_path / "out2")
    assert found == list(range(len(found)))  # nothing that the half held in an earlier life
    assert len(found) >= 8160


def test_what_power_failure_left_beyond_the_ledger_comes_out(segment: Path, tmp_path: Path) -> None:
    ledger = ledger_of(segment)
    ledger.words[LedgerWord.EPOCH] += 1
    ledger.words[LedgerWord.SEALED] = 0
    ledger.words[LedgerWord.PUBLISHED] = 100
    loading = segment.with_name(segment.name.replace("chosen", "loading"))
    segment.rename(loading)
    assert salvaged(loading, tmp_path / "out")[1] == ITEMS[10:]


def test_an_item_set_aside_comes_out_as_it_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with segq.Queue(path, serializer="json") as q:
        q.put(1)
    with segq.Queue(path) as q:
        q._consumer._claimer._loads = lambda data: 1 / 0  # type: ignore[attr-defined]
        with pytest.raises(segq.Empty):
            q.get(timeout=0.1)
    (entry,) = segq.check(path).quarantine
    (path / "quarantine" / "some label").write_bytes(b"not an item")
    with pytest.raises(segq.NotAQueueError, match="not an item"):
        segq.salvage(path / "quarantine" / "some label", tmp_path / "out")
    for source in (path / "quarantine" / entry.name, path / "quarantine", path):
        assert [data for data, _ in Wreck(source).read()] == [b"1"]
    assert salvaged(path / "quarantine" / entry.name, tmp_path / "out")[1] == [1]


def test_of_a_topic_comes_what_some_label_still_needs(tmp_path: Path) -> None:
    path = tmp_path / "topic"
    with segq.Topic(path) as topic, topic.subscribe("a") as a, topic.subscribe("b") as b:
        topic.put_many(range(20))
        a.get_many(9)
        b.get_many(5)
    report, found = salvaged(path, tmp_path / "out")
    assert found == list(range(5, 20))
    assert report.skipped == 5
    with segq.Topic(path) as topic, topic.subscribe("c"):
        pass
    assert salvaged(path, tmp_path / "for c")[1] == list(range(5, 20))  # what was gone when c began is not its business
    shutil.rmtree(path / "labels")
    report, found = salvaged(path, tmp_path / "without labels")
    assert found == list(range(20))
    assert "labels are not known" in report.notes[0]


def test_what_expires_goes_on_expiring(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with segq.Queue(path) as q:
        q.put("for ever")
        q.put_many(["for an hour"], ttl=3600)
        q.put_many(["gone"], ttl=0.001)  # in the same segment, which therefore stays
    time.sleep(0.01)
    report, found = salvaged(path, tmp_path / "out")
    assert found == ["for ever", "for an hour"]
    assert (report.skipped, report.unreadable) == (1, 0)
    expires = [at for _, at in Wreck(path).read()]
    assert abs(expires[1] / 1000 - time.time() - 3600) < 60
    assert salvaged(path, tmp_path / "all", acknowledged=True)[1] == ["for ever", "for an hour", "gone"]


def test_a_queue_in_use_can_be_read_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with segq.Queue(path) as q:
        q.put_many(range(10))
        q.put("single")
        report = segq.salvage(path, tmp_path / "out")
        assert (report.read, report.unreadable) == (11, 0)
        assert "open" in report.notes[0]
        assert q.get_many(11) == [*range(10), "single"]


@pytest.mark.parametrize("what", ["nothing", "empty", "stranger"])
def test_what_is_not_of_segq_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "path"
    if what != "nothing":
        path.mkdir()
    if what == "stranger":
        (path / "holiday.jpg").touch()
    with pytest.raises(segq.NotAQueueError):
        segq.salvage(path, tmp_path / "out")
    assert not os.path.lexists(tmp_path / "out")


def test_out_must_be_new_and_elsewhere(segment: Path, tmp_path: Path) -> None:
    with pytest.raises(segq.SettingsError, match="within"):
        segq.salvage(segment.parent, segment.parent / "out")
    with segq.Queue(tmp_path / "other") as other:
        other.put(1)
        with pytest.raises(segq.SettingsError, match="exists"):
            segq.salvage(segment, tmp_path / "other")
        assert other.qsize() == 1
    with pytest.raises(segq.SettingsError, match="msgpack"):
        segq.salvage(segment, tmp_path / "out", serializer="json")


def test_items_are_moved_as_stored(segment: Path) -> None:
    assert [data for data, _ in Wreck(segment).read()] == [msgspec.msgpack.encode(item) for item in ITEMS[10:]]
