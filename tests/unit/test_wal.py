"""The short cut to a segment's blocks: what it finds is what RocksDB would say, and whatever is unusual it leaves to RocksDB."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import segq
from segq._core.format import blocks
from segq._core.segment.rocksdb import SegmentReader, SegmentWriter
from segq._core.segment.wal import WalReader

PAGE = 32 << 10
AROUND_A_PAGE = st.integers(0, 3).flatmap(lambda pages: st.integers(max(0, pages * PAGE - 120), pages * PAGE + 20))
SIZES = st.lists(st.one_of(st.integers(0, 100), AROUND_A_PAGE), min_size=1, max_size=12)


def written(place: Path, sizes: list[int]) -> list[int]:
    """A segment of blocks of these sizes, each of one to three items; the index of the first item of each."""
    place.mkdir()
    writer, firsts, first = SegmentWriter(str(place)), [], 0
    for n, size in enumerate(sizes):
        items = [os.urandom(size), *([b""] * (n % 3))]
        writer.write(first, blocks.encode(first, items, n), sync=False)
        firsts.append(first)
        first += len(items)
    writer.close()
    return firsts


def opened(place: Path) -> WalReader:
    reader = WalReader.open(str(place))
    assert reader is not None
    return reader


def log_of(place: Path) -> Path:
    (log,) = place.glob("*.log")
    return log


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=SIZES, data=st.data())
def test_every_block_is_found_by_any_item_in_any_order_as_rocksdb_finds_it(
    tmp_path: Path, sizes: list[int], data: st.DataObject
) -> None:
    place = tmp_path / "segment"
    shutil.rmtree(place, ignore_errors=True)
    written(place, sizes)
    reader, rocksdb = opened(place), SegmentReader(str(place), None)
    end = rocksdb.end()
    for index in data.draw(st.permutations(range(end))):
        found, expected = reader.block(index), rocksdb.block(index)
        assert found is not None
        assert expected is not None
        assert (found.first, found.payload, found.runs) == (expected.first, expected.payload, expected.runs)
    assert reader.block(end) is None
    rocksdb.close()


def test_blocks_are_found_that_are_written_after_it_was_opened(tmp_path: Path) -> None:
    place = tmp_path / "segment"
    place.mkdir()
    writer = SegmentWriter(str(place))
    reader = opened(place)
    for first in range(50):
        assert reader.block(first) is None
        writer.write(first, blocks.encode(first, [b"%d" % first * 2000], 1), sync=False)
        found = reader.block(first)
        assert found is not None
        assert found.items(first, first + 1) == [b"%d" % first * 2000]
    writer.close()


@pytest.mark.parametrize("offset", [*range(0, 60, 3), 500, PAGE + 2, PAGE + 6, PAGE + 40, 2 * PAGE - 20])
def test_a_flipped_bit_is_never_taken_for_an_item_and_hides_nothing_from_rocksdb(tmp_path: Path, offset: int) -> None:
    place = tmp_path / "segment"
    firsts = written(place, [PAGE * 2, 50, 70, 40_000])
    log = log_of(place)
    true = {first: block.payload for first in firsts if (block := opened(place).block(first)) is not None}
    assert len(true) == len(firsts)
    content = bytearray(log.read_bytes())
    for bit in range(8):
        content[offset] ^= 1 << bit
        log.write_bytes(content)
        for first in reversed(firsts):
            found = opened(place).block(first)
            assert found is None or found.payload == true[first]
        content[offset] ^= 1 << bit


PIECE = st.builds(
    lambda length, kind, rest: bytes(4) + length.to_bytes(2, "little") + bytes([kind]) + rest,
    st.integers(0, 90), st.integers(0, 6), st.binary(max_size=90),
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECE | st.binary(max_size=60), max_size=12).map(b"".join), st.integers(0, 1000))
def test_any_bytes_for_a_log_are_only_ever_nothing(tmp_path: Path, content: bytes, index: int) -> None:
    (tmp_path / "000004.log").write_bytes(content)
    reader = opened(tmp_path)
    assert (reader.block(index), reader.next_block(index)) == (None, None)


def test_what_lies_behind_a_damaged_block_is_still_found(tmp_path: Path) -> None:
    place = tmp_path / "segment"
    firsts = written(place, [5000, 5000, 5000])
    content = bytearray(log_of(place).read_bytes())
    content[7000] ^= 1
    log_of(place).write_bytes(content)
    reader = opened(place)
    assert [reader.block(first) is None for first in firsts] == [False, True, False]
    assert reader.next_block(0) == firsts[2]
    assert reader.next_block(firsts[2]) is None


@pytest.mark.parametrize("left", [0, 3, 7, 100, 5100, PAGE + 3, PAGE + 100])
def test_a_log_that_was_cut_short_gives_what_is_whole(tmp_path: Path, left: int) -> None:
    place = tmp_path / "segment"
    firsts = written(place, [5000, 2 * PAGE])
    os.truncate(log_of(place), left)
    assert [opened(place).block(first) is not None for first in firsts] == [left >= 5100, False]


def test_it_leaves_to_rocksdb_what_is_not_in_one_log_alone(tmp_path: Path) -> None:
    place = tmp_path / "segment"
    written(place, [10])
    (place / "000099.log").touch()
    assert WalReader.open(str(place)) is None
    (place / "000099.log").unlink()
    (place / "000099.sst").touch()
    assert WalReader.open(str(place)) is None
    with pytest.raises(FileNotFoundError):
        WalReader.open(str(tmp_path / "gone"))


def test_a_segment_that_was_opened_again_for_writing_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "q"
    with segq.Queue(path, serializer="raw", segment_items=20_000, durability="power") as q:
        for n in range(5):
            q.put(b"%d" % n)
    with segq.Queue(path) as q:  # resumes the segment: RocksDB makes a table of the log it finds
        for n in range(5, 10):
            q.put(b"%d" % n)
        (segment,) = path.glob("loading_*")
        assert WalReader.open(str(segment)) is None
        assert q.get_many(100) == [b"%d" % n for n in range(10)]


@pytest.mark.parametrize("sealed", [True, False])
def test_a_backlog_is_read_without_opening_rocksdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool) -> None:
    items = [b"%d" % n * 50 for n in range(30_000)]
    with segq.Queue(tmp_path / "q", serializer="raw", segment_items=8_000 if sealed else 65_536) as q:
        for item in items:
            q.put(item)
        monkeypatch.setattr(SegmentReader, "__init__", None)
        assert [q.get(timeout=5) for _ in items] == items
