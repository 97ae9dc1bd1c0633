"""Large items in their own file: whole, checked, and each damaged by itself."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from actors import Child, segments
from hypothesis import given, settings
from hypothesis import strategies as st

import segq
from segq._core.base.errors import DamagedError, StorageError
from segq._core.format import blocks
from segq._core.format import format as fmt
from segq._core.format.blocks import LARGE_BYTES, Reference
from segq._core.format.format import DONE, FREE
from segq._core.segment.blob import BlobReader, BlobWriter, DamagedItem, OverwrittenItem, with_checksums


class Blob:
    """A writer, what was written by it, and which items are done."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)
        self.writer = BlobWriter(self.place)
        self.word = 0
        self.done: set[int] = set()
        self.written: list[tuple[Reference, bytes]] = []

    def reuse(self, word: int) -> None:
        self.word = word

    def write(self, data: bytes) -> Reference:
        reference = self.writer.write(len(self.written), data, self.done.__contains__, self.reuse)
        self.written.append((reference, data))
        return reference

    def read(self, reference: bytes) -> bytes:
        reader = BlobReader(self.place)
        try:
            return reader.read(reference, lambda: self.word)
        finally:
            reader.close()


def test_items_come_back_by_their_references(tmp_path: Path) -> None:
    writer = Blob(tmp_path)
    items = [os.urandom(size) for size in (0, 1, 100_000, 5)]
    references = [writer.write(item) for item in items]
    reader = BlobReader(str(tmp_path))
    assert [reader.read(reference) for reference in references] == items
    again = Blob(tmp_path)  # a resumed segment goes on behind
    more = again.write(b"more")
    assert reader.read(more) == b"more"
    assert [reader.read(reference) for reference in references] == items


def test_a_reader_goes_on_under_whatever_name_the_directory_has(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    writer = Blob(tmp_path / "old")
    reference = writer.write(b"x" * 1000)
    reader = BlobReader(str(tmp_path / "old"))
    os.rename(tmp_path / "old", tmp_path / "new")
    later = writer.write(b"y" * 1000)
    assert (reader.read(reference), reader.read(later)) == (b"x" * 1000, b"y" * 1000)


def test_a_changed_byte_or_a_cut_file_damages_the_items_concerned_only(tmp_path: Path) -> None:
    writer = Blob(tmp_path)
    fresh = BlobReader(str(tmp_path))
    references = [fresh.checked(writer.write(bytes([n]) * 1000)) for n in range(4)]  # as they are once they are in a block
    file = tmp_path / fmt.BLOB_FILE
    data = bytearray(file.read_bytes())
    data[4096 + 500] ^= 1
    file.write_bytes(data[: 3 * 4096 + 500])
    reader = BlobReader(str(tmp_path))
    assert [reader.read(references[n]) for n in (0, 2)] == [bytes([n]) * 1000 for n in (0, 2)]
    for n in (1, 3):
        with pytest.raises(DamagedItem):
            reader.read(references[n])


@given(st.binary(max_size=40))
def test_a_hostile_reference_is_damaged_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    place = tmp_path_factory.getbasetemp() / f"blob-{os.getpid()}"
    place.mkdir(exist_ok=True)
    Blob(place).write(b"x" * 100)
    with pytest.raises(DamagedError):
        BlobReader(str(place)).read(data)


def test_a_write_that_fails_gives_back_what_it_took_and_the_next_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Blob(tmp_path)
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


SIZES = st.one_of(st.sampled_from([3000, 6000, 9000]), st.integers(1, 9000))
STEPS = st.lists(st.one_of(SIZES, st.just(0.0), st.floats(0, 1)), min_size=15, max_size=60)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
def test_whatever_is_done_in_whatever_order_what_is_not_done_stays_and_what_is_done_is_itself_or_damaged(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int | float]
) -> None:
    """A number writes so many bytes, a fraction says which of the items that are not done is done next."""
    place = tmp_path_factory.mktemp("blob")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("segq._core.segment.blob._LAP_BYTES", 16_000)
        patched.setattr("segq._core.segment.blob._ALIGN", 64)
        blob = Blob(place)
        for n, step in enumerate(steps):
            if isinstance(step, int):
                blob.write(bytes([n]) * step)
            elif waiting := [i for i in range(len(blob.written)) if i not in blob.done]:
                blob.done.add(waiting[int(step * (len(waiting) - 1))])
            for i, (reference, data) in enumerate(blob.written):
                try:
                    assert blob.read(reference) == data, f"item {i} is another's"
                except DamagedItem:
                    assert i in blob.done, f"item {i} is gone"
    shutil.rmtree(place)


def test_a_file_whose_items_are_got_at_once_is_written_over_and_stays_small(tmp_path: Path) -> None:
    blob = Blob(tmp_path)
    for n in range(40):
        reference = blob.write(bytes([n]) * (1 << 20))
        assert blob.read(reference)[:1] == bytes([n])
        blob.done.add(n)
    assert blob.writer.size <= 5 << 20
    assert blob.word >> 40 == 9


def test_a_file_that_a_resumed_segment_brought_along_is_never_written_over(tmp_path: Path) -> None:
    first = Blob(tmp_path).write(b"first")
    again = Blob(tmp_path)
    for n in range(20):
        again.done.add(n)
        again.write(bytes([n]) * (1 << 20))
    assert again.word == 0
    assert again.read(first) == b"first"


def test_what_is_read_while_it_is_written_over_is_not_taken_for_what_it_was(tmp_path: Path) -> None:
    blob = Blob(tmp_path)
    old = [blob.write(b"a" * (1 << 20)) for _ in range(5)]
    blob.done |= {0, 1, 2, 3}
    reader = BlobReader(str(tmp_path))
    checked = [reader.checked(reference) for reference in old]

    def meanwhile() -> int:
        blob.write(b"b" * (1 << 20))
        return blob.word

    with pytest.raises(DamagedItem, match="others lie there"):
        reader.read(old[0], meanwhile)
    assert reader.read(old[4], meanwhile) == b"a" * (1 << 20)  # behind what is written over
    with pytest.raises(DamagedItem, match="not what was written"):
        reader.read(checked[0])
    assert reader.read(checked[4]) == b"a" * (1 << 20)


@given(st.lists(st.tuples(st.binary(max_size=30), st.booleans()), min_size=1, max_size=30), st.data())
def test_references_among_the_items_of_a_block_are_told_from_them(pairs: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    items = [Reference(item) if marked else item for item, marked in pairs]
    block = blocks.decode(blocks.key(7), blocks.encode(7, items, 1, references=True))
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


def test_large_items_that_are_got_at_once_take_no_more_disk_than_a_few_of_them(queue_path: str) -> None:
    with segq.Queue(queue_path, serializer="raw") as q:
        for n in range(100):
            q.put(bytes([n]) * (1 << 20))
            assert q.get()[:1] == bytes([n])
        (segment,) = segments(queue_path)
        assert os.stat(os.path.join(queue_path, segment, fmt.BLOB_FILE)).st_size <= 6 << 20


def test_a_consumer_that_is_held_up_until_others_have_its_items_gets_none_of_what_is_written_over_them(queue_path: str) -> None:
    late = (
        "import segq._core.segment.blob\nreally, reads = segq._core.segment.blob.BlobReader.read, []\n"
        "def read(*a):\n  reads.append(a)\n  if len(reads) == 1: say('claimed'); wait()\n  return really(*a)\n"
        "segq._core.segment.blob.BlobReader.read = read\n"
        "say(q.get(timeout=20)[:1].decode()); q.close()\n"
    )
    with segq.Queue(queue_path, serializer="raw", lease=0.5) as q:
        for _ in range(5):
            q.put(b"a" * (1 << 20))
        with Child(late, queue_path) as child:
            assert child.hear() == "claimed"
            assert [q.get(timeout=20)[:1] for _ in range(5)] == [b"a"] * 5
            for item in (b"b", b"c", b"d"):
                q.put(item * (1 << 20))
            child.go()
            assert child.hear() == "b"
            child.ends()
        assert [q.get(timeout=20)[:1] for _ in range(2)] == [b"c", b"d"]
        assert q.empty()


def test_a_block_says_of_its_large_items_which_were_done_and_leaves_alone_what_cannot_be_read_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = Blob(tmp_path)
    items = [b"small", *(blob.write(bytes([n]) * 50_000) for n in range(1, 4))]
    block = blocks.encode(0, items, 1, references=True)
    states = b"".join([DONE, DONE, FREE, FREE])
    reads = iter([None, OSError(errno.EIO, "Input/output error")])
    really = os.pread

    def failing(descriptor: int, length: int, offset: int) -> bytes:
        if error := next(reads):
            raise error
        return really(descriptor, length, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", failing)
        written = with_checksums(0, block, str(tmp_path), states)
    small, done, checked, unread = blocks.decode(blocks.key(0), written, verify=True).items(0, 4)
    assert small == b"small"
    with pytest.raises(OverwrittenItem, match="was done"):
        blob.read(done)
    for n, reference in ((2, checked), (3, unread)):
        assert blob.read(reference) == bytes([n]) * 50_000
    file = tmp_path / fmt.BLOB_FILE
    file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(DamagedItem, match="not what was written"):
        blob.read(checked)
