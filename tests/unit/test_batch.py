"""The open batch: a reader sees whole items or is told that they have left, whatever the writer does meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from segq._core.format import blocks
from segq._core.format.format import HALF_BYTES, HALF_ITEMS, HALF_RUNS
from segq._core.segment.batch import BatchReader, BatchWriter
from segq._core.system.mapped import MappedFile


def append(batch: BatchWriter, items: list[bytes]) -> int:
    """What the producer does: payload, ends, count. Returns the index behind the last item."""
    start = batch.end
    data = b"".join(items)
    batch.payload[start : start + len(data)] = data
    for item in items:
        batch.end += len(item)
        batch.ends[batch.count] = batch.end
        batch.count += 1
    return batch.first + batch.count


def item(index: int) -> bytes:
    """An item that says which it is, of a length that differs."""
    return b"%d:" % index + bytes([index % 251]) * (index * 7 % 97)


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "batch")


def test_items_are_read_from_any_to_any(place: str) -> None:
    batch = BatchWriter(place, 100)
    batch.begin_run(5)
    published = append(batch, [item(i) for i in range(100, 150)])
    reader = BatchReader(place)
    for begin, end in ((100, 150), (100, 101), (149, 150), (120, 130)):
        found = reader.read(begin, end, published)
        assert found is not None
        assert found[0] == [item(i) for i in range(begin, end)]


def test_what_is_not_published_or_before_the_batch_is_not_there(place: str) -> None:
    batch = BatchWriter(place, 100)
    append(batch, [b"a", b"b", b"c"])
    reader = BatchReader(place)
    assert reader.read(99, 100, 103) is None
    assert reader.read(103, 104, 103) is None
    found = reader.read(101, 110, 102)
    assert found is not None
    assert found[0] == [b"b"]


def test_empty_items_are_items(place: str) -> None:
    batch = BatchWriter(place, 0)
    published = append(batch, [b"", b"", b"x", b""])
    found = BatchReader(place).read(0, 4, published)
    assert found is not None
    assert found[0] == [b"", b"", b"x", b""]


def test_a_half_that_was_turned_away_from_stays_readable_until_the_next_turn(place: str) -> None:
    batch = BatchWriter(place, 0)
    reader = BatchReader(place)
    published = append(batch, [b"old"])
    batch.close_half()
    batch.turn(published)
    published = append(batch, [b"new"])
    assert [reader.read(i, i + 1, published)[0] for i in (0, 1)] == [[b"old"], [b"new"]]  # type: ignore[index]
    batch.close_half()
    batch.turn(published)
    published = append(batch, [b"newest"])
    assert reader.read(0, 1, published) is None
    assert [reader.read(i, i + 1, published)[0] for i in (1, 2)] == [[b"new"], [b"newest"]]  # type: ignore[index]


def test_a_closed_half_does_not_reach_into_what_was_published_after_it(place: str) -> None:
    batch = BatchWriter(place, 0)
    published = append(batch, [b"a", b"b"])
    batch.close_half()
    reader = BatchReader(place)
    assert reader.read(2, 5, published + 3) is None  # those three went to RocksDB directly
    found = reader.read(0, 5, published + 3)
    assert found is not None
    assert found[0] == [b"a", b"b"]


def test_a_full_half_says_so_for_runs(place: str) -> None:
    batch = BatchWriter(place, 0)
    for i in range(HALF_RUNS):
        assert batch.begin_run(i)
        append(batch, [b"x"])
    assert not batch.begin_run(HALF_RUNS)


def test_what_a_writer_gathered_is_the_block_that_it_writes_and_the_one_a_rescuer_finds(place: str) -> None:
    batch = BatchWriter(place, 10)
    batch.begin_run(77)
    items = [item(i) for i in range(10, 60)]
    published = append(batch, items)
    reader = BatchReader(place)
    found = reader.unflushed(10, published - 5, same_boot=True)  # killed between the copy and the ledger's word
    assert blocks.decode(blocks.key(10), found[0][2]).items(10, 55) == items[:-5]
    as_rescuers_find_it = reader.unflushed(10, published, same_boot=True)
    batch.close_half()
    block = batch.block()
    assert blocks.decode(blocks.key(10), block).items(10, 60) == items
    assert as_rescuers_find_it == reader.unflushed(10, published, same_boot=True) == [(10, 60, block)]
    assert reader.has_unsettled_items(published)
    assert reader.unflushed(60, published, same_boot=True) == []  # killed after the write, before it was noted
    assert reader.unflushed(60, published, same_boot=False) == []
    batch.settle()
    assert not reader.has_unsettled_items(published)
    assert reader.unflushed(10, published, same_boot=True) == []


def test_both_halves_may_be_in_no_block_yet(place: str) -> None:
    batch = BatchWriter(place, 0)
    published = append(batch, [b"waits"])
    batch.close_half()
    batch.turn(published)
    published = append(batch, [b"open"])
    reader = BatchReader(place)
    for same_boot in (True, False):
        pieces = reader.unflushed(0, published, same_boot=same_boot)
        assert [blocks.decode(blocks.key(first), block).items(first, stop) for first, stop, block in pieces] == [
            [b"waits"],
            [b"open"],
        ]
    assert [(first, stop) for first, stop, _ in reader.unflushed(1, published, same_boot=True)] == [(1, 2)]


def test_a_half_filled_to_the_last_byte_and_the_last_item_is_read_whole(place: str) -> None:
    batch = BatchWriter(place, 0)
    size = HALF_BYTES // HALF_ITEMS
    items = [bytes([i % 256]) * size for i in range(HALF_ITEMS - 1)]
    items.append(b"z" * (HALF_BYTES - size * (HALF_ITEMS - 1)))
    published = append(batch, items)
    assert (batch.count, batch.end) == (HALF_ITEMS, HALF_BYTES)
    found = BatchReader(place).read(0, HALF_ITEMS, published)
    assert found is not None
    assert found[0] == items
    assert BatchReader(place).read(HALF_ITEMS, HALF_ITEMS + 1, published + 1) is None


def test_a_batch_is_found_only_while_it_is_there(place: str) -> None:
    with pytest.raises(FileNotFoundError):
        BatchReader(place)


def _write_for_ever(path: str, tell: Callable[[int], None]) -> None:
    batch = BatchWriter(path, 0)
    index = 0
    while True:
        if batch.count + 50 > HALF_ITEMS or batch.end + 50 * 120 > HALF_BYTES // 8:  # turn often
            batch.close_half()
            batch.turn(index)
        index = append(batch, [item(i) for i in range(index, index + 50)])
        tell(index)


def test_a_reader_racing_a_writer_in_another_process_never_sees_a_torn_item(place: str, tmp_path: Path) -> None:
    word = MappedFile.create(str(tmp_path / "published"), 4096, [(0, 4096)])
    pid = os.fork()
    if not pid:
        try:
            _write_for_ever(place, lambda index: word.words.__setitem__(0, index))
        finally:
            os._exit(1)
    try:
        while not word.words[0]:
            assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        reader = BatchReader(place)
        hits = misses = 0
        while hits < 20_000:
            published = word.words[0]
            for begin in (published - 40, published - 1200, published - 2600):
                if begin < 0:
                    continue
                found = reader.read(begin, min(begin + 30, published), published)
                if found is None:
                    misses += 1
                    continue
                hits += 1
                assert found[0] == [item(i) for i in range(begin, begin + len(found[0]))]
        assert misses  # else nothing was raced
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
