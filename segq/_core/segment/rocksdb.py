"""A segment's RocksDB instance: the writer, and the reader that follows a live one or opens a sealed one.

Consumers come to the reader only where `wal` cannot help.

The only module that knows rocksdict. What it relies on (each measured; the tests keep watch):

* The writer ends with the log written out, background work cancelled and the last reference dropped: under 1 ms, and the
  data is not rewritten as `close()` would. Readers replay the log.
* A reader is opened through a descriptor of the directory (`fs.Directory`), so that a rename meanwhile neither blinds it nor
  makes RocksDB create the old name again, which an open of a path that is gone would do.
* After any failed write RocksDB refuses every further one; the writer is then dropped and opened again, which recovers.
* fork: an instance must be neither used, closed nor collected in the child, so the child takes a reference to each that it
  never gives back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from rocksdict import AccessType, DBCompressionType, DBRecoveryMode, Options, Rdict, WriteOptions

from segq._core.base.errors import DamagedError, NotAQueueError, QueueError, StorageError
from segq._core.format import blocks
from segq._core.format import format as fmt
from segq._core.format.blocks import Block
from segq._core.system.fs import Directory, listing, read_file, refuse_other_than_files, shadow, storage_error

_open: dict[int, Rdict] = {}
_here = os.getpid()

# Larger than any segment, so that the data stays in the log and is never rewritten. Memory is taken as it is used.
_WRITE_BUFFER = 4 << 30
_ARENA_BLOCK = 256 << 10
_OURS = (fmt.LEDGER_FILE, fmt.BATCH_FILE, fmt.BLOB_FILE)  # in the same directory; RocksDB does not know them
# RocksDB reserves disk for the log by this much at a time (it has no other effect with one column family).
_LOG_RESERVE = 1 << 20


def _park_in_child() -> None:
    global _here  # noqa: PLW0603
    _here = os.getpid()
    for instance in _open.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(instance))
    _open.clear()


os.register_at_fork(after_in_child=_park_in_child)


def _options(*, create: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_write_buffer_size(_WRITE_BUFFER)
    options.set_arena_block_size(_ARENA_BLOCK)
    options.set_max_total_wal_size(_LOG_RESERVE)
    options.set_manifest_preallocation_size(4096)
    options.set_disable_auto_compactions(True)
    options.set_compression_type(DBCompressionType.none())
    options.set_allow_concurrent_memtable_write(False)
    options.set_max_background_jobs(1)
    options.set_max_open_files(-1)
    options.set_max_file_opening_threads(1)
    options.set_keep_log_file_num(1)
    options.set_skip_stats_update_on_db_open(True)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def _opened(path: str, options: Options, access: AccessType, *, called: str = "", writing: bool = False) -> Rdict:
    """`called`: what people know `path` as, if it is another way there."""
    refuse_other_than_files(path, _OURS)
    _refuse_endless_manifest(path)
    try:
        instance = Rdict(path, options, access_type=access)
    except FileNotFoundError:
        raise
    except Exception as error:  # rocksdict raises plain Exception for whatever RocksDB says
        raise _translated(error, called or path, reading=not writing) from error
    _open[id(instance)] = instance
    return instance


_MANIFEST_BLOCK, _MANIFEST_HEADER, _MANIFEST_TYPES = 32 << 10, 7, range(5)


def _refuse_endless_manifest(path: str) -> None:
    """Raises DamagedError where RocksDB would read a manifest for ever, holding the GIL.

    It does so at some types of records that no manifest has (such as one left over from an earlier use of the file), because it
    looks at the type before the checksum: one flipped bit is enough. What lies behind a wrong length it does not reach.
    """
    try:
        name = read_file(os.path.join(path, "CURRENT"), 100).decode("ascii", "replace").rstrip("\n")
        data = read_file(os.path.join(path, name)) if re.fullmatch(r"MANIFEST-[0-9]+", name) else b""
    except FileNotFoundError:  # RocksDB finds out
        return
    at = 0
    while at + _MANIFEST_HEADER <= len(data):
        left = _MANIFEST_BLOCK - at % _MANIFEST_BLOCK
        if left < _MANIFEST_HEADER:
            at += left
            continue
        if data[at + 6] not in _MANIFEST_TYPES:
            raise DamagedError(f"{path}: its manifest has a record of type {data[at + 6]}", path=path)
        at += _MANIFEST_HEADER + int.from_bytes(data[at + 4 : at + 6], "little")


def _drop(instance: Rdict) -> None:
    _open.pop(id(instance), None)


_ERRNO_TEXTS = {os.strerror(code): code for code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS,
                                                     errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)}  # fmt: skip


# RocksDB's words for a file that could not be opened, and could when it tried again at once: it does not say why.
_PASSED = "Direct I/O is not supported by the specified DB"

# Where a reader writes: in its scratch, and the settings that the binding (whose errors have a number) writes at each opening.
_WRITTEN = re.compile(rf"/{fmt.OWNERS_DIR}/\d+{re.escape(fmt.SCRATCH_SUFFIX)}|\(os error \d+\)")


def _translated(error: Exception, path: str, *, reading: bool) -> QueueError:
    """RocksDB's error as one of ours: the disk's (StorageError) or the data's (DamagedError).

    What a reader meets is the disk's fault only if it can pass; an I/O error would hold up the queue for ever.
    """
    text = str(error)
    if _PASSED in text:
        reason = "a file could not be opened for a moment (too many open files, or out of memory?); try again"
        return StorageError(f"{path}: {reason}", errno=errno.EAGAIN, path=path)
    for words, code in _ERRNO_TEXTS.items():
        if words in text and not (reading and code == errno.EIO and not _WRITTEN.search(text)):
            translated: QueueError = storage_error(OSError(code, words), path)
            return translated
    if re.search(r"Corruption|Invalid argument|does not exist|No such file|Not implemented", text):
        return DamagedError(f"{path}: RocksDB cannot read it: {text}", path=path)
    if reading:
        return DamagedError(f"{path}: RocksDB: {text}", path=path)
    return StorageError(f"{path}: RocksDB: {text}", errno=errno.EIO, path=path)


class Logged(NamedTuple):
    """What the blocks of a segment say of its items, from the first on.

    Items of blocks that were not written, because all of them were done, never expire and have no bytes.
    """

    expires: list[int]  # milliseconds of the epoch
    lengths: list[int]  # bytes

    @property
    def end(self) -> int:
        """The index behind the last item."""
        return len(self.lengths)


class SegmentWriter:
    """The one instance that may write to a segment; the directory keeps its name while it is open."""

    def __init__(self, path: str) -> None:
        """Creates the instance if the directory has none. Raises StorageError or DamagedError."""
        if not os.path.isdir(path):  # RocksDB would make it anew
            raise NotAQueueError(f"{path} is gone: it was removed while it was being written to", path=path)
        self._path = path
        self._process = _here
        self._instance: Rdict | None = _opened(path, _options(create=True), AccessType.read_write(), writing=True)
        self._sync = WriteOptions()
        self._sync.sync = True

    def write(self, first: int, block: bytes, *, sync: bool) -> None:
        """Stores a block, made for `first`, whole or not at all; with `sync`, on the disk itself.

        After an error, only `close` works.
        """
        if self._instance is None:
            raise StorageError(f"{self._path}: an earlier write failed", path=self._path)
        try:
            if sync:
                self._instance.put(blocks.key(first), block, write_opt=self._sync)
            else:
                self._instance[blocks.key(first)] = block
        except Exception as error:
            self.close()
            raise _translated(error, self._path, reading=False) from error

    def flushed(self) -> int:
        """The index behind the last item that is in a block."""
        return _end_of(self._live(), self._path)

    def logged(self) -> Logged:
        """Raises DamagedError or StorageError."""
        return _logged(self._live(), self._path)

    def _live(self) -> Rdict:
        if self._instance is None:
            raise StorageError(f"{self._path}: an earlier write failed", path=self._path)
        return self._instance

    def close(self, *, sync: bool = False) -> None:
        """Lets go without rewriting the data. All blocks are readable from now on, under any name."""
        instance, self._instance = self._instance, None
        if instance is None or self._process != _here:
            return
        try:
            with contextlib.suppress(Exception):  # nothing is buffered: each write went to the kernel when it was made
                instance.flush_wal(sync)
            instance.cancel_all_background(True)
        finally:
            _drop(instance)

    def __del__(self) -> None:
        if getattr(self, "_instance", None) is not None:
            self.close()


class SegmentReader:
    """Blocks of a segment, by the index of any item in them. Remembers the last one."""

    def __init__(self, path: str, scratch: str | None) -> None:
        """`scratch`: a directory for a follower of a live segment; None to open a sealed one.

        Raises FileNotFoundError if there is no such segment under this name, DamagedError or StorageError.
        """
        self._path = path
        self._process = _here
        self._follows = scratch is not None
        access = AccessType.secondary(scratch) if scratch is not None else AccessType.read_only(False)
        self._directory = Directory(path)
        try:
            self._instance: Rdict | None = _opened(self._directory.path, _options(create=False), access, called=path)
        except BaseException:
            self._directory.close()
            raise
        self._block: Block | None = None

    def block(self, index: int) -> Block | None:
        """The block that holds item `index`; None if it is not (or not yet) in this instance."""
        block = self._block
        if block is not None and block.first <= index < block.first + block.count:
            return block
        found = self._find(index)
        if found is None and self._follows and self._instance is not None:
            try:
                self._instance.try_catch_up_with_primary()
            except Exception as error:
                raise _translated(error, self._path, reading=True) from error
            found = self._find(index)
        self._block = found
        return found

    def next_block(self, index: int) -> int | None:
        """Where the first block begins that begins after item `index`; None if there is none."""
        try:
            cursor = self._live().iter()
            cursor.seek(blocks.key(index + 1))
            cursor.status()
            return int.from_bytes(cursor.key(), "big") if cursor.valid() else None
        except DamagedError:
            raise
        except Exception as error:
            raise _translated(error, self._path, reading=True) from error

    def end(self) -> int:
        """The index behind the last item that is in a block."""
        return _end_of(self._live(), self._path)

    def logged(self) -> Logged:
        """Raises DamagedError or StorageError."""
        return _logged(self._live(), self._path)

    def _live(self) -> Rdict:
        if self._instance is None:
            raise DamagedError(f"{self._path}: the reader is closed")
        return self._instance

    def _find(self, index: int) -> Block | None:
        instance = self._live()
        key = blocks.key(index)
        try:
            data: Any = instance.get(key)
            if data is None:
                cursor = instance.iter()
                cursor.seek_for_prev(key)
                cursor.status()
                if not cursor.valid():
                    return None
                key, data = cursor.key(), cursor.value()
                del cursor  # a live one would keep the instance open
        except Exception as error:
            raise _translated(error, self._path, reading=True) from error
        block = blocks.decode(key, data)
        return block if index < block.first + block.count else None

    def close(self) -> None:
        instance, self._instance, self._block = self._instance, None, None
        if instance is not None and self._process == _here:
            _drop(instance)
            del instance
            self._directory.close()

    def __del__(self) -> None:
        if getattr(self, "_instance", None) is not None:
            self.close()


_FILES = re.compile(r"CURRENT|IDENTITY|MANIFEST-\d+|OPTIONS-\d+|\d+\.(?:log|sst)")
_DATA = re.compile(r"CURRENT|MANIFEST-\d+|\d+\.(?:log|sst)")


class Blocks:
    """Every block of a segment that can be read, whoever is writing to it, without a trace in its directory.

    A read-only instance writes a file of its own beside those it reads, so it is given a directory of links to them.
    `thorough`: also what consumers do not see, since it lies behind something damaged, or because RocksDB does not open at
    all; on a copy, which RocksDB's own repair then puts together again. `trouble` is what went wrong, once all were looked at.
    """

    def __init__(self, directory: str, name: str, *, thorough: bool = False) -> None:
        """`name`: what to call the directory in messages."""
        self._directory, self._name, self._thorough = directory, name, thorough
        self._seen: set[int] = set()
        self.trouble: list[DamagedError] = []

    def __iter__(self) -> Iterator[Block]:
        """In no order that can be relied on, each once. Raises FileNotFoundError if the directory is gone."""
        names = [name for name in listing(self._directory) if _FILES.fullmatch(name)]
        if not any(_DATA.fullmatch(name) for name in names):
            return
        try:
            refuse_other_than_files(self._directory, _OURS)
        except DamagedError as error:
            self.trouble.append(error)
            return
        options = _options(create=False)
        if self._thorough:
            options.set_wal_recovery_mode(DBRecoveryMode.skip_any_corrupted_record())
        try:
            _refuse_endless_manifest(self._directory)
        except DamagedError as error:
            self.trouble.append(error)
        else:
            with shadow(self._directory, names) as place:
                yield from self._scan(place, options)
        if self._thorough and (self.trouble or not self._seen):
            with shadow(self._directory, names, copied=True) as place:
                try:
                    Rdict.repair(place, options)
                except Exception as error:
                    self.trouble.append(self._told(error, place))
                yield from self._scan(place, _options(create=False))

    def _told(self, error: Exception, place: str) -> DamagedError:
        told = _translated(Exception(str(error).replace(f"{place}/", "")), self._name, reading=True)
        if isinstance(told, DamagedError):
            return told
        raise told from error

    def _scan(self, place: str, options: Options) -> Iterator[Block]:
        try:
            instance = Rdict(place, options, access_type=AccessType.read_only(False))
        except Exception as error:
            self.trouble.append(self._told(error, place))
            return
        _open[id(instance)] = instance
        try:
            for backwards in (False, True):  # from the other side too: what is damaged may hide what is behind it
                try:
                    yield from self._run(instance, place, backwards=backwards)
                    return
                except DamagedError as error:
                    self.trouble.append(error)
        finally:
            _drop(instance)

    def _run(self, instance: Rdict, place: str, *, backwards: bool) -> Iterator[Block]:
        cursor = instance.iter()
        (cursor.seek_to_last if backwards else cursor.seek_to_first)()
        while cursor.valid():
            key, data = cursor.key(), cursor.value()
            if int.from_bytes(key, "big") not in self._seen:
                try:
                    block = blocks.decode(key, data)
                except DamagedError as error:
                    self.trouble.append(error)
                else:
                    self._seen.add(block.first)
                    yield block
            (cursor.prev if backwards else cursor.next)()
        try:
            cursor.status()
        except Exception as error:
            raise self._told(error, place) from error


def _end_of(instance: Rdict, path: str) -> int:
    try:
        cursor = instance.iter()
        cursor.seek_to_last()
        cursor.status()
        if not cursor.valid():
            return 0
        key, data = cursor.key(), cursor.value()
        del cursor
    except Exception as error:
        raise _translated(error, path, reading=True) from error
    block = blocks.decode(key, data)
    return block.first + block.count


def _logged(instance: Rdict, path: str) -> Logged:
    expires: list[int] = []
    lengths: list[int] = []
    try:
        cursor = instance.iter()
        cursor.seek_to_first()
        while cursor.valid():
            block = blocks.decode(cursor.key(), cursor.value())
            missing = block.first - len(expires)
            expires += [fmt.NEVER] * missing + blocks.expiries(block.runs, block.count)
            lengths += [0] * missing + block.lengths()
            cursor.next()
        cursor.status()
        del cursor
    except DamagedError:
        raise
    except Exception as error:
        raise _translated(error, path, reading=True) from error
    return Logged(expires, lengths)
