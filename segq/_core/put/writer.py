"""The segment that a producer appends to: its open batch, its RocksDB writer and its ledger, kept in step.

Order of every store: the item first, then the ledger's `published` word. What is below `published` survives the process;
what is above it never was. A half of the batch is written to RocksDB before it is reused, unless all its items are done by
then, and a direct block before it is published, so a reader that does not find an item in the batch finds it in a block.
Where consumers keep up, a segment never has a RocksDB instance at all, nor any of the fsyncs that making one costs.

The single put's store is written out in `Producer.put` over the attributes here (`count`, `end`, `stop`, …), because a call
would cost as much as the work.
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
# Large items count an eighth towards `segment_bytes`: that limit bounds the memory that reading a segment takes, and they take
# none; what they take is disk, which is given back a segment at a time.
_BLOB_SHARE = 8
_SHORTEST_SPAN = 0.1  # seconds
_LOOKS, _LOOK_SECONDS = 25, 0.0001  # together half of what it takes to make a RocksDB instance
_BLOB_WORTH = 16 << 20  # of disk for nothing: more than this is worth a new segment


class LoadingSegment:
    """Used under the producer's lock only.

    In the current half: `count` items, `end` payload bytes; `stop` items may be in it before something else has to be
    done first (the half is full, the segment is full, or room has to be reserved); `tick <= time() < tock` is the
    millisecond of the current run; `base` is the index of the half's first item.
    """

    __slots__ = (
        "_batch", "_blob", "_catalog", "_direct", "_half_open", "_sized", "_writer", "base", "bytes", "count", "end", "ends",
        "items", "ledger", "limited", "name", "path", "payload", "since", "stop", "tick", "tock", "ttl", "words",
    )  # fmt: skip

    def __init__(self, catalog: Catalog, loading: Loading, *, direct: bool, limited: bool, sized: bool) -> None:
        """`direct`: every item goes to RocksDB, synced; `limited`: there is a capacity; `sized`: in bytes as well."""
        self._catalog, self._direct, self._sized, self.limited = catalog, direct, sized, limited
        self.name: SegmentName = loading.name
        self.path, self.ledger = loading.path, loading.ledger
        self.words = loading.ledger.words
        self.items = loading.ledger.layout.items
        self.bytes = 0  # payload in blocks, or about to be; what a resumed segment held before does not count
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
        """Whether a segment of this size takes `items` more items of together `size` bytes."""
        published = self.published
        if self.ledger.final:
            return False
        if not published:
            return items <= self.items
        weight = size if size <= LARGE_BYTES else size // _BLOB_SHARE
        return published + items <= self.items and self.bytes + self.end + weight <= most_bytes

    def gathers(self, count: int, size: int) -> bool:
        """Whether a half takes these with nothing to be opened before."""
        if not self._half_open or count > HALF_ITEMS or size > HALF_BYTES:
            return False
        fits = self.count + count <= HALF_ITEMS and self.end + size <= HALF_BYTES
        return fits or self._writer is not None or (self._batch is not None and self._batch.waiting is None)

    def spent(self) -> bool:
        """Whether it holds much disk for items that are all done: time to seal it, which gives the disk back."""
        return self._blob is not None and self._blob.size >= _BLOB_WORTH and self.ledger.done() == self.published

    def takes_expiring(self, ttl_ms: int) -> bool:
        """Whether it can hold items that expire, and, where all do after the same time, is not open for too long of it.

        Segments go as a whole: those of a tenth of the time to live keep the disk they take within a tenth of what is alive.
        """
        if self.ledger.expires is None:
            return False
        return not ttl_ms or time.monotonic() - self.since < max(_SHORTEST_SPAN, ttl_ms / 10_000)

    # --- storing ---

    def append(self, items: list[bytes], size: int, ttl_ms: int = 0) -> None:
        """Stores `items`, together `size` bytes, as one: all are published at once, or none (StorageError).

        A time to live (0: none) takes a segment that was made for items that expire.

        The caller has made sure that the segment has place and that room is reserved.
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
        """A large item's bytes go to the blob; what takes its place."""
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
        """Straight to RocksDB: for what is too large for the batch, and for durability="power"."""
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
            self.ledger.finalize()  # the block may be in the log all the same
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
        """The half is full (of items, bytes or runs): it waits, and on to the other one, which has waited until now."""
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
        """What follows in this half was put in the millisecond of `now`; False if the half has no place for another run."""
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
        """How far single puts may go on in the current half; the bytes of a segment are bounded by halves."""
        if not self._half_open or self._sized or self.ledger.expires is not None:
            self.stop = 0
            return
        limit = min(self.ledger.allocated, self.items)
        if self.limited:
            limit = min(limit, self.words[_LIMIT])
        self.stop = min(HALF_ITEMS, limit - self.base)

    def _flush(self) -> None:
        """Settles both halves; they stay readable where they are. Raises StorageError; it can be repeated, or put to again."""
        batch = self._batch
        if batch is None:
            return
        self._settle(batch)
        if self._half_open:
            self._leave_half(batch)
            self._settle(batch)

    def _settle(self, batch: BatchWriter) -> None:
        """The half that waits becomes a block, unless nobody will read it. Raises StorageError, and it waits on."""
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
        """Whether consumers, who have begun with these, finish them within a moment.

        It spares making a RocksDB instance, which takes several milliseconds and about nine fsyncs.
        """
        if not self._all_done(begin, begin + 1):
            return False
        for _look in range(_LOOKS):
            time.sleep(_LOOK_SECONDS)
            if self._all_done(begin, end):
                return True
        return False

    def _leave_half(self, batch: BatchWriter) -> None:
        """Nothing more goes into the current half."""
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
            self._writer = None  # it refuses every further write; the next attempt opens it again
            raise

    # --- reserved room (capacity) ---

    @property
    def unused(self) -> int:
        """Items that may still be published with the room reserved."""
        return self.words[_LIMIT] - self.published

    def unused_bytes(self) -> int:
        return self.words[_LIMIT_BYTES] - self.ledger.published_bytes()

    def reserve(self, items: int, size: int) -> None:
        """Under the index's lock."""
        self.words[_LIMIT] = max(self.words[_LIMIT], self.published) + items
        self.words[_LIMIT_BYTES] = max(self.words[_LIMIT_BYTES], self.ledger.published_bytes()) + size
        self.set_stop()

    def give_back_room(self) -> None:
        """Under the index's lock."""
        self.words[_LIMIT] = self.published
        self.words[_LIMIT_BYTES] = self.ledger.published_bytes()
        self.set_stop()

    # --- the end ---

    def seal(self) -> None:
        """Everything into RocksDB, then a new name. Raises StorageError; the items stay readable and it can be repeated."""
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
        """The disk refuses to let us seal: whoever comes next does it."""
        self.ledger.adopt(0, self.ledger.epoch)
        self.close()

    def close(self) -> None:
        if self._batch is not None:
            self._batch.close()
        if self._blob is not None:
            self._blob.close()
        self.ledger.close()
