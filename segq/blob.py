"""Large items: their bytes lie in the segment's `blob` file, written once with a plain write; a reference takes their place.

RocksDB would copy a large value about four times on its way to the log. Here it is one `pwrite` into the page cache, which the
death of the process does not touch, and one `pread` on the other side. The reference (offset, length, CRC-32) is an item like
any other: in the open batch, then in a block. It is published after the write has returned. With durability="power" every item
goes to RocksDB's log, synced, and there is no blob.

Checksums: what lies in the open batch has none, large or small; it is on its way from one process to another within the page
cache. What stays long enough to be written as a block gets one: RocksDB's for the block, and ours, in the references, for the
large items (computing it for every item would take longer than writing it).
"""

from __future__ import annotations

import contextlib
import os
import zlib

from segq import format as fmt
from segq.errors import DamagedError
from segq.format import DEAD, DONE, END_MASK, IS_REFERENCE, REFERENCE, Reference
from segq.fs import HeldDescriptor, open_regular, shorten, storage_errors
from segq.settings import MAX_ITEM_BYTES


class DamagedItem(DamagedError):
    """The bytes of one large item are gone or not what was written; its neighbours are not concerned."""


class BlobWriter(HeldDescriptor):
    """The producer's side; used under its lock."""

    def __init__(self, segment: str) -> None:
        """Goes on behind what a resumed segment holds already. Raises StorageError."""
        self._path = os.path.join(segment, fmt.BLOB_FILE)
        with storage_errors(self._path):
            super().__init__(open_regular(self._path, os.O_RDWR | os.O_CREAT))
        self.size = os.fstat(self.descriptor).st_size

    def write(self, data: bytes) -> Reference:
        """Stores `data` whole, or raises StorageError and leaves nothing."""
        rest, at = memoryview(data), self.size
        with storage_errors(self._path):
            try:
                while rest:
                    written = os.pwrite(self.descriptor, rest, at)
                    rest, at = rest[written:], at + written
            except OSError:
                with contextlib.suppress(OSError):
                    shorten(self.descriptor, self.size)  # on a full disk, what we could not use is others' to use
                raise
        reference = Reference(REFERENCE.pack(self.size, len(data), 0, 0))
        self.size = at
        return reference


def with_checksums(first: int, data: bytes, segment: str, states: memoryview) -> bytes:
    """The block `data`, about to be written, with checksums in its references to items that are not done yet."""
    if not fmt.has_references(data):
        return data
    block = fmt.decode_block(fmt.block_key(first), data)
    patched, start = bytearray(data), len(data) - len(block.payload)
    begin = start
    reader: BlobReader | None = None
    for i, end in enumerate(block.ends, first):
        stop = start + (end & END_MASK)
        if end & IS_REFERENCE and states[i : i + 1] not in (DONE, DEAD):
            with contextlib.suppress(DamagedItem, FileNotFoundError):  # its reader will find out
                reader = reader or BlobReader(segment)
                patched[begin:stop] = reader.checked(data[begin:stop])
        begin = stop
    if reader is not None:
        reader.close()
    return bytes(patched)


class BlobReader(HeldDescriptor):
    """A consumer's side. Holds the file open, so that it can be read under whatever name the segment has."""

    def __init__(self, segment: str) -> None:
        """Raises FileNotFoundError, DamagedError or StorageError."""
        self._path = os.path.join(segment, fmt.BLOB_FILE)
        with storage_errors(self._path):
            super().__init__(open_regular(self._path, os.O_RDONLY))

    def read(self, reference: bytes) -> bytes:
        """Raises DamagedError unless every byte is as it was written."""
        if len(reference) != REFERENCE.size:
            raise DamagedItem(f"{self._path}: a reference of {len(reference)} bytes")
        offset, length, checksum, checked = REFERENCE.unpack(reference)
        size = os.fstat(self.descriptor).st_size
        if offset + length > size or length > MAX_ITEM_BYTES:
            raise DamagedItem(f"{self._path} ends at {size}, before an item at {offset} of {length} bytes")
        try:
            data = os.pread(self.descriptor, length, offset)
        except OSError as error:
            raise DamagedItem(f"{self._path}: the item at {offset} cannot be read: {error.strerror}") from error
        if len(data) != length or (checked and zlib.crc32(data) != checksum):
            raise DamagedItem(f"{self._path}: the item at {offset} of {length} bytes is not what was written")
        return data

    def checked(self, reference: bytes) -> bytes:
        """The same reference with a checksum of what it leads to. Raises DamagedItem."""
        data = self.read(reference)
        return REFERENCE.pack(*REFERENCE.unpack(reference)[:2], zlib.crc32(data), 1)
