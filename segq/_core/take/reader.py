"""A segment as a consumer sees it: its ledger, and its items wherever they are stored now.

The reader copies a live item from the open batch. An item that has left the batch is in a block. The reader reads a block from
the log (`wal`) or else with RocksDB: a secondary instance while the segment is loading, a read-only one when it is sealed. The
segment may be renamed between the lookup and the open: if the open fails, the reader tries again with the new name.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from segq._core.base.errors import DamagedError
from segq._core.directory.catalog import Catalog
from segq._core.directory.owners import Owner
from segq._core.format import format as fmt
from segq._core.format.blocks import Block, Reference, Runs
from segq._core.format.format import SegmentName, State
from segq._core.segment.batch import BatchReader
from segq._core.segment.blob import BlobReader, DamagedItem
from segq._core.segment.ledger import Ledger
from segq._core.segment.rocksdb import SegmentReader
from segq._core.segment.wal import WalReader
from segq._core.system import fs

_ATTEMPTS = 6  # to open a segment by its name; each failure but the last means that it was renamed
_PATIENCE = 0.01  # seconds before the last attempts: a rename appears in a listing within this time


class SegmentView:
    """One consumer's view of one segment. Call it only under the consumer's lock."""

    def __init__(self, catalog: Catalog, name: SegmentName, ledger: Ledger, owner: Owner) -> None:
        self.name = name
        self.ledger = ledger
        self._catalog, self._owner = catalog, owner
        self._batch: BatchReader | None = None
        self._wal: WalReader | None = None
        self._reader: SegmentReader | None = None
        self._scratch: str | None = None

    def read(self, begin: int, end: int) -> tuple[list[bytes], list[Runs]]:
        """The items begin … end-1, and the runs with their put times. Raises DamagedError if any cannot be read."""
        published = self.ledger.published
        items, noted = self._piece(begin, end, published)
        runs = [noted]
        while begin + len(items) < end:
            more, noted = self._piece(begin + len(items), end, published)
            runs.append(noted)
            items += more
        return items, runs

    def live_item(self, index: int) -> bytes | None:
        """The bytes of an item, if it can be copied from the open batch; else None."""
        return self._batch.item(index) if self._batch is not None else None

    def at_hand(self) -> bool:
        """Whether the next items to claim can be read without opening anything."""
        ledger = self.ledger
        if ledger.gave_back():
            return False  # an item before `next` may be free, at an unknown index
        if self._wal is not None or (self._reader is not None and ledger.sealed):
            return True
        return self._batch is not None and self._batch.holds(ledger.next, ledger.published)

    def readable_from(self, index: int, end: int) -> int:
        """The first item after `index` that begins a whole block, or `end` if none does before it."""
        found = [end]
        for reader in (self._wal, self._reader):
            with contextlib.suppress(DamagedError):
                if reader is not None and (begin := reader.next_block(index)) is not None:
                    found.append(begin)
        return min(found)

    def _piece(self, begin: int, end: int, published: int) -> tuple[list[bytes], Runs]:
        if self._batch is None and not self.ledger.sealed:
            self._batch = self._open_batch()
        if self._batch is not None:
            found = self._batch.read(begin, end, published)
            if found is not None:
                items, noted, references = found
                return self._fetched(items, self._batch.reused) if references else items, noted
        block = self._find_block(begin)
        if block is None:
            self._batch = self._open_batch()  # the segment may have been resumed since we mapped its batch
            found = self._batch.read(begin, end, published) if self._batch is not None else None
            if self._batch is not None and found is not None:
                items, noted, references = found
                return self._fetched(items, self._batch.reused) if references else items, noted
            block = self._block(begin)
        items = block.items(begin, min(end, block.first + block.count))
        return self._fetched(items) if block.references else items, (begin, block.first, block.runs)

    def _fetched(self, items: list[bytes], reused: Callable[[], int] | None = None) -> list[bytes]:
        """Replaces references in `items` by the bytes of the large items. `reused`: given if they are in the open batch."""
        if not any(type(item) is Reference for item in items):
            return items
        blob = self._open_blob()
        try:
            return [blob.read(item, reused) if type(item) is Reference else item for item in items]
        finally:
            blob.close()  # an open handle would keep the disk space of a large file that is deleted

    def _open_blob(self) -> BlobReader:
        for _attempt in range(_ATTEMPTS):
            now = self._catalog.locate(self.name)
            if now is None:
                break
            try:
                return BlobReader(self._catalog.path(now))
            except FileNotFoundError:
                continue
        raise DamagedItem(f"{self.name}: the bytes of its large items are gone", segment=str(self.name))

    def _open_batch(self) -> BatchReader | None:
        try:
            return BatchReader(os.path.join(self._catalog.path(self.name.in_state(State.LOADING)), fmt.BATCH_FILE))
        except (FileNotFoundError, DamagedError):
            return None

    def _find_block(self, index: int) -> Block | None:
        for reader in (self._wal, self._reader):
            if reader is not None and (found := reader.block(index)) is not None:
                return found
        return None

    def _block(self, index: int) -> Block:
        seen: list[State] = []
        for attempt in range(_ATTEMPTS):
            if attempt > 1:
                time.sleep(_PATIENCE)
            now = self._catalog.locate(self.name)
            if now is None:
                raise DamagedError(f"{self.name} is gone", segment=str(self.name))
            try:
                self._open_wal(now)
                found = self._find_block(index)
                if found is None:
                    self._open_reader(now)
                    found = self._find_block(index)
            except FileNotFoundError:
                continue
            if found is not None:
                return found
            seen.append(now.state)
            if seen.count(now.state) > 1 and now.state is not State.LOADING:
                break
        raise DamagedError(f"{self.name}: item {index} is in no block", segment=str(self.name))

    def _open_wal(self, name: SegmentName) -> None:
        self._close_wal()
        self._wal = WalReader.open(self._catalog.path(name))
        self.name = name

    def _open_reader(self, name: SegmentName) -> None:
        self._close_reader()
        live = name.state is State.LOADING
        self._scratch = self._owner.scratch() if live else None
        self._reader = SegmentReader(self._catalog.path(name), self._scratch)
        self.name = name

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._scratch is not None:
            fs.remove_tree(self._scratch)
            self._scratch = None

    def _close_wal(self) -> None:
        if self._wal is not None:
            self._wal.close()
            self._wal = None

    def close(self) -> None:
        """Closes the readers; the ledger stays usable for unsettled messages."""
        self._close_reader()
        self._close_wal()
        self._batch = None
