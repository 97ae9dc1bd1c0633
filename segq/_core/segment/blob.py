"""Large items: their bytes lie in the segment's `blob` file, written once with a plain write; a reference takes their place.

RocksDB would copy a large value about four times on its way to the log. Here it is one `pwrite` into the page cache, which the
death of the process does not touch, and one `pread` on the other side. The reference (offset, length, CRC-32, flags) is an item
like any other: in the open batch, then in a block. It is published after the write has returned. With durability="power" every
item goes to RocksDB's log, synced, and there is no blob.

The file is written over from its beginning once the items that lie there are done: into pages that are there already a write
takes a quarter of the time. Each pass is a *lap*, and a reference carries the number of its own. The word `reused` in the open
batch says which lap it is and up to where it has got, before a byte is written: what a consumer has read is what was meant if
that word then still says so. It can say otherwise only for items that are done, when a consumer was held up for so long that
others took over what it had claimed. Nothing that has a checksum needs the word.

Checksums: what lies in the open batch has none, large or small; it is on its way from one process to another within the page
cache. What stays long enough to be written as a block gets one: RocksDB's for the block, and ours, in the references, for the
large items (computing it for every item would take longer than writing it).
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections import deque
from collections.abc import Callable

from segq._core.base.errors import DamagedError
from segq._core.base.failpoints import ARMED, reach
from segq._core.base.settings import MAX_ITEM_BYTES
from segq._core.format import blocks
from segq._core.format import format as fmt
from segq._core.format.blocks import CHECKED, END_MASK, IS_REFERENCE, REFERENCE, VOID, Reference
from segq._core.format.format import DEAD, DONE
from segq._core.system.fs import HeldDescriptor, open_regular, shorten, storage_errors


class DamagedItem(DamagedError):
    """The bytes of one large item are gone or not what was written; its neighbours are not concerned."""


class OverwrittenItem(DamagedItem):
    """The item was done, and others lie in its place, or may."""


_LAP_SHIFT, _MOST_LAPS = 40, 1 << 24
_LAP_BYTES = 4 << 20  # a lap is at least so long; what is written over soon is in the cache still
_ALIGN = 4096  # whole pages are written over without being read first


def overwritten(reference: bytes, reused: int) -> bool:
    """Whether the bytes of an item may be another's by now; `reused`: the word, read after they were."""
    offset, _, _, flags = REFERENCE.unpack(reference)
    behind = (reused >> _LAP_SHIFT) - ((flags & ~VOID) >> 1)
    return behind != 0 and (behind != 1 or bool(offset < reused & ((1 << _LAP_SHIFT) - 1)))


class BlobWriter(HeldDescriptor):
    """The producer's side; used under its lock.

    In the current lap it has got to `_at`; the file is `size` long. Items that may not be done yet: `_live` are those of this
    lap, `_older` those of the lap before, all of which lie behind `_at`. None are older than that.
    """

    def __init__(self, segment: str) -> None:
        """Goes on behind what a resumed segment holds already, and writes over nothing then. Raises StorageError."""
        self._path = os.path.join(segment, fmt.BLOB_FILE)
        with storage_errors(self._path):
            super().__init__(open_regular(self._path, os.O_RDWR | os.O_CREAT))
        self.size = self._at = os.fstat(self.descriptor).st_size
        self._laps = 1 if self.size else _MOST_LAPS
        self._lap = self._reused = 0
        self._live: deque[tuple[int, int]] = deque()  # (index, offset)
        self._older: deque[tuple[int, int]] = deque()

    def write(self, index: int, data: bytes, done: Callable[[int], bool], reuse: Callable[[int], None]) -> Reference:
        """Stores `data` whole, for item `index`, or raises StorageError and leaves nothing.

        `done`: whether nobody will ever want to read an item; `reuse`: publishes how far the file is being written over.
        """
        place = self._place(len(data), done)
        stop = place + len(data)
        if self._lap and place < self.size:
            self._reused = max(self._reused, stop)
            reuse(self._lap << _LAP_SHIFT | self._reused)
            if ARMED:
                reach("blob.reused")
        rest, at = memoryview(data), place
        with storage_errors(self._path):
            try:
                while rest:
                    written = os.pwrite(self.descriptor, rest, at)
                    rest, at = rest[written:], at + written
            except OSError:
                if stop > self.size:
                    with contextlib.suppress(OSError):
                        shorten(self.descriptor, self.size)  # on a full disk, what we could not use is others' to use
                raise
        self.size = max(self.size, stop)
        self._at = _aligned(stop)
        self._live.append((index, place))
        return Reference(REFERENCE.pack(place, len(data), 0, self._lap << 1))

    def _place(self, size: int, done: Callable[[int], bool]) -> int:
        """Where to write so many bytes: over what is done, or else behind all."""
        live, older = self._live, self._older
        for queue in (older, live):
            while queue and done(queue[0][0]):
                queue.popleft()
        if not older and self._at >= _LAP_BYTES and self._lap + 1 < self._laps:
            free = live[0][1] if live else self._at
            if free >= max(size, self._at // 2):
                self._live, self._older = older, live
                self._lap, self._at, self._reused = self._lap + 1, 0, 0
                older = live
        if older and self._at + size > older[0][1]:
            return _aligned(self.size)
        return self._at


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


def with_checksums(
    first: int, data: bytes, segment: str, states: bytes | memoryview = b"", reused: Callable[[], int] | None = None
) -> bytes:
    """The block `data`, about to be written, with checksums in its references, or with a word that their items are done.

    `states` and `reused`, if given, tell which those are. What cannot be read just now gets neither: its reader will find out.
    """
    if not blocks.has_references(data):
        return data
    block = blocks.decode(blocks.key(first), data)
    changed, start = bytearray(data), len(data) - len(block.payload)
    begin = start
    reader: BlobReader | None = None
    for i, end in enumerate(block.ends, first):
        stop = start + (end & END_MASK)
        if end & IS_REFERENCE and stop - begin == REFERENCE.size:
            done = states[i : i + 1] in (DONE, DEAD)
            try:
                if not done:
                    reader = reader or BlobReader(segment)
                    changed[begin:stop] = reader.checked(data[begin:stop], reused)
            except OverwrittenItem:
                done = True
            except (DamagedItem, FileNotFoundError):
                pass
            if done:
                offset, length, _, flags = REFERENCE.unpack(data[begin:stop])
                changed[begin:stop] = REFERENCE.pack(offset, length, 0, flags & ~CHECKED | VOID)
        begin = stop
    if reader is not None:
        reader.close()
    return blocks.patched(first, changed)


class BlobReader(HeldDescriptor):
    """A consumer's side. Holds the file open, so that it can be read under whatever name the segment has."""

    def __init__(self, segment: str) -> None:
        """Raises FileNotFoundError, DamagedError or StorageError."""
        self._path = os.path.join(segment, fmt.BLOB_FILE)
        with storage_errors(self._path):
            super().__init__(open_regular(self._path, os.O_RDONLY))

    def read(self, reference: bytes, reused: Callable[[], int] | None = None) -> bytes:
        """Raises DamagedError unless every byte is as it was written.

        `reused`: the word in the open batch, for a reference from there.
        """
        if len(reference) != REFERENCE.size:
            raise DamagedItem(f"{self._path}: a reference of {len(reference)} bytes")
        offset, length, checksum, flags = REFERENCE.unpack(reference)
        if flags & VOID:
            raise OverwrittenItem(f"{self._path}: the item at {offset} of {length} bytes was done when its block was written")
        size = os.fstat(self.descriptor).st_size
        if offset + length > size or length > MAX_ITEM_BYTES:
            raise DamagedItem(f"{self._path} ends at {size}, before an item at {offset} of {length} bytes")
        try:
            data = os.pread(self.descriptor, length, offset)
        except OSError as error:
            raise DamagedItem(f"{self._path}: the item at {offset} cannot be read: {error.strerror}") from error
        if len(data) != length or (flags & CHECKED and zlib.crc32(data) != checksum):
            raise DamagedItem(f"{self._path}: the item at {offset} of {length} bytes is not what was written")
        if not flags & CHECKED and reused is not None and overwritten(reference, reused()):
            raise OverwrittenItem(f"{self._path}: the item at {offset} of {length} bytes was done, and others lie there")
        return data

    def checked(self, reference: bytes, reused: Callable[[], int] | None = None) -> bytes:
        """The same reference with a checksum of what it leads to. Raises DamagedItem."""
        data = self.read(reference, reused)
        offset, length, _, flags = REFERENCE.unpack(reference)
        return REFERENCE.pack(offset, length, zlib.crc32(data), flags | CHECKED)
