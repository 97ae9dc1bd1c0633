"""What lies in one segment's directory, read without changing anything there: for `check` and `salvage`.

A consumer reads what it has claimed; here all is read, claimed or not, while its owner may go on writing, or from what a
crash, a power failure or a bad disk has left. The directory is held open, so that it does not matter what it is called by now.

Order: the open batch is copied first and the blocks are read after, so what leaves the batch in between is found in a block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

from segq._core.base.errors import DamagedError
from segq._core.format import blocks
from segq._core.format import format as fmt
from segq._core.format.blocks import END_MASK, IS_REFERENCE, Block
from segq._core.segment.batch import BatchReader
from segq._core.segment.blob import BlobReader, with_checksums
from segq._core.segment.rocksdb import Blocks
from segq._core.system.fs import Directory

_ALL_THERE_IS = 1 << 40  # more items than any segment can have


class Contents:
    """The items of one segment. `trouble` tells what could not be read, once it was read."""

    def __init__(self, path: str, published: int | None, *, thorough: bool = False, beyond: bool = False) -> None:
        """`published`: the ledger's word, read before; None if there is no ledger. Raises FileNotFoundError.

        `beyond`: blocks may hold more than the ledger knows (power failed since).
        """
        self._path, self._published, self._thorough = path, published, thorough
        self._end = _ALL_THERE_IS if published is None or beyond else published
        self._directory = Directory(path)
        self._blob: BlobReader | None = None
        self.trouble: list[str] = []

    def unreadable(self, needed: bytes) -> dict[int, str]:
        """Which items that have a 1 in `needed` cannot be read, and why."""
        missing = bytearray(needed)
        found: dict[int, str] = {}
        for block in self._blocks():
            end = min(block.first + block.count, len(missing))
            if block.references:
                found |= self._broken(block, needed, end)
            missing[block.first : end] = bytes(max(0, end - block.first))
        why = self.trouble[0] if self.trouble else "no block holds them: lost with the log before them, or never on the disk"
        at = missing.find(1)
        while at >= 0:
            found[at] = why
            at = missing.find(1, at + 1)
        return found

    def _broken(self, block: Block, needed: bytes, end: int) -> dict[int, str]:
        """The large items of a block whose bytes are gone, or not what was written."""
        found: dict[int, str] = {}
        for i, (before, stop) in enumerate(pairwise([0, *block.ends]), block.first):
            if i < end and needed[i] and stop & IS_REFERENCE:
                try:
                    self._fetch(block.payload[before & END_MASK : stop & END_MASK])
                except DamagedError as error:
                    found[i] = str(error)
        return found

    def items(self) -> Iterator[tuple[int, bytes | None, int]]:
        """(index, item, when it expires) of all items, in order; None for one that cannot be read.

        Of items that are in no block at all nothing comes. All is in memory at the end of it.
        """
        following = 0
        for block in sorted(self._blocks(), key=lambda block: block.first):
            begin = max(block.first, following)
            end = min(block.first + block.count, self._end)
            if begin >= end:
                continue
            expires = blocks.expiries(block.runs, block.count)
            for i, item in enumerate(block.items(begin, end), begin):
                data: bytes | None = item
                if type(item) is blocks.Reference:
                    try:
                        data = self._fetch(item)
                    except DamagedError as error:
                        data = None
                        self.trouble.append(str(error))
                yield i, data, expires[i - block.first]
            following = end

    def _blocks(self) -> Iterator[Block]:
        batch = self._batch()
        stored = Blocks(self._directory.path, self._path, thorough=self._thorough)
        yield from stored
        self.trouble += [str(error) for error in stored.trouble]
        yield from batch

    def _batch(self) -> list[Block]:
        try:
            reader = BatchReader(os.path.join(self._directory.path, fmt.BATCH_FILE), writable=False)
            copies = reader.copies(self._published)
            return [blocks.decode(blocks.key(first), self._with_checksums(first, data, reader)) for first, data in copies]
        except FileNotFoundError:
            return []
        except DamagedError as error:
            self.trouble.append(f"the open batch: {error}")
            return []

    def _with_checksums(self, first: int, data: bytes, reader: BatchReader) -> bytes:
        """As if the copy were a block already: beside the open batch it is known which large items are what they were."""
        return with_checksums(first, data, self._directory.path, reused=reader.reused)

    def _fetch(self, reference: bytes) -> bytes:
        """The bytes of a large item. Raises DamagedError."""
        if self._blob is None:
            try:
                self._blob = BlobReader(self._directory.path)
            except FileNotFoundError:
                raise DamagedError(f"{self._path}: the file with the bytes of its large items is gone") from None
        return self._blob.read(reference)

    def close(self) -> None:
        if self._blob is not None:
            self._blob.close()
        self._directory.close()
