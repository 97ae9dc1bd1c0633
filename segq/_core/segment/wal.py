"""The write-ahead log of a segment's RocksDB instance, read without RocksDB.

A segment's blocks are all in one log file, and stay there: nothing is ever rewritten, unless an instance had to be opened again
for writing (see `segment`). To serve one block from it RocksDB reads all of it and copies each byte into memory of its own,
about 2 ms for each MiB. Here a block is found by hopping from record to record, and only its own bytes are read; the log may
be growing meanwhile.

The framing is that of LevelDB and RocksDB: pages of 32 KiB, no header of a record (checksum, length, type) across the end of
one, long records in pieces; a record is a batch of writes, ours of one. Its checksum (CRC-32C) cannot be computed in Python at
a bearable speed, so a block carries one of its own. This is a short cut and nothing rests on it: whatever looks unusual (a
table file beside the log, a record of another kind, a checksum that does not fit) is not found here, and then RocksDB is
asked, which knows what to make of it.
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_right
from typing import NamedTuple

from segq._core.base.errors import DamagedError, QueueError
from segq._core.format import blocks
from segq._core.format.blocks import Block
from segq._core.system.fs import HeldDescriptor, listing, open_regular

_PAGE, _HEADER = 32 << 10, 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_BATCH = struct.Struct("<QIBB8s")  # sequence number, writes in it, kind of the write (1: a value), length of the key, key
_LENGTH_MOST = 5  # bytes of a length, seven bits in each
_PEEK = _BATCH.size + _LENGTH_MOST + blocks.HEADER.size
_WAL, _TABLE = re.compile(r"\d+\.log"), re.compile(r"\d+\.(sst|ldb)")
_UNUSUAL = (OSError, struct.error, IndexError)  # the disk's word, or lengths that lead beyond what is there


class _Record(NamedTuple):
    """Where a block lies: its record's place in the file, the block's own within the record, and its payload's."""

    at: int
    end: int
    value: int
    payload: int
    items: int


class WalReader(HeldDescriptor):
    """Blocks by the index of any item in them, as `segment.SegmentReader` serves them. Remembers the last one."""

    __slots__ = ("_block", "_end", "_firsts", "_records")

    @classmethod
    def open(cls, segment: str) -> WalReader | None:
        """None if this is not the only place where the segment's blocks are. Raises FileNotFoundError if it is gone."""
        names = listing(segment)
        logs = [name for name in names if _WAL.fullmatch(name)]
        if len(logs) != 1 or any(_TABLE.fullmatch(name) for name in names):
            return None
        try:
            return cls(open_regular(os.path.join(segment, logs[0]), os.O_RDONLY))
        except FileNotFoundError:
            raise
        except (OSError, QueueError):
            return None

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._firsts: list[int] = []
        self._records: list[_Record] = []
        self._end = 0  # of the last record known; -1: there is no going on from it
        self._block: Block | None = None

    def block(self, index: int) -> Block | None:
        """The block that holds item `index`; None if it is not, or not whole, in this log."""
        block = self._block
        if block is not None and block.first <= index < block.first + block.count:
            return block
        try:
            place = self._place(index)
            self._block = found = self._read(place) if place >= 0 else None
        except _UNUSUAL:
            return None
        return found if found is not None and index < found.first + found.count else None

    def next_block(self, index: int) -> int | None:
        """Where the first whole block begins that begins after item `index`; None if there is none."""
        place = 0
        try:
            while place < len(self._firsts) or self._hop():
                if self._firsts[place] > index and self._read(place) is not None:
                    return self._firsts[place]
                place += 1
        except _UNUSUAL:
            pass
        return None

    def _place(self, index: int) -> int:
        """Which record it is whose block would hold item `index`; -1 if none."""
        last = len(self._records) - 1
        while (last < 0 or index >= self._firsts[last] + self._records[last].items) and self._hop():
            last += 1
        return bisect_right(self._firsts, index) - 1

    def _hop(self) -> bool:
        """Learns where the next record is; False if there is none, or not yet, or it is none of ours."""
        at = self._end
        if at < 0:
            return False
        if _PAGE - at % _PAGE < _HEADER:
            at += _PAGE - at % _PAGE
        head = os.pread(self.descriptor, _HEADER + _PEEK, at)
        length, kind = _piece(head)
        end = at + _HEADER + length
        if not kind:
            return False
        if kind not in (_WHOLE, _FIRST) or end > at - at % _PAGE + _PAGE:
            self._end = -1
            return False
        start = head[_HEADER : _HEADER + length]
        while kind not in (_WHOLE, _LAST):
            length, kind = _piece(os.pread(self.descriptor, _HEADER, end))
            if not kind:
                return False  # its writer is at it
            if kind not in (_MIDDLE, _LAST) or end % _PAGE or _HEADER + length > _PAGE:
                self._end = -1
                return False
            end += _HEADER + length
        if len(start) < _PEEK:  # the first piece is but the rest of a page
            start, _ = _parts(os.pread(self.descriptor, end - at, at), 0, _PEEK)
        _, writes, write, key_length, key = _BATCH.unpack_from(start)
        value = _BATCH.size
        while start[value] & 0x80:
            value += 1
        value += 1
        magic, version, flags, runs, count, _ = blocks.HEADER.unpack_from(start, value)
        known = (writes, write, key_length, magic, version) == (1, 1, 8, blocks.MAGIC, blocks.VERSION)
        if not known or not flags & blocks.HAS_CHECKSUM:
            self._end = -1
            return False
        self._end = end
        self._firsts.append(int.from_bytes(key, "big"))
        self._records.append(_Record(at, end, value, value + blocks.payload_at(runs, count), count))
        return True

    def _read(self, place: int) -> Block | None:
        """The block of a record, None if it is not as it was written."""
        record = self._records[place]
        data = os.pread(self.descriptor, record.end - record.at, record.at)
        head, payload = _parts(data, record.value, record.payload)
        try:
            return blocks.decode_parts(blocks.key(self._firsts[place]), head, payload, verify=True)
        except DamagedError:
            return None


def _piece(header: bytes) -> tuple[int, int]:
    """Length and type of a piece of a record; type 0 is none: nothing was written there yet."""
    if len(header) < _HEADER:
        return 0, 0
    return header[4] | header[5] << 8, header[6]


def _parts(record: bytes, begin: int, middle: int) -> tuple[bytes, bytes]:
    """What is in a record from `begin` up to `middle`, and from there on; its pieces follow each other."""
    view, at = memoryview(record), 0
    first: list[memoryview] = []
    second: list[memoryview] = []
    while at < len(record):
        length, _ = _piece(record[at : at + _HEADER])
        at += _HEADER
        piece = view[at : at + length]
        first.append(piece[max(begin, 0) : max(middle, 0)])
        second.append(piece[max(middle, 0) :])
        at, begin, middle = at + length, begin - length, middle - length
    return b"".join(first), b"".join(second)
