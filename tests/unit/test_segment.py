"""What segq relies on in RocksDB, each fact by itself: if a new version changes one, this says which."""

from __future__ import annotations

import errno
import gc
import os
import signal
from pathlib import Path

import pytest
from actors import Child

import segq._core.segment.rocksdb
from segq._core.base.errors import DamagedError, QueueError, StorageError
from segq._core.format import blocks
from segq._core.segment.rocksdb import SegmentReader, SegmentWriter


@pytest.fixture
def place(tmp_path: Path) -> str:
    path = str(tmp_path / "loading")
    os.mkdir(path)
    return path


def scratch(place: str) -> str:
    return place + ".scratch"


def block(first: int, *items: bytes) -> bytes:
    return blocks.encode(first, items, 1)


def items_of(reader: SegmentReader, index: int) -> list[bytes] | None:
    found = reader.block(index)
    return found.items(found.first, found.first + found.count) if found else None


def test_blocks_are_found_by_any_item_in_them(place: str) -> None:
    writer = SegmentWriter(place)
    writer.write(0, block(0, b"a", b"b", b"c"), sync=False)
    writer.write(3, block(3, b"d"), sync=True)
    writer.close()
    reader = SegmentReader(place, None)
    assert [items_of(reader, i) for i in (2, 0, 3)] == [[b"a", b"b", b"c"]] * 2 + [[b"d"]]
    assert reader.block(4) is None
    assert reader.end() == 4
    reader.close()


def test_sealing_rewrites_nothing_there_is_no_sst_file_and_the_log_holds_each_byte_once(place: str) -> None:
    writer = SegmentWriter(place)
    payload = os.urandom(1 << 20)
    for first in range(8):
        writer.write(first, block(first, payload), sync=False)
    writer.close()
    files = {name: os.path.getsize(os.path.join(place, name)) for name in os.listdir(place)}
    assert not [name for name in files if name.endswith(".sst")]
    written = sum(size for name, size in files.items())
    assert 8 << 20 <= written <= 1.05 * (8 << 20)


def test_a_follower_sees_what_is_written_after_it_was_opened(place: str) -> None:
    writer = SegmentWriter(place)
    writer.write(0, block(0, b"a"), sync=False)
    reader = SegmentReader(place, scratch(place))
    assert items_of(reader, 0) == [b"a"]
    assert reader.block(1) is None
    writer.write(1, block(1, b"b", b"c"), sync=False)
    assert items_of(reader, 2) == [b"b", b"c"]
    reader.close()
    writer.close()


def test_a_follower_goes_on_following_after_the_directory_was_renamed_and_the_segment_resumed(place: str) -> None:
    writer = SegmentWriter(place)
    writer.write(0, block(0, b"a"), sync=False)
    reader = SegmentReader(place, scratch(place))
    assert items_of(reader, 0) == [b"a"]
    writer.write(1, block(1, b"b"), sync=False)
    writer.close()
    renamed = place + ".renamed"
    os.rename(place, renamed)
    assert items_of(reader, 1) == [b"b"]
    assert not os.path.exists(place)
    writer = SegmentWriter(renamed)
    writer.write(2, block(2, b"c"), sync=False)
    assert items_of(reader, 2) == [b"c"]
    assert not os.path.exists(place)
    writer.close()
    reader.close()


@pytest.mark.parametrize("live", [True, False], ids=["follower", "reader"])
def test_opening_a_reader_does_not_create_a_directory_that_is_gone(place: str, live: bool) -> None:
    os.rmdir(place)
    with pytest.raises(FileNotFoundError):
        SegmentReader(place, scratch(place) if live else None)
    assert not os.path.exists(place)


@pytest.mark.parametrize("live", [True, False], ids=["follower", "reader"])
def test_opening_a_reader_of_a_directory_without_a_database_is_refused_and_makes_none(place: str, live: bool) -> None:
    with pytest.raises(DamagedError):
        SegmentReader(place, scratch(place) if live else None)
    assert "CURRENT" not in os.listdir(place)


def test_after_a_failed_write_the_writer_refuses_and_a_new_one_goes_on(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(place)
    writer.write(0, block(0, b"a"), sync=False)

    class Failing:
        def __setitem__(self, key: bytes, value: bytes) -> None:
            raise OSError("IO error: No space left on device: While appending to file")

        def flush_wal(self, sync: bool) -> None: ...
        def cancel_all_background(self, wait: bool) -> None: ...

    really, writer._instance = writer._instance, Failing()
    with pytest.raises(StorageError, match="disk is full"):
        writer.write(1, block(1, b"b"), sync=False)
    with pytest.raises(StorageError, match="earlier write failed"):
        writer.write(1, block(1, b"b"), sync=False)
    with pytest.raises(StorageError):
        writer.flushed()
    writer.close()
    writer._instance = really
    writer.close()
    del really
    again = SegmentWriter(place)
    assert again.flushed() == 1
    again.write(1, block(1, b"c"), sync=False)
    assert again.flushed() == 2
    again.close()


def test_a_block_survives_the_death_of_its_writer_without_a_sync(place: str) -> None:
    code = (
        "from segq._core.format import blocks\nfrom segq._core.segment.rocksdb import SegmentWriter\n"
        "writer = SegmentWriter(sys.argv[1])\n"
        "writer.write(0, blocks.encode(0, [b'a', b'b'], 1), sync=False)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with Child(code, place, opens=False) as child:
        child.ends(-signal.SIGKILL)
    reader = SegmentReader(place, None)
    assert items_of(reader, 1) == [b"a", b"b"]
    reader.close()


def test_a_forked_child_that_drops_an_inherited_writer_harms_nothing(place: str) -> None:
    writer = SegmentWriter(place)
    writer.write(0, block(0, b"a"), sync=False)
    reader = SegmentReader(place, scratch(place))
    pid = os.fork()
    if not pid:
        writer.close()
        del writer, reader
        gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    writer.write(1, block(1, b"b"), sync=False)
    assert items_of(reader, 1) == [b"b"]
    reader.close()
    writer.close()
    assert not [name for name in os.listdir(place) if name.endswith(".sst")]


@pytest.mark.parametrize("missing", ["CURRENT", "MANIFEST"])
def test_a_database_with_a_file_missing_is_damaged(place: str, missing: str) -> None:
    writer = SegmentWriter(place)
    writer.write(0, block(0, b"a"), sync=False)
    writer.close()
    for name in os.listdir(place):
        if name.startswith(missing):
            os.unlink(os.path.join(place, name))
    with pytest.raises(DamagedError):
        SegmentReader(place, None)


def test_what_a_reader_cannot_open_is_named_as_people_know_it(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes by a descriptor of the directory, whose number says nothing to anybody."""
    writer = SegmentWriter(place)
    writer.write(0, block(0, b"a"), sync=False)
    writer.close()

    def refusing(*_arguments: object, **_options: object) -> None:
        raise Exception(f"IO error: While open a file: /proc/self/fd/27/CURRENT: {os.strerror(errno.EMFILE)}")  # noqa: TRY002

    monkeypatch.setattr(segq._core.segment.rocksdb, "Rdict", refusing)
    with pytest.raises(StorageError, match="ulimit") as caught:
        SegmentReader(place, None)
    assert caught.value.path == place
    assert place in str(caught.value)
    assert "/proc" not in str(caught.value)


def test_a_log_with_flipped_bytes_gives_what_is_before_them_and_nothing_false(place: str) -> None:
    writer = SegmentWriter(place)
    for first in range(20):
        writer.write(first, block(first, b"%d" % first * 500), sync=False)
    writer.close()
    (log,) = Path(place).glob("*.log")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 0xFF
    log.write_bytes(data)
    try:
        reader = SegmentReader(place, None)
    except DamagedError:
        return
    found = [items_of(reader, i) for i in range(20)]
    assert found[0] == [b"0" * 500]
    assert all(item is None or item == [b"%d" % i * 500] for i, item in enumerate(found))
    assert None in found
    reader.close()


def test_a_closed_reader_says_so(place: str) -> None:
    SegmentWriter(place).close()
    reader = SegmentReader(place, None)
    reader.close()
    reader.close()
    with pytest.raises(DamagedError, match="closed"):
        reader.end()


def test_an_error_of_the_disk_where_a_reader_writes_is_not_damage_of_the_segment() -> None:
    def told(text: str) -> QueueError:
        return segq._core.segment.rocksdb._translated(Exception(text), "/q/ready_1", reading=True)

    words = os.strerror(errno.EIO)
    assert isinstance(told(f"IO error: While appending to file: /q/owners/0001.scratch/1/LOG: {words}"), StorageError)
    assert isinstance(told(f"{words} (os error {errno.EIO})"), StorageError)  # rocksdict's settings, written at each opening
    assert isinstance(told(f"IO error: While pread offset 1 len 2: /q/ready_1/000004.log: {words}"), DamagedError)
