"""The open batch: the mapped file in which items put singly gather before they become one RocksDB block.

Storing an item is a memory copy; the pages belong to the kernel, so the item survives the death of the process. The
file has two halves used in turn. One writer (under its handle's lock), any number of readers without a lock: a reader
copies, then checks that the half's sequence number did not change meanwhile; if it did, the items have long been in
RocksDB and the reader goes there.

A half that is full *waits*, readable, until the other one is full as well. Only then, before it is used again, it is written as
a block, unless all of its items are done by that time; where consumers are less than a half behind, none ever is.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from segq._core.base.errors import DamagedError
from segq._core.format import blocks
from segq._core.format import format as fmt
from segq._core.format.blocks import END_MASK, IS_REFERENCE, RUN, Runs
from segq._core.format.format import HALF_BYTES, HALF_ITEMS, HALF_RUNS, HALF_SIZE, HalfWord
from segq._core.system.fs import HeldDescriptor, open_regular, rename, storage_errors, unlink
from segq._core.system.locks import try_lock
from segq._core.system.mapped import MappedFile

_FIRST_LIFE = 2  # the sequence of a half that was not reused yet
_SEQUENCE, _FIRST, _END, _RUNS, _REFERENCES, _REUSED, _SETTLED = (int(word) for word in HalfWord)


class Half(NamedTuple):
    """What is in a half: where that begins in the file, the index of its first item, and how many items, bytes and runs."""

    at: int
    first: int
    items: int
    size: int
    runs: int

    def block(self, file: MappedFile) -> bytes:
        view, ends_at, runs_at, payload_at = file.view, self.at + fmt.ENDS_AT, self.at + fmt.RUNS_AT, self.at + fmt.PAYLOAD_AT
        return blocks.join(
            self.first,
            view[ends_at : ends_at + 4 * self.items],
            view[runs_at : runs_at + RUN.size * self.runs],
            view[payload_at : payload_at + self.size],
            references=file.words[self.at // 8 + _REFERENCES] != 0,
        )


class BatchWriter:
    """The producer's side. `append` is written out in `producer`, where the call would cost more than the work.

    `count` items and `end` payload bytes are in the current half, whose first item has index `first`. `waiting` is the other
    half, if something of it may be wanted and is in no block.
    """

    __slots__ = ("_current", "_file", "_payloads", "_words", "count", "end", "ends", "first", "payload", "runs", "waiting")

    def __init__(self, path: str, first: int) -> None:
        unfinished = f"{path}.new"  # readers must not see it before it says where it begins
        unlink(unfinished)
        self._file = MappedFile.create(unfinished, fmt.BATCH_SIZE, [(0, fmt.BATCH_SIZE)])
        try_lock(self._file.descriptor)  # as long as we live; see `in_hand`
        self._words = self._file.words
        self._payloads = [self._file.part(HALF_BYTES, half * HALF_SIZE + fmt.PAYLOAD_AT) for half in (0, 1)]
        self._words[HALF_SIZE // 8 + _SEQUENCE] = 1  # the second half is not ready yet
        self._current = 1
        self.waiting: Half | None = None
        self.turn(first)
        rename(unfinished, path)

    def turn(self, first: int) -> None:
        """Makes the other half the current one, for items from `first` on. It must be settled by now."""
        half = self._current = 1 - self._current
        at, words = half * HALF_SIZE // 8, self._words
        sequence = words[at + _SEQUENCE]
        words[at + _SEQUENCE] = sequence | 1
        words[at + _FIRST] = first
        words[at + _END] = 0
        words[at + _RUNS] = 0
        words[at + _REFERENCES] = 0
        words[at + _SETTLED] = 0
        words[at + _SEQUENCE] = (sequence | 1) + 1
        self.first, self.count, self.end, self.runs = first, 0, 0, 0
        self.payload = self._payloads[half]
        start = half * HALF_SIZE + fmt.ENDS_AT
        self.ends = self._file.view[start : start + 4 * HALF_ITEMS].cast("I")

    def begin_run(self, time_ms: int, ttl_ms: int = 0) -> bool:
        """Notes that the items from here on were put at `time_ms`; False if the half has no place for another run."""
        if self.runs >= HALF_RUNS:
            return False
        half = self._current * HALF_SIZE
        RUN.pack_into(self._file.view, half + fmt.RUNS_AT + RUN.size * self.runs, self.count, ttl_ms, time_ms)
        self.runs += 1
        self._words[half // 8 + _RUNS] = self.runs
        return True

    def has_references(self) -> None:
        """Says that ends may be marked from now on; before the first such item is published."""
        self._words[self._current * HALF_SIZE // 8 + _REFERENCES] = 1

    def reuse(self, word: int) -> None:
        """Says how far `blob` is being written over; before it is."""
        self._words[_REUSED] = word

    def reused(self) -> int:
        return self._words[_REUSED]

    def close_half(self) -> None:
        """The current half waits from now on; what follows is not looked for in it. An empty one is withdrawn."""
        half = self._current * HALF_SIZE
        at = half // 8
        if self.count:
            self._words[at + _END] = self.first + self.count
            self.waiting = Half(half, self.first, self.count, self.end, self.runs)
        else:
            self._words[at + _SEQUENCE] |= 1

    def block(self) -> bytes:
        """The items of the half that waits as a block."""
        assert self.waiting is not None
        return self.waiting.block(self._file)

    def settle(self) -> None:
        """The half that waits is in a block, or all of its items are done."""
        if self.waiting is not None:
            self._words[self.waiting.at // 8 + _SETTLED] = 1
            self.waiting = None

    def close(self) -> None:
        self._file.close()


def in_hand(path: str) -> bool:
    """Whether a living producer has this open batch in hand: its owner's file may have been deleted, its own locks stay."""
    try:
        with storage_errors(path):
            held = HeldDescriptor(open_regular(path, os.O_RDWR))
    except (FileNotFoundError, DamagedError):
        return False
    taken = not try_lock(held.descriptor)
    held.close()
    return taken


class BatchReader:
    """A consumer's or a rescuer's side."""

    __slots__ = ("_ends", "_file", "_view", "_words")

    def __init__(self, path: str, *, writable: bool = True) -> None:
        """Raises FileNotFoundError once the segment is sealed: all is in RocksDB then."""
        self._file = (MappedFile.open if writable else MappedFile.look)(path, fmt.BATCH_SIZE)
        self._words, self._view = self._file.words, self._file.view
        starts = (fmt.ENDS_AT, HALF_SIZE + fmt.ENDS_AT)
        self._ends = [self._view[start : start + 4 * HALF_ITEMS].cast("I") for start in starts]
        self._file.close()

    def read(self, begin: int, end: int, published: int) -> tuple[list[bytes], Runs, bool] | None:
        """The items begin … (up to end-1, as many as the half holds) with their runs, and whether references are among
        them; None if they are not here.

        `published` is the ledger's word, read before the items were claimed.
        """
        words, view = self._words, self._view
        for half in (0, HALF_SIZE):
            at = half >> 3
            sequence, first = words[at], words[at + _FIRST]
            if sequence & 1 or begin < first:
                continue
            stop = words[at + _END] or published
            low, high = begin - first, min(end, stop) - first
            if high <= low or low >= HALF_ITEMS:
                continue
            high = min(high, HALF_ITEMS)
            ends = self._ends[half > 0]
            bounds = ends[low:high].tolist()
            start = ends[low - 1] & END_MASK if low else 0
            references = words[at + _REFERENCES]
            payload_at, last = half + fmt.PAYLOAD_AT, bounds[-1] & END_MASK
            if not start <= last <= HALF_BYTES:
                continue
            data = bytes(view[payload_at + start : payload_at + last])
            # Each item begins one run at most, so the runs of these and later items are among the last so many.
            runs = self._runs(half)
            runs_at, skip = half + fmt.RUNS_AT, max(0, runs - (stop - begin) - 1)
            noted = bytes(view[runs_at + RUN.size * skip : runs_at + RUN.size * runs])
            if words[at] != sequence:
                continue
            if references:
                bounds = [((bound & END_MASK) - start) | (bound & IS_REFERENCE) for bound in bounds]
                return blocks.marked(data, 0, 0, bounds), (begin, first, noted), True
            if start:
                bounds = [bound - start for bound in bounds]
            if high - low == 1:
                return [data], (begin, first, noted), False
            return blocks.slices(data, 0, bounds), (begin, first, noted), False
        return None

    def reused(self) -> int:
        """How far `blob` has been, or is being, written over."""
        return self._words[_REUSED]

    def item(self, index: int) -> bytes | None:
        """The bytes of one published item of the half that is open; None if it is not there, or large."""
        words, view = self._words, self._view
        for half in (0, HALF_SIZE):
            at = half >> 3
            sequence = words[at]
            low = index - words[at + _FIRST]
            if sequence & 1 or not 0 <= low < HALF_ITEMS or words[at + _END] or words[at + _REFERENCES]:
                continue
            ends = self._ends[half > 0]
            start, stop = ends[low - 1] if low else 0, ends[low]
            payload_at = half + fmt.PAYLOAD_AT
            data = bytes(view[payload_at + start : payload_at + stop])
            if start <= stop <= HALF_BYTES and words[at] == sequence:
                return data
        return None

    def holds(self, index: int, published: int) -> bool:
        """Whether item `index` can be read here just now."""
        words = self._words
        return any(
            not words[at] & 1 and words[at + _FIRST] <= index < (words[at + _END] or published) for at in (0, HALF_SIZE >> 3)
        )

    def end_at(self, published: int) -> None:
        """Closes both halves for a dead writer: a later life of the segment must not be read through this mapping."""
        for half in (0, HALF_SIZE):
            if not self._words[half // 8 + _END]:
                self._words[half // 8 + _END] = max(1, published)
            self._words[half // 8 + _SETTLED] = 1

    def has_unsettled_items(self, published: int) -> bool:
        """Whether some items may be in no block yet."""
        return any(first < stop for _, first, stop in self._halves(published, unsettled=True))

    def _halves(self, published: int, *, unsettled: bool) -> list[tuple[int, int, int]]:
        """(half, first, stop) of those in use; `unsettled`: of those that may hold what is in no block."""
        words, found = self._words, []
        for half in (0, HALF_SIZE):
            at = half >> 3
            if not words[at] & 1 and not (unsettled and words[at + _SETTLED]):
                found.append((half, words[at + _FIRST], min(words[at + _END] or published, published)))
        return found

    def _block(self, half: int, first: int, items: int) -> bytes:
        """Raises DamagedError if the half contradicts itself."""
        if not 0 < items <= HALF_ITEMS:
            raise DamagedError(f"open batch with {items} items in a half of {HALF_ITEMS}")
        size = self._ends[half > 0][items - 1] & END_MASK
        if size > HALF_BYTES:
            raise DamagedError(f"open batch whose payload ends at {size} of {HALF_BYTES}")
        return Half(half, first, items, size, self._runs(half)).block(self._file)

    def _runs(self, half: int) -> int:
        return min(self._words[(half >> 3) + _RUNS], HALF_RUNS)

    def copies(self, published: int | None) -> list[tuple[int, bytes]]:
        """(first, block) of what both halves hold just now, whether or not it is in RocksDB by now.

        `published`: the ledger's word, read before; None if there is no ledger to ask. Then of the half that was open only
        what is certain to have been put into it since it was begun.
        """
        found = []
        for half in (0, HALF_SIZE):
            at = half >> 3
            sequence, first = self._words[at], self._words[at + _FIRST]
            if sequence & 1 or not sequence:
                continue
            end = self._words[at + _END]
            stop = end or first + self._certain(half) if published is None else min(end or published, published)
            try:
                block = self._block(half, first, stop - first)
            except DamagedError:
                continue
            if self._words[at] == sequence:  # else it was written to RocksDB meanwhile
                found.append((first, block))
        return found

    def _certain(self, half: int) -> int:
        """How many items an open half holds at least."""
        ends = self._ends[half > 0].tolist()
        if self._words[half >> 3] == _FIRST_LIFE:  # nothing is left of an earlier life: the ends behind the last are 0
            return len(ends) - next((i for i, end in enumerate(reversed(ends)) if end), len(ends))
        runs = self._runs(half)
        return RUN.unpack_from(self._view, half + fmt.RUNS_AT + RUN.size * (runs - 1))[0] if runs else 0

    def unflushed(self, flushed: int, published: int, *, same_boot: bool) -> list[tuple[int, int, bytes]]:
        """(first, stop, block) for what no block holds yet; for the rescuer, who knows that nobody writes any more.

        RocksDB's log ends at `flushed`. After a loss of power the halves may be older or newer than it, whatever they say.
        """
        found = []
        for half, first, stop in self._halves(published, unsettled=same_boot):
            if first < stop and (flushed < stop if same_boot else flushed <= first):
                found.append((first, stop, self._block(half, first, stop - first)))
        return sorted(found)
