"""Guarantee G7: what cannot be read is set aside and reported, the rest flows, and nothing unread is deleted."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from actors import Child, segments, states

import segq


class Picky:
    """Cannot read items that begin with `bad`."""

    def dumps(self, item: bytes) -> bytes:
        return item

    def loads(self, data: bytes) -> bytes:
        if data.startswith(b"bad"):
            raise ValueError("this is bad")
        return data


def quarantined(path: str) -> list[str]:
    place = os.path.join(path, "quarantine")
    return sorted(name for name in os.listdir(place) if not name.endswith(".reason")) if os.path.isdir(place) else []


def sealed(path: str, items: list[Any], **settings: Any) -> Path:
    """A queue with one sealed segment of `items` put one by one; returns the segment's directory."""
    before = set(segments(path)) if os.path.isdir(path) else set()
    with segq.Queue(path, **settings) as q:
        q.put_many(items[: len(items) // 2])
        for item in items[len(items) // 2 :]:
            q.put(item)
    (name,) = set(segments(path)) - before
    return Path(path, name)


def flip(file: Path, at: float = 0.5) -> None:
    data = bytearray(file.read_bytes())
    begin = int(len(data) * at)
    data[begin : begin + 50] = bytes(byte ^ 0xFF for byte in data[begin : begin + 50])
    file.write_bytes(data)


def everything(q: segq.Queue, patience: float = 0.3) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            found += q.get_many(1000, timeout=patience)
        except segq.Empty:
            return found


@pytest.mark.parametrize("call", ["get", "get_many", "receive"])
def test_an_item_that_cannot_be_decoded_is_set_aside_and_the_rest_flows(queue_path: str, call: str) -> None:
    with segq.Queue(queue_path, serializer=Picky()) as q:
        q.put_many([b"1", b"bad one", b"2", b"bad two"])
        q.put(b"3")
        match call:
            case "get":
                assert [q.get(timeout=5) for _ in range(3)] == [b"1", b"2", b"3"]
            case "get_many":
                assert everything(q) == [b"1", b"2", b"3"]
            case "receive":
                for expected in (b"1", b"2", b"3"):
                    with q.receive(timeout=5) as m:
                        assert m.value == expected
        assert q.qsize() == 0
        assert q.stats().quarantined == 2
    kept = sorted(Path(queue_path, "quarantine", name).read_bytes() for name in quarantined(queue_path))
    assert kept == [b"bad one", b"bad two"]
    reasons = [path.read_text() for path in Path(queue_path, "quarantine").glob("*.reason")]
    assert all("this is bad" in reason for reason in reasons)


def test_a_queue_of_nothing_but_undecodable_items_is_empty_in_the_end(queue_path: str) -> None:
    with segq.Queue(queue_path, serializer=Picky()) as q:
        q.put_many([b"bad"] * 50)
        with pytest.raises(segq.Empty):
            q.get(timeout=0.5)
        assert q.stats().quarantined == 50


@pytest.mark.parametrize("at", [0.02, 0.5, 0.98])
def test_a_sealed_log_with_flipped_bytes_gives_what_can_be_read_and_other_segments_in_full(queue_path: str, at: float) -> None:
    items = [b"damaged %d " % n * 20 for n in range(400)]
    place = sealed(queue_path, items, serializer="raw", segment_items=400)
    (log,) = place.glob("*.log")
    flip(log, at)
    good = [b"good %d" % n for n in range(300)]
    sealed(queue_path, good)
    before = log.read_bytes()
    with segq.Queue(queue_path) as q:
        found = everything(q)
        assert [item for item in found if item.startswith(b"good")] == good
        rest = [item for item in found if not item.startswith(b"good")]
        assert rest == items[: len(rest)]
        assert len(rest) < len(items)
        assert q.qsize() == 0
        assert q.stats().quarantined == 1
    (kept,) = quarantined(queue_path)
    assert Path(queue_path, "quarantine", kept, log.name).read_bytes() == before
    assert Path(queue_path, "quarantine", f"{kept}.reason").read_text().strip()


def test_a_large_damaged_segment_does_not_hold_up_the_others(queue_path: str) -> None:
    items = [b"damaged %d" % n for n in range(15_000)]
    with segq.Queue(queue_path, serializer="raw") as q:
        for item in items:
            q.put(item)
    (log,) = Path(queue_path, segments(queue_path)[0]).glob("*.log")
    flip(log, 0.01)
    with segq.Queue(queue_path) as q:
        q.put_many([b"good"] * 40_000)  # too many to go into the same segment
    begun = time.monotonic()
    with segq.Queue(queue_path, prefetch=1) as q:
        assert everything(q, 1.0).count(b"good") == 40_000
        assert q.qsize() == 0
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("victim", ["ledger", "CURRENT", "MANIFEST-*", "*.log"])
@pytest.mark.parametrize("damage", ["deleted", "emptied", "nonsense", "directory"])
def test_a_sealed_segment_with_a_damaged_file_is_mended_or_set_aside_and_others_flow(
    queue_path: str, victim: str, damage: str
) -> None:
    items = [b"first %d" % n for n in range(20)]
    place = sealed(queue_path, items, serializer="raw", segment_items=20)
    good = [b"good %d" % n for n in range(20)]
    sealed(queue_path, good)
    (file,) = place.glob(victim)
    match damage:
        case "deleted":
            file.unlink()
        case "emptied":
            file.write_bytes(b"")
        case "nonsense":
            file.write_bytes(os.urandom(max(8192, file.stat().st_size)))
        case "directory":
            file.unlink()
            file.mkdir()
    assert not segq.check(queue_path).ok
    with segq.Queue(queue_path) as q:
        found = everything(q)
        assert [item for item in found if item in good] == good
        if victim == "ledger":
            assert sorted(found) == sorted(items + good)  # the blocks are there, and nothing had been delivered
        else:
            assert set(found) - set(good) <= set(items)
            if len(found) < 40:
                assert any(place.name.partition("_")[2] in name for name in quarantined(queue_path))
        assert q.qsize() == 0
        q.put(b"on it goes")
        assert q.get(timeout=5) == b"on it goes"


@pytest.mark.parametrize("victim", ["ledger", "CURRENT", "*.log"])
def test_check_mends_a_damaged_sealed_segment_or_sets_it_aside(queue_path: str, victim: str) -> None:
    place = sealed(queue_path, list(range(20)), segment_items=20)
    (file,) = place.glob(victim)
    file.unlink()
    report = segq.check(queue_path)
    assert not report.ok
    assert report.problems[0].what
    assert report.problems[0].remedy
    assert file.parent.exists()  # looked at only
    mended = segq.check(queue_path, fix=True)
    assert mended.ok or victim == "*.log"  # without its log it reads as an empty one, which consumers find out
    with segq.Queue(queue_path) as q:
        assert everything(q) == (list(range(20)) if victim == "ledger" else [])
    if victim != "ledger":
        assert quarantined(queue_path)


def test_a_half_consumed_segment_that_loses_its_ledger_is_delivered_again_rather_than_lost(queue_path: str) -> None:
    place = sealed(queue_path, list(range(20)), segment_items=20)
    with segq.Queue(queue_path) as q:
        assert q.get_many(5) == [0, 1, 2, 3, 4]
    (name,) = segments(queue_path)
    os.unlink(os.path.join(queue_path, name, "ledger"))
    with segq.Queue(queue_path) as q:
        assert set(everything(q)) >= set(range(5, 20))
    assert not place.exists()


def test_the_bytes_of_a_segment_that_loses_its_ledger_are_counted_again(queue_path: str) -> None:
    items = [b"x" * 10, b"y" * 100_000, b"z" * 300, b""]
    victim = sealed(queue_path, items, serializer="raw", max_bytes=1 << 20)
    (victim / "ledger").unlink()
    with segq.Queue(queue_path) as q:
        assert q.get(timeout=5) == items[0]
        assert q.stats().bytes == sum(map(len, items[1:]))
        with pytest.raises(segq.Full):
            q.put(b"w" * ((1 << 20) - 100_000), block=False)


def test_the_index_is_made_anew_when_it_is_missing_or_nonsense(queue_path: str) -> None:
    for damage in (lambda f: f.unlink(), lambda f: f.write_bytes(b"x"), lambda f: f.write_bytes(os.urandom(f.stat().st_size))):
        sealed(queue_path, [1, 2, 3], capacity=5)
        damage(Path(queue_path, "index"))
        with segq.Queue(queue_path) as q:
            assert q.qsize() == 3
            q.put_many([4, 5])
            with pytest.raises(segq.Full):
                q.put_nowait(6)
            assert everything(q) == [1, 2, 3, 4, 5]


def test_a_dead_producers_segment_with_a_damaged_ledger_or_batch_is_set_aside_and_others_flow(queue_path: str) -> None:
    for victim in ("ledger", "batch"):
        with Child("q.put('theirs'); say('put'); wait()\n", queue_path) as child:
            child.hear()
            (name,) = segments(queue_path)
            child.kill()
        Path(queue_path, name, victim).write_bytes(b"nonsense" * 2000)
        with segq.Queue(queue_path) as q:
            q.put("mine")
            assert "mine" in everything(q)
            assert q.qsize() == 0
        assert states(queue_path) == []
    assert len(quarantined(queue_path)) >= 2


def test_a_file_that_cannot_be_opened_for_a_moment_does_not_set_a_dead_producers_segment_aside(
    queue_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RocksDB tries the first file it opens twice; if that helps, it calls the options invalid (seen with EMFILE, ENOMEM)."""
    with Child("q.put_many([b'x' * 300_000, 'theirs']); q.put('last'); say('put'); wait()\n", queue_path) as child:
        child.hear()
        child.kill()
    said: list[str] = []
    real = segq._core.segment.rocksdb.Rdict

    def refusing_once(path: str, *arguments: Any, **options: Any) -> Any:
        if not said:
            said.append(path)
            raise Exception("Invalid argument: Direct I/O is not supported by the specified DB.")  # noqa: TRY002  # as rocksdict does
        return real(path, *arguments, **options)

    monkeypatch.setattr(segq._core.segment.rocksdb, "Rdict", refusing_once)
    with segq.Queue(queue_path) as q:
        assert [q.get(timeout=5) for _ in range(3)] == [b"x" * 300_000, "theirs", "last"]
    assert said
    assert quarantined(queue_path) == []


def test_an_unpublished_block_that_a_killed_producer_left_is_never_delivered(queue_path: str) -> None:
    code = "for n in range(3): q.put(b'early %d' % n)\nq.put_many([b'ghost'] * 5000)\n"
    segq.Queue(queue_path, serializer="raw").close()
    with Child(code, queue_path, failpoints="block.written=kill") as child:
        child.ends(-9)
    with segq.Queue(queue_path) as consumer, segq.Queue(queue_path) as q:
        assert segq.check(queue_path).ok
        later = [b"later %d" % n for n in range(9000)]
        q.put(later[0])
        found = consumer.get_many(3)
        for item in later[1:]:
            q.put(item)
        found += everything(consumer)
        assert [item for item in found if item.startswith(b"later")] == later
        assert sorted(found) == sorted([*later, b"early 0", b"early 1", b"early 2"])


def test_a_foreign_entry_is_reported_and_left_alone(queue_path: str) -> None:
    segq.Queue(queue_path).close()
    stranger = Path(queue_path, "holiday.jpg")
    stranger.write_text("x")
    report = segq.check(queue_path, fix=True)
    assert [problem.kind for problem in report.problems] == ["foreign"]
    assert stranger.exists()
    with segq.Queue(queue_path) as q:
        q.put(1)
        assert q.get() == 1
    stranger.unlink()


def test_an_interrupted_deletion_is_finished_by_the_next_to_open(queue_path: str) -> None:
    segq.Queue(queue_path).close()
    rest = Path(queue_path, "removed_0000000000000000001_0123456789ab")
    rest.mkdir()
    (rest / "000004.log").write_text("x")
    assert [problem.kind for problem in segq.check(queue_path).problems] == ["deletion"]
    segq.Queue(queue_path).close()
    assert not rest.exists()


def test_what_died_while_it_took_a_slot_is_cleared_away_by_the_living(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        left = Path(queue_path, "owners", "0007.new")
        left.touch()
        deadline = time.monotonic() + 10
        while left.exists():
            with pytest.raises(segq.Empty):
                q.get(timeout=0.05)
            assert time.monotonic() < deadline, "nobody clears it away"
