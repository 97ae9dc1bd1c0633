"""Large items in their own file: whole, checked, and each damaged by itself."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from actors import Child, segments
from hypothesis import given
from hypothesis import strategies as st

import segq
from segq import format as fmt
from segq.blob import BlobReader, BlobWriter, DamagedItem
from segq.errors import DamagedError, StorageError
from segq.format import LARGE_BYTES, Reference


def test_items_come_back_by_their_references(tmp_path: Path) -> None:
    writer = BlobWriter(str(tmp_path))
    items = [os.urandom(size) for size in (0, 1, 100_000, 5)]
    references = [writer.write(item) for item in items]
    reader = BlobReader(str(tmp_path))
    assert [reader.read(reference) for reference in references] == items
    again = BlobWriter(str(tmp_path))  # a resumed segment goes on behind
    more = again.write(b"more")
    assert reader.read(more) == b"more"
    assert [reader.read(reference) for reference in references] == items


def test_a_reader_goes_on_under_whatever_name_the_directory_has(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    writer = BlobWriter(str(tmp_path / "old"))
    reference = writer.write(b"x" * 1000)
    reader = BlobReader(str(tmp_path / "old"))
    os.rename(tmp_path / "old", tmp_path / "new")
    later = writer.write(b"y" * 1000)
    assert (reader.read(reference), reader.read(later)) == (b"x" * 1000, b"y" * 1000)


def test_a_changed_byte_or_a_cut_file_damages_the_items_concerned_only(tmp_path: Path) -> None:
    writer = BlobWriter(str(tmp_path))
    fresh = BlobReader(str(tmp_path))
    references = [fresh.checked(writer.write(bytes([n]) * 1000)) for n in range(4)]  # as they are once they are in a block
    file = tmp_path / fmt.BLOB_FILE
    data = bytearray(file.read_bytes())
    data[1500] ^= 1
    file.write_bytes(data[:3500])
    reader = BlobReader(str(tmp_path))
    assert [reader.read(references[n]) for n in (0, 2)] == [bytes([n]) * 1000 for n in (0, 2)]
    for n in (1, 3):
        with pytest.raises(DamagedItem):
            reader.read(references[n])


@given(st.binary(max_size=40))
def test_a_hostile_reference_is_damaged_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    place = tmp_path_factory.getbasetemp() / f"blob-{os.getpid()}"
    place.mkdir(exist_ok=True)
    BlobWriter(str(place)).write(b"x" * 100)
    with pytest.raises(DamagedError):
        BlobReader(str(place)).read(data)


def test_a_write_that_fails_gives_back_what_it_took_and_the_next_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = BlobWriter(str(tmp_path))
    first = writer.write(b"first")
    really = os.pwrite

    def full(descriptor: int, data: memoryview, at: int) -> int:
        if at > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(descriptor, data[:3], at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="disk is full"):
            writer.write(b"second" * 100)
    assert (tmp_path / fmt.BLOB_FILE).stat().st_size == len(b"first")
    second = writer.write(b"2nd")
    reader = BlobReader(str(tmp_path))
    assert (reader.read(first), reader.read(second)) == (b"first", b"2nd")


@given(st.lists(st.tuples(st.binary(max_size=30), st.booleans()), min_size=1, max_size=30), st.data())
def test_references_among_the_items_of_a_block_are_told_from_them(pairs: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    items = [Reference(item) if marked else item for item, marked in pairs]
    block = fmt.decode_block(fmt.block_key(7), fmt.encode_block(items, 1, references=True))
    low = data.draw(st.integers(0, len(items) - 1))
    high = data.draw(st.integers(low, len(items)))
    found = block.items(7 + low, 7 + high)
    assert [(bytes(item), type(item) is Reference) for item in found] == pairs[low:high]


def test_items_around_the_limit_go_each_its_way_in_order(queue_path: str) -> None:
    sizes = [LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 10, 300_000, 0, LARGE_BYTES + 1]
    items = [os.urandom(size) for size in sizes]
    with segq.Queue(queue_path, serializer="raw", max_bytes=10_000_000) as q:
        for item in items:
            q.put(item)
        q.put_many(items)
        q.put_many([b"small"] * 9000)
        q.put_many(items)
        assert q.stats().bytes == 3 * sum(sizes) + 5 * 9000
        assert q.peek(7) == items
        assert [q.get() for _ in items] == items
        assert q.get_many(7) == items
        assert q.get_many(9000, timeout=5) == [b"small"] * 9000
        assert [m.value for m in q.receive_many(7)] == items


def test_large_items_survive_the_death_of_their_producer(queue_path: str) -> None:
    code = "for n in range(5): q.put(bytes([n]) * 100_000)\nq.put_many([b'a', b'b' * 50_000, b'c'])\nsay('put'); wait()\n"
    segq.Queue(queue_path, serializer="raw").close()
    with Child(code, queue_path) as child:
        child.hear()
        child.kill()
    with segq.Queue(queue_path) as q:
        expected = [bytes([n]) * 100_000 for n in range(5)] + [b"a", b"b" * 50_000, b"c"]
        assert [q.get(timeout=20) for _ in expected] == expected


def test_a_producer_killed_before_a_large_item_is_published_leaves_no_trace_of_it(queue_path: str) -> None:
    segq.Queue(queue_path, serializer="raw").close()
    with Child("q.put(b'a' * 50_000)\nq.put(b'b' * 50_000)\n", queue_path, failpoints="blob.written=kill:2") as child:
        child.ends(-9)
    with segq.Queue(queue_path) as q:
        q.put(b"c" * 50_000)
        assert sorted(q.get(timeout=20)[:1] for _ in range(2)) == [b"a", b"c"]
        assert q.empty()
        assert q.stats().quarantined == 0


@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_a_damaged_blob_costs_its_own_items_and_no_others(queue_path: str, damage: str) -> None:
    items = [b"small 1", b"L" * 50_000, b"small 2", b"M" * 50_000, b"small 3"]
    with segq.Queue(queue_path, serializer="raw") as q:
        for item in items:
            q.put(item)
    (name,) = segments(queue_path)
    file = Path(queue_path, name, fmt.BLOB_FILE)
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:60_000])
        case "gone":
            file.unlink()
        case "changed":
            data = bytearray(file.read_bytes())
            data[70_000] ^= 1
            file.write_bytes(data)
    with segq.Queue(queue_path) as q:
        found: list[bytes] = []
        while True:
            try:
                found.append(q.get(timeout=0.3))
            except segq.Empty:
                break
        assert found == [item for item in items if len(item) < 100 or (item[:1] == b"L" and damage != "gone")]
        assert q.qsize() == 0
        assert q.stats().quarantined == 1
