"""Who has which item of a segment: what changes a ledger. (`ledger_view` looks at it.)

Claiming is done under the ledger's lock (about 0.9 µs of flock): the range is marked *first* and `next` moved after, so a
death in between leaves items that are claimed by a dead owner, which rescue frees, and never an item skipped.
Acknowledging is one byte stored, without a lock: only the claimer stores to an item while it is claimed. (With a lease
the claim can end by itself, so there settling takes the lock and checks that the receipt still holds; so does handing out
where an item can expire or be dropped.)
"""

from __future__ import annotations

import contextlib
import re
from array import array
from collections.abc import Iterable

from segq._core.base.errors import DamagedError
from segq._core.base.failpoints import ARMED, reach
from segq._core.format import format as fmt
from segq._core.format.format import CLAIMED, DEAD, DELAYED, DONE, FREE, LEDGER_STEP, MISSED, NEVER, LedgerLayout, LedgerWord
from segq._core.segment.ledger_receipts import ReceiptLedger
from segq._core.segment.ledger_view import now_ms
from segq._core.system.fs import rename, unlink
from segq._core.system.mapped import MappedFile

_ITEMS, _FLAGS, _OWNER, _EPOCH = (int(w) for w in (LedgerWord.ITEMS, LedgerWord.FLAGS, LedgerWord.OWNER, LedgerWord.EPOCH))
_PUBLISHED, _SEALED, _NEXT = int(LedgerWord.PUBLISHED), int(LedgerWord.SEALED), int(LedgerWord.NEXT)
_LAPSE = int(LedgerWord.LAPSE)
_ALLOCATED, _SKIPPED = int(LedgerWord.ALLOCATED), int(LedgerWord.SKIPPED)
_RETURNED, _LIMIT, _LIMIT_BYTES = int(LedgerWord.RETURNED), int(LedgerWord.LIMIT), int(LedgerWord.LIMIT_BYTES)
_OVER = DONE + DEAD + MISSED
_NO_STATE = re.compile(rb"[^\x00-\x06]+")
_NONE_AS_FREE = bytes(state if state <= DELAYED[0] else 0 for state in range(256))
_OVER_MASK = bytes(int(bytes([state]) in _OVER) for state in range(256))
_DROP = bytes(MISSED[0] if bytes([state]) in FREE + CLAIMED + DELAYED else state for state in range(256))
_DONE_BYTE, _DEAD_BYTE, _MISSED_BYTE, _DELAYED_BYTE = DONE[0], DEAD[0], MISSED[0], DELAYED[0]


class Ledger(ReceiptLedger):
    """One process handle's hold on a segment's ledger. The lock of the handle's half (producer, consumer) is held."""

    __slots__ = ()

    @classmethod
    def create(cls, path: str, items: int, flags: int, owner: int, epoch: int) -> Ledger:
        """A ledger for up to `items` items, of which the first step has its place on the disk."""
        layout = LedgerLayout.of(items, flags)
        file = MappedFile.create(path, layout.total, [(0, fmt.PAGE), *layout.step(0)])
        words = file.words
        words[_ITEMS], words[_FLAGS], words[_OWNER], words[_EPOCH] = items, flags, owner, epoch
        words[LedgerWord.MAGIC] = fmt.LEDGER_MAGIC
        ledger = cls(file)
        ledger._allocated = LEDGER_STEP
        return ledger

    @classmethod
    def create_for_label(cls, path: str, source: Ledger, flags: int, skipped: bytes) -> Ledger:
        """A label's, appearing at `path` whole. `skipped`: a 1 for each item that was there before the label began.

        What has gone from the topic by now was missed. Under the structure lock.
        """
        items, unfinished = source.layout.items, f"{path}.new"
        unlink(unfinished)
        file = MappedFile.create(unfinished, LedgerLayout.of(items, flags).total, [(0, fmt.PAGE)])
        file.words[_ITEMS], file.words[_FLAGS] = items, flags
        file.words[LedgerWord.MAGIC] = fmt.LEDGER_MAGIC
        ledger = cls(file, source)
        gone = source.over_mask(source.published)
        if end := max(gone.rfind(1), skipped.rfind(1)) + 1:
            ledger.allocate(end)
            ledger.words[_ALLOCATED] = ledger.allocated
            there_before = skipped[:end].ljust(end, b"\0")
            states = (
                2 if before else 5 if over else 0
                for before, over in zip(there_before, gone[:end].ljust(end, b"\0"), strict=True)
            )
            ledger._map[ledger.layout.states : ledger.layout.states + end] = bytes(states)
            ledger.words[_SKIPPED] = there_before.count(1)
        ledger.appear(path)
        return ledger

    def appear(self, path: str) -> None:
        """A ledger that was made under another name is there, whole, from now on."""
        rename(self._file.path, path)
        self._file.path = path

    @classmethod
    def open(cls, path: str, source: Ledger | None = None) -> Ledger:
        """Raises FileNotFoundError, or DamagedError for a file that is no ledger."""
        file = MappedFile.open(path, fmt.PAGE)
        try:
            return cls(file, source)
        except DamagedError:
            file.close()
            raise

    # --- the producer's part ---

    def allocate(self, items: int) -> None:
        """Gives the entries below `items` their place on the disk. Raises StorageError, and then nothing has changed."""
        while self._allocated < items:
            self._file.allocate(self.layout.step(self._allocated // LEDGER_STEP))
            self._allocated += LEDGER_STEP

    @property
    def allocated(self) -> int:
        return self._allocated

    def adopt(self, owner: int, epoch: int) -> None:
        """The producer's slot and boot, on resuming a sealed segment."""
        self.words[_OWNER], self.words[_EPOCH] = owner, epoch

    def finalize(self) -> None:
        """The segment is never to be appended to again.

        Its RocksDB log may hold a block beyond `published` (the producer died, or the disk failed it, between the two): no
        reader looks there, but a later item of the same index could be mistaken for it.
        """
        self.words[LedgerWord.FINAL] = 1

    @property
    def final(self) -> bool:
        return self.words[LedgerWord.FINAL] != 0

    def unseal(self) -> None:
        """Items may follow again. After the name says so."""
        self.words[_SEALED] = 0

    def seal(self) -> None:
        """No item will follow; unused room is given back."""
        self.words[_LIMIT] = self.published
        self.words[_LIMIT_BYTES] = self.published_bytes()
        self.words[_SEALED] = 1

    def note_expiry(self, begin: int, count: int, expires_at: int) -> None:
        """`count` items from `begin` on expire then (milliseconds of the epoch). Before they are published."""
        if self.expires is not None:
            self.expires[begin : begin + count] = memoryview(array("Q", [expires_at]) * count)
            self.words[_LAPSE] = max(self.words[_LAPSE], expires_at)

    def note_sizes(self, begin: int, lengths: Iterable[int]) -> None:
        """The bytes of the items from `begin` on, where there is a byte limit. Before they are published."""
        sizes = self.sizes
        if sizes is None:
            return
        total = sizes[begin - 1] if begin else 0
        for i, length in enumerate(lengths, begin):
            total += length
            sizes[i] = total

    def reveal(self) -> int:
        """Makes items findable that were given back and not counted; returns how many."""
        with self.lock:
            found = self.hidden()
            if found:
                self.words[_RETURNED] += found
                self.words[LedgerWord.DUE] = 1  # long past: who looks works out when it really is
            return found

    def sync(self) -> None:
        self._file.sync()

    # --- the consumer's part ---

    def claim(self, count: int, slot: int, deadline: float = 0.0) -> tuple[int, int] | None:
        """Up to `count` free items that follow each other, as (begin, end), now claimed by `slot`; given-back ones first."""
        words, states_at = self.words, self.layout.states
        with self.lock:
            if self.must_be_chosen():
                return None
            while (span := self._free_span(count)) is not None and self.expires is not None and self._lapse(*span):
                pass
            if span is None:
                return None
            begin, end = span
            free = end - begin
            at = self.layout.owners + 2 * begin
            self._map[at : at + 2 * free] = slot.to_bytes(2, "little") * free
            if self.deadlines is not None:
                for i in range(begin, end):
                    self.deadlines[i] = deadline
            self._map[states_at + begin : states_at + end] = self._claimed[:free] if free <= LEDGER_STEP else CLAIMED * free
            if ARMED:
                reach("claim.marked")
            if end > words[_NEXT]:
                words[_NEXT] = end
            elif words[_RETURNED]:
                words[_RETURNED] = max(0, words[_RETURNED] - free)
            if ARMED:
                reach("claim.moved")
            return begin, end

    def take_fresh(self, i: int, words: memoryview[int], gets_at: int, gets: int) -> bool:
        """Marks the item to be claimed next as done, without claiming it first; False if it is not that any more (see `fresh`).

        `words[gets_at]` becomes `gets` before: what counts the gets of this handle.
        """
        with self.lock:
            if self.words[_NEXT] != i or self.states[i] or self.stored[_SEALED]:
                return False
            if ARMED:
                reach("get.taken")
            words[gets_at] = gets
            self.states[i] = _DONE_BYTE
            if ARMED:
                reach("get.done")
            self.words[_NEXT] = i + 1
            return True

    def _free_span(self, count: int) -> tuple[int, int] | None:
        """Up to `count` free items that follow each other; nothing is marked yet. Under the lock."""
        words, states_at = self.words, self.layout.states
        limit = self.published
        begin = min(words[_NEXT], limit)
        if words[_RETURNED]:
            found = self._map.find(FREE, states_at + self._prefix, states_at + begin) - states_at
            if found >= 0:
                limit, begin = begin, found
            else:
                words[_RETURNED] = 0
        end = min(begin + count, limit)
        if begin >= end:
            return None
        if self.source is not None and end > words[_ALLOCATED]:
            self._grow(end)
        window = self._map[states_at + begin : states_at + end]
        free = len(window) - len(window.lstrip(FREE))
        while not free:  # a claimer died between marking and moving `next`: pass over what it marked
            found = window.find(FREE)
            begin += found if found >= 0 else len(window)
            if begin >= limit:
                words[_NEXT] = max(words[_NEXT], begin)
                return None
            end = min(begin + count, limit)
            if self.source is not None and end > words[_ALLOCATED]:
                self._grow(end)
            window = self._map[states_at + begin : states_at + end]
            free = len(window) - len(window.lstrip(FREE))
        return begin, begin + free

    def _grow(self, items: int) -> None:
        """A label's arrays get their place on the disk for `items` items. Under the lock. Raises StorageError."""
        self._allocated = self.words[_ALLOCATED]
        self.allocate(items)
        self.words[_ALLOCATED] = self._allocated

    def _lapse(self, begin: int, end: int) -> bool:
        """Whether some of these free items had expired; they are marked now. Under the lock."""
        now, expires = now_ms(), self.expires
        if expires is None or min(expires[begin:end].tolist()) > now:
            return False
        for i in range(begin, end):
            if expires[i] <= now:
                self.states[i] = _MISSED_BYTE
        return True

    def lapse(self, now_ms: int) -> None:
        """Marks the items that expired before anybody claimed them.

        In a topic's producer's ledger nothing is claimed, so that the lock is not needed (nor, then, its descriptor).
        """
        expires = self.expires
        if expires is None:
            return
        known = self._known()
        for chunk in range(self._prefix // LEDGER_STEP, -(-known // LEDGER_STEP)):
            begin = chunk * LEDGER_STEP
            end = min(known, begin + LEDGER_STEP)
            seen, least = self._lapses.get(chunk, (begin, NEVER))
            if end > seen:
                least = min(least, *expires[seen:end].tolist())
            if least <= now_ms:
                with self._guard():
                    for i in range(begin, end):
                        if expires[i] <= now_ms and self.states[i] in (0, _DELAYED_BYTE):
                            self.states[i] = _MISSED_BYTE
                    mask = self._map[self.layout.states + begin : self.layout.states + end].translate(_OVER_MASK)
                least = min((e for e, over in zip(expires[begin:end].tolist(), mask, strict=True) if not over), default=NEVER)
            self._lapses[chunk] = (end, least)

    def _guard(self) -> contextlib.AbstractContextManager[None]:
        return self.lock if self._file.descriptor >= 0 else contextlib.nullcontext()

    def drop(self, end: int) -> None:
        """Items below `end` that nobody was handed go, for the sake of newer ones. Raises StorageError."""
        with self._guard():
            if self.source is not None and end > self.words[_ALLOCATED]:
                self._grow(end)
            at = self.layout.states
            self._map[at : at + end] = self._map[at : at + end].translate(_DROP)
            if self.source is not None:
                self.words[_NEXT] = max(self.words[_NEXT], end)

    def waive(self, mask: bytes) -> None:
        """Marks as done those free items that have a 1 in `mask`; in a topic's producer's ledger, where nobody claims."""
        states = self._known_states()
        for found in fmt.ONES.finditer(mask):
            for i in range(found.start(), found.end()):
                if not states[i]:
                    self.states[i] = _DONE_BYTE

    def write_off(self) -> tuple[int, int]:
        """The segment is gone: nothing can be claimed in it any more. Returns (acknowledged, missed) of a label's."""
        with self.lock:
            known, at, published = self._known(), self.layout.states, self.published
            states = self._map[at : at + known].translate(_DROP)
            self._map[at : at + known] = states
            self.words[_NEXT] = published
            return states.count(DONE) - self.words[_SKIPPED], states.count(MISSED) + published - known

    def give_back(self, begin: int, end: int, slot: int) -> int:
        """Frees those of the range that `slot` still has claimed and did not hand out; no delivery is counted."""
        with self.lock:
            return self._free([i for i in range(begin, end) if self.states[i] == 1 and self.owners[i] == slot], counted=False)

    def bury(self, begin: int, end: int, slot: int | None) -> int:
        """Marks as unreadable those of the range that are free or claimed by `slot` (None: by anybody); returns how many."""
        buried = 0
        with self.lock:
            for i in range(begin, end):
                state = self.states[i]
                if state == 0 or (state == 1 and self.owners[i] == slot) or (slot is None and state != _DONE_BYTE):
                    self.states[i] = _DEAD_BYTE
                    buried += 1
            if begin <= self.words[_NEXT] < end:
                self.words[_NEXT] = end
        return buried

    def put_right(self, living: set[int]) -> int:
        """Frees what nobody of the `living` slots holds, and items whose state is none; makes the header agree with the states.

        After a death all is right by itself; after a loss of power, or damage, words and states may be of different moments,
        or an owner's file gone. Returns how many items were freed.
        """
        with self.lock:
            known, words = self._known(), self.words
            words[_RETURNED] = 0
            states = self._map[self.layout.states : self.layout.states + known]
            for found in _NO_STATE.finditer(states):
                for i in range(found.start(), found.end()):
                    self.states[i] = 0
            words[_NEXT] = max(min(words[_NEXT], known), len(states.translate(_NONE_AS_FREE).rstrip(FREE)))
            freed = self._free([i for i in self._held() if self.owners[i] not in living], counted=True)
            end = self.layout.states + words[_NEXT]
            words[_RETURNED] = self._map[self.layout.states : end].count(FREE)
            if DELAYED in states:
                words[LedgerWord.DUE] = 1  # long past: who looks works out when it really is
            return freed

    def release(self, slot: int) -> int:
        """Frees all that `slot` holds; a delivery is counted for what it had handed out. Returns how many."""
        with self.lock:
            return self._free([i for i in self._held() if self.owners[i] == slot], counted=True)

    def forget_claims(self) -> None:
        """After a loss of power nobody holds anything, and what is on the disk of the claims and of `next` may be of different
        moments: all is free that is not over, and `next` and `returned` say so. Raises StorageError."""
        with self.lock:
            if self.source is not None:  # how far the arrays reach may be older than what is in them
                self._grow(self.published)
            self._free(self._held(), counted=True)
            self._free_delayed(None)
            states = self._known_states()
            end = len(states.rstrip(FREE))
            self.words[_RETURNED] = states.count(FREE, 0, end)
            self.words[_NEXT] = end

    def note_boot(self, epoch: int) -> None:
        """What it says is of this boot from now on."""
        self.words[_EPOCH] = epoch

    def expire(self, now: float) -> int:
        """Frees what is claimed under a lease that has run out; returns how many."""
        deadlines = self.deadlines
        if deadlines is None:
            return 0
        with self.lock:
            return self._free([i for i in self._held() if deadlines[i] < now], counted=True)
