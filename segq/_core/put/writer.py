"""The segment that a producer appends to: keeps its open batch, RocksDB writer and ledger consistent.

Every store writes the item first, then the ledger's `published` word. Items below `published` survive the process; items
above it do not exist. A half of the batch is written to RocksDB before it is reused, unless all its items are done by then.
A direct block is written before it is published. So a reader that does not find an item in the batch finds it in a block.
If consumers keep up, a segment never has a RocksDB instance and saves the fsyncs of creating one.

`Producer.put` inlines the store of a single put over the attributes here (`count`, `end`, `stop`, …), because a call would
cost as much as the work.
"""

from __future__ import annotations

import mmap
import os
import time
from array import array
from itertools import accumulate

from segq._core.base.failpoints import ARMED, reach
from segq._core.directory.catalog import Catalog, Loading
from segq._core.format import blocks
from segq._core.format import format as fmt
from segq._core.format.blocks import IS_REFERENCE, LARGE_BYTES, Reference
from segq._core.format.format import HALF_BYTES, HALF_ITEMS, NEVER, LedgerWord, SegmentName
from segq._core.segment.batch import BatchWriter
from segq._core.segment.blob import BlobWriter, with_checksums
from segq._core.segment.rocksdb import SegmentWriter

_PUBLISHED, _LIMIT, _LIMIT_BYTES = int(LedgerWord.PUBLISHED), int(LedgerWord.LIMIT), int(LedgerWord.LIMIT_BYTES)
_EMPTY_WORDS = memoryview(bytearray(64)).cast("I")
UNLIMITED = 1 << 62
# Large items count an eighth towards `segment_bytes`. That limit bounds the memory for reading a segment, and large items take
# none of it. They take disk, which is given back one segment at a time.
_BLOB_SHARE = 8
_SHORTEST_SPAN = 0.1  # seconds
_LOOKS, _LOOK_SECONDS = 25, 0.0001  # together half the time of creating a RocksDB instance
_BLOB_WORTH = 16 << 20  # bytes of disk: to free more than this, a new segment is worth its cost


class LoadingSegment:
    """The producer's open segment. Call it only under the producer's lock.

    The current half holds `count` items and `end` payload bytes. It may hold up to `stop` items before a put needs more than
    the store (the half or the segment is full, or room must be reserved). `tick <= time() < tock` is the millisecond of the
    current run; `base` is the index of the half's first item.
    """

    __slots__ = (
        "_batch", "_blob", "_catalog", "_direct", "_half_open", "_sized", "_writer", "base", "bytes", "count", "end", "ends",
        "items", "ledger", "limited", "name", "path", "payload", "since", "stop", "tick", "tock", "ttl", "words",
    )  # fmt: skip

    def __init__(self, catalog: Catalog, loading: Loading, *, direct: bool, limited: bool, sized: bool) -> None:
        """`direct`: every item goes to RocksDB, synced; `limited`: the queue has a capacity; `sized`: also one in bytes."""
        self._catalog, self._direct, self._sized, self.limited = catalog, direct, sized, limited
        self.name: SegmentName = loading.name
        self.path, self.ledger = loading.path, loading.ledger
        self.words = loading.ledger.words
        self.items = loading.ledger.layout.items
        self.bytes = 0  # payload in blocks or waiting to be written; items from before a resume do not count
        self._batch: BatchWriter | None = None
        self._blob: BlobWriter | None = None
        self._half_open = False
        self._writer: SegmentWriter | None = None
        self.ttl = 0  # of the current run, in milliseconds; 0 for none
        self.since = time.monotonic()
        self.base = self.published
        self.count = self.end = self.stop = 0
        self.tick = self.tock = 0.0
        self.payload: mmap.mmap | bytearray = bytearray()
        self.ends = _EMPTY_WORDS

    @property
    def published(self) -> int:
        return self.words[_PUBLISHED]

    def has_place(self, items: int, size: int, most_bytes: int) -> bool:
        """Whether the segment can take `items` more items of `size` bytes in total; `most_bytes` is its limit."""
        published = self.published
        if self.ledger.final:
            return False
        if not published:
            return items <= self.items
        weight = size if size <= LARGE_BYTES else size // _BLOB_SHARE
        return published + items <= self.items and self.bytes + self.end + weight <= most_bytes

    def gathers(self, count: int, size: int) -> bool:
        """Whether a half can take these items without opening anything first."""
        if not self._half_open or count > HALF_ITEMS or size > HALF_BYTES:
            return False
        fits = self.count + count <= HALF_ITEMS and self.end + size <= HALF_BYTES
        return fits or self._writer is not None or (self._batch is not None and self._batch.waiting is None)

    def spent(self) -> bool:
        """Whether it takes much disk for items that are all done: then seal it, which frees the disk."""
        return self._blob is not None and self._blob.size >= _BLOB_WORTH and self.ledger.done() == self.published

    def takes_expiring(self, ttl_ms: int) -> bool:
        """Whether it can hold items that expire, and has not been open for too much of their time to live.

        Segments are removed whole. If each spans a tenth of the time to live, expired items add only a tenth to the disk used.
        """
        if self.ledger.expires is None:
            return False
        return not ttl_ms or time.monotonic() - self.since < max(_SHORTEST_SPAN, ttl_ms / 10_000)

    # --- storing ---

    def append(self, items: list[bytes], size: int, ttl_ms: int = 0) -> None:
        """Stores `items` of `size` bytes in total at once: publishes all of them, or none (StorageError).

        A time to live (0: none) needs a segment that was created for items that expire.

        The caller has checked that the segment has place, and has reserved the room.
        """
        count = len(items)
        self.ledger.allocate(self.published + count)
        if size > LARGE_BYTES and not self._direct and max(map(len, items)) > LARGE_BYTES:
            lengths = [len(item) for item in items]
            first = self.published
            items = [self._spill(i, item) if len(item) > LARGE_BYTES else item for i, item in enumerate(items, first)]
            size = sum(map(len, items))
        else:
            lengths = None
        if self._direct or size > HALF_BYTES or count > HALF_ITEMS:
            self._write_block(items, size, lengths, ttl_ms)
        else:
            self._gather(items, size, lengths, ttl_ms)

    def _spill(self, index: int, item: bytes) -> bytes:
        """Writes a large item's bytes to the blob; returns the reference that replaces them."""
        if self._blob is None:
            self._blob = BlobWriter(self.path)
        if ARMED:
            reach("blob.begun")
        reference = self._blob.write(index, item, self._over, self._reuse)
        if ARMED:
            reach("blob.written")
        self.bytes += len(item) // _BLOB_SHARE
        return reference

    def _over(self, index: int) -> bool:
        return self._all_done(index, index + 1)

    def _reuse(self, word: int) -> None:
        if self._batch is None:
            self._batch = self._begin_batch()
        self._batch.reuse(word)

    def _gather(self, items: list[bytes], size: int, lengths: list[int] | None, ttl_ms: int) -> None:
        count = len(items)
        batch = self._batch
        if batch is None:
            batch = self._batch = self._begin_batch()
        if not self._half_open:
            self._take_half(batch)
        elif self.count + count > HALF_ITEMS or self.end + size > HALF_BYTES:
            self._turn(batch)
        now = time.time()
        if not (self.tick <= now < self.tock and self.ttl == ttl_ms) and not self.begin_run(now, ttl_ms):
            self._turn(batch)
            self.begin_run(now, ttl_ms)
        begin, start = self.count, self.end
        if ARMED:
            reach("put.begun")
        self.payload[start : start + size] = b"".join(items)
        if ARMED:
            reach("put.payload")
        ends = array("I", accumulate(map(len, items), initial=start))
        if lengths is not None:
            batch.has_references()
            for i, item in enumerate(items, 1):
                if type(item) is Reference:
                    ends[i] |= IS_REFERENCE
        self.ends[begin : begin + count] = memoryview(ends)[1:]
        self.ledger.note_sizes(self.published, lengths or map(len, items))
        self._note_expiry(count, round(self.tick * 1000), ttl_ms)
        self.count, self.end = begin + count, start + size
        self.words[_PUBLISHED] = self.base + begin + count
        if ARMED:
            reach("put.published")
        self.set_stop()

    def _write_block(self, items: list[bytes], size: int, lengths: list[int] | None, ttl_ms: int) -> None:
        """Writes directly to RocksDB: items too large for the batch, and all items with durability="power"."""
        first = self.published
        self._flush()
        if ARMED:
            reach("block.begun")
        now = time.time_ns() // 1_000_000
        block = blocks.encode(first, items, now, ttl_ms, references=lengths is not None)
        if lengths is not None:
            block = self._with_checksums(first, block)
        try:
            self._write(first, block)
            if ARMED:
                reach("block.written")
        except BaseException:
            self.ledger.finalize()  # the block may be in the log nevertheless
            raise
        self.ledger.note_sizes(self.published, lengths or map(len, items))
        self._note_expiry(len(items), now, ttl_ms)
        self.words[_PUBLISHED] = first + len(items)
        self.bytes += size
        if ARMED:
            reach("block.published")

    def _note_expiry(self, count: int, now_ms: int, ttl_ms: int) -> None:
        if self.ledger.expires is not None:
            self.ledger.note_expiry(self.published, count, now_ms + ttl_ms if ttl_ms else NEVER)

    def _begin_batch(self) -> BatchWriter:
        batch = BatchWriter(os.path.join(self.path, fmt.BATCH_FILE), self.published)
        if ARMED:
            reach("create.batch")
        self._show_half(batch)
        return batch

    def _turn(self, batch: BatchWriter) -> None:
        """Leaves a half that is full (of items, bytes or runs) to wait, and takes the other, after settling it."""
        if ARMED:
            reach("turn.begun")
        self._settle(batch)
        if ARMED:
            reach("turn.flushed")
        self._leave_half(batch)
        self._take_half(batch)
        if ARMED:
            reach("turn.turned")

    def _take_half(self, batch: BatchWriter) -> None:
        batch.turn(self.published)
        self._show_half(batch)

    def _show_half(self, batch: BatchWriter) -> None:
        self._half_open = True
        self.base, self.payload, self.ends = batch.first, batch.payload, batch.ends
        self.count = self.end = 0
        self.tick = self.tock = 0.0

    def begin_run(self, now: float, ttl_ms: int = 0) -> bool:
        """Begins a run of items put in the millisecond of `now`; False if the half has no place for another run."""
        batch, milliseconds = self._batch, int(now * 1000)
        if batch is None or not self._half_open:
            return False
        batch.count = self.count
        if not batch.begin_run(milliseconds, ttl_ms):
            return False
        self.ttl = ttl_ms
        self.tick, self.tock = milliseconds / 1000, (milliseconds + 1) / 1000
        return True

    def set_stop(self) -> None:
        """Sets how many single puts the current half may take; the bytes of a segment are checked once per half."""
        if not self._half_open or self._sized or self.ledger.expires is not None:
            self.stop = 0
            return
        limit = min(self.ledger.allocated, self.items)
        if self.limited:
            limit = min(limit, self.words[_LIMIT])
        self.stop = min(HALF_ITEMS, limit - self.base)

    def _flush(self) -> None:
        """Settles both halves; readers can still use them. Raises StorageError; then it can be repeated, and puts can go on."""
        batch = self._batch
        if batch is None:
            return
        self._settle(batch)
        if self._half_open:
            self._leave_half(batch)
            self._settle(batch)

    def _settle(self, batch: BatchWriter) -> None:
        """Writes the waiting half as a block, unless no consumer will read it. Raises StorageError; then it still waits."""
        waiting = batch.waiting
        if waiting is None:
            return
        end = waiting.first + waiting.items
        if self._all_done(waiting.first, end) or (self._writer is None and self._done_soon(waiting.first, end)):
            self.bytes -= waiting.size
        else:
            self._write(waiting.first, self._with_checksums(waiting.first, batch.block()))
        batch.settle()

    def _with_checksums(self, first: int, block: bytes) -> bytes:
        return with_checksums(first, block, self.path, self.ledger.states, self._batch.reused if self._batch else None)

    def _all_done(self, begin: int, end: int) -> bool:
        return self._catalog.all_done(self.name, self.ledger, begin, end)

    def _done_soon(self, begin: int, end: int) -> bool:
        """Whether consumers have begun with these items and finish them in a moment.

        This saves creating a RocksDB instance, which takes several milliseconds and about nine fsyncs.
        """
        if not self._all_done(begin, begin + 1):
            return False
        for _look in range(_LOOKS):
            time.sleep(_LOOK_SECONDS)
            if self._all_done(begin, end):
                return True
        return False

    def _leave_half(self, batch: BatchWriter) -> None:
        """Closes the current half: it takes no more items."""
        batch.count, batch.end = self.count, self.end
        batch.close_half()
        self.bytes += self.end
        self._half_open = False
        self.base, self.count, self.end, self.stop = self.published, 0, 0, 0

    def _write(self, first: int, block: bytes) -> None:
        if self._writer is None:
            self._writer = SegmentWriter(self.path)
            if ARMED:
                reach("create.rocksdb")
        try:
            self._writer.write(first, block, sync=self._direct)
        except BaseException:
            self._writer = None  # it refuses further writes; the next attempt opens it again
            raise

    # --- reserved room (capacity) ---

    @property
    def unused(self) -> int:
        """How many more items the reserved room allows."""
        return self.words[_LIMIT] - self.published

    def unused_bytes(self) -> int:
        return self.words[_LIMIT_BYTES] - self.ledger.published_bytes()

    def reserve(self, items: int, size: int) -> None:
        """Reserves room for more items. Under the index's lock."""
        self.words[_LIMIT] = max(self.words[_LIMIT], self.published) + items
        self.words[_LIMIT_BYTES] = max(self.words[_LIMIT_BYTES], self.ledger.published_bytes()) + size
        self.set_stop()

    def give_back_room(self) -> None:
        """Gives back the unused room. Under the index's lock."""
        self.words[_LIMIT] = self.published
        self.words[_LIMIT_BYTES] = self.ledger.published_bytes()
        self.set_stop()

    # --- the end ---

    def seal(self) -> None:
        """Writes all items to RocksDB and renames the segment. Raises StorageError: items stay readable; it can be repeated."""
        if ARMED:
            reach("seal.begun")
        self._flush()
        if ARMED:
            reach("seal.flushed")
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close(sync=self._direct)
        if ARMED:
            reach("seal.closed")
        self.stop = 0
        self._catalog.seal(self.name, self.ledger)
        self.close()

    def disown(self) -> None:
        """Gives up the segment after a disk error while sealing: the next recovery seals it."""
        self.ledger.adopt(0, self.ledger.epoch)
        self.close()

    def close(self) -> None:
        if self._batch is not None:
            self._batch.close()
        if self._blob is not None:
            self._blob.close()
        self.ledger.close()
