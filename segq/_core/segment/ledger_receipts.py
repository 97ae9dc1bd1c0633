"""What becomes of an item that somebody has: handed out, acknowledged, given back at once or for later, given up.

An item given back *for later* is DELAYED until it is due. When that is stands in the ledger's header, which has its place on
the disk from the start, so that giving back cannot meet a full one: a table of times, its *buckets*; an item keeps the number
of its bucket where the slot of its owner stood. Times that lie near each other, measured by how far off they are, share one, so
that a few hundred are enough however many items wait (the idea of timing wheels, Varghese and Lauck 1987). The state is stored
before the bucket's number: who dies in between leaves an item that is due sooner or later than it should be, and never one
that nobody finds. The clock is the one of this boot; with the next all that was delayed is free.

An item *on its way to the dead letters* is noted in the header first. Whoever finds it there and free again knows that it may
be among them already.
"""

from __future__ import annotations

import re

from segq._core.base.failpoints import ARMED, reach
from segq._core.base.settings import MOST_DELIVERIES  # the count stays there
from segq._core.format.format import BUCKETS, BUCKETS_AT, DELAYED, DONE, HANDED, MISSED, MOVES, MOVES_AT, LedgerWord
from segq._core.segment.ledger_view import LedgerView, monotonic_ms, now_ms

_NEXT, _RETURNED = int(LedgerWord.NEXT), int(LedgerWord.RETURNED)
_DUE, _MOVING = int(LedgerWord.DUE), int(LedgerWord.MOVING)
_HANDED_BYTE, _DONE_BYTE, _MISSED_BYTE, _DELAYED_BYTE = HANDED[0], DONE[0], MISSED[0], DELAYED[0]
_DELAYED = re.compile(rb"\x06+")
_SHARE = 6  # times share a bucket when they differ by less than 1/64 of how far off they are: 256 are for 1 s to a minute
LONGEST_DELAY = 10 * 365 * 86_400_000  # milliseconds; what is due after that was never asked for: a damaged word


class ReceiptLedger(LedgerView):
    """The part of a ledger in which what is claimed comes to its end."""

    __slots__ = ()

    def hand(self, i: int, slot: int, deadline: float = 0.0) -> int:
        """Marks an item that `slot` has claimed as handed out; returns its delivery number (1 the first time), 0 if lost."""
        if self.contested:
            with self.lock:
                if not self._still_claimed(i, slot):
                    return 0
                if self.deadlines is not None:
                    self.deadlines[i] = deadline
                self.states[i] = _HANDED_BYTE
        else:
            self.states[i] = _HANDED_BYTE
        if ARMED:
            reach("receive.handed")
        return self.deliveries[i] + 1

    def settle(self, i: int, slot: int, delivery: int) -> bool:
        """Acknowledges item `i`, if the receipt (slot, delivery) still holds; False if somebody else may have it now."""
        if ARMED:
            reach("ack.begun")
        if self.deadlines is None:
            states = self.states
            if states[i] != _HANDED_BYTE or self.owners[i] != slot or self.deliveries[i] + 1 != delivery:
                return False
            states[i] = _DONE_BYTE
        else:
            with self.lock:
                if not self._holds(i, slot, delivery):
                    return False
                self.states[i] = _DONE_BYTE
        if ARMED:
            reach("ack.done")
        return True

    def settle_claimed(self, begin: int, end: int, slot: int) -> bytes | None:
        """Marks claimed items as done (handed over and acknowledged at once). None if that was so for all of them.

        Else (the ledger is contested) a 1 for each that was, a 0 for each that expired, was dropped, or whose claim ran out.
        """
        if not self.contested:
            at = self.layout.states
            self._map[at + begin : at + end] = DONE * (end - begin)
            return None
        kept = bytearray(end - begin)
        with self.lock:
            for i in range(begin, end):
                if self._still_claimed(i, slot):
                    self.states[i] = _DONE_BYTE
                    kept[i - begin] = 1
        return bytes(kept) if 0 in kept else None

    def _still_claimed(self, i: int, slot: int) -> bool:
        """Under the lock."""
        if self.states[i] != 1 or self.owners[i] != slot:
            return False
        if self.expires is not None and self.expires[i] <= now_ms():
            self.states[i] = _MISSED_BYTE
            return False
        return True

    def refuse(self, i: int, slot: int, delivery: int) -> bool:
        """Gives item `i` back, its delivery counted (nack); False if the receipt does not hold any more."""
        if ARMED:
            reach("nack.begun")
        with self.lock:
            if not self._holds(i, slot, delivery):
                return False
            self._free([i], counted=True)
        if ARMED:
            reach("nack.done")
        return True

    def extend(self, i: int, slot: int, delivery: int, deadline: float) -> bool:
        """Moves the end of the lease on item `i`; False if the receipt does not hold any more."""
        with self.lock:
            if not self._holds(i, slot, delivery):
                return False
            if self.deadlines is not None:
                self.deadlines[i] = deadline
            return True

    def holds(self, i: int, slot: int, delivery: int) -> bool:
        """Whether the receipt (slot, delivery) still holds."""
        with self.lock:
            return self._holds(i, slot, delivery)

    # --- later ---

    def defer(self, i: int, slot: int, delivery: int, due: int) -> bool:
        """Gives item `i` back, its delivery counted, to be free at `due` (monotonic milliseconds); False if it is not ours."""
        if ARMED:
            reach("nack.begun")
        with self.lock:
            if not self._holds(i, slot, delivery):
                return False
            self._delay(i, due, counted=True)
        if ARMED:
            reach("nack.done")
        return True

    def postpone(self, i: int, slot: int, due: int) -> bool:
        """The same for an item that was claimed and not handed out: no delivery is counted."""
        with self.lock:
            if not self._still_claimed(i, slot):
                return False
            self._delay(i, due, counted=False)
        return True

    def _delay(self, i: int, due: int, *, counted: bool) -> None:
        """Under the lock. Whatever may be needed to find the item is stored before its state."""
        words = self.words
        bucket = self._bucket(due)
        due = words[BUCKETS_AT + bucket]
        words[_DUE] = min(words[_DUE] or due, due)
        if ARMED:
            reach("delay.noted")
        if counted:
            self.deliveries[i] = min(MOST_DELIVERIES, self.deliveries[i] + 1)
        self.states[i] = _DELAYED_BYTE
        if ARMED:
            reach("delay.marked")
        self.owners[i] = bucket

    def _bucket(self, due: int) -> int:
        """The number of the bucket for `due`, or for a time near it if all are in use. Under the lock."""
        now, words = monotonic_ms(), self.words
        times = words[BUCKETS_AT : BUCKETS_AT + BUCKETS].tolist()
        latest = due + ((due - now) >> _SHARE)
        near = [time for time in times if due <= time <= latest]
        if near:
            return times.index(near[0])
        if 0 not in times and min(times) <= now:
            self._free_delayed(now)
            times = words[BUCKETS_AT : BUCKETS_AT + BUCKETS].tolist()
        if 0 not in times:
            return times.index(min(times, key=lambda time: abs(time - due)))
        bucket = times.index(0)
        words[BUCKETS_AT + bucket] = latest  # so that what is delayed as long a moment later finds it
        return bucket

    def free_due(self, now: int | None) -> int:
        """Frees the delayed items that are due at `now` (None: all of them); returns how many."""
        with self.lock:
            return self._free_delayed(now)

    def _free_delayed(self, now: int | None) -> int:
        """Under the lock."""
        words, owners = self.words, self.owners
        times = words[BUCKETS_AT : BUCKETS_AT + BUCKETS].tolist()
        due: list[int] = []
        used: set[int] = set()
        base = self._prefix
        for found in _DELAYED.finditer(self._map[self.layout.states + base : self.layout.states + self._known()]):
            for i in range(base + found.start(), base + found.end()):
                bucket = owners[i]
                if now is None or bucket >= BUCKETS or times[bucket] <= now or times[bucket] > now + LONGEST_DELAY:
                    due.append(i)
                else:
                    used.add(bucket)
        self._free(due, counted=False)
        if ARMED:
            reach("delay.freed")
        for bucket, time in enumerate(times):
            if time and bucket not in used:
                words[BUCKETS_AT + bucket] = 0
        words[_DUE] = min((times[bucket] for bucket in used), default=0)
        return len(due)

    # --- to the dead letters ---

    def spent(self, begin: int, end: int, most: int) -> list[int]:
        """Those of the range that were handed out `most` times and came back each time."""
        counts = self.deliveries[begin:end].tolist()
        return [begin + k for k, count in enumerate(counts) if count >= most] if max(counts) >= most else []

    def begin_move(self, i: int) -> None:
        """Notes that item `i` is on its way. Where there is no place for that (64 died in the middle of it) it is not noted:
        should its mover die as well, the item may be among the dead letters twice."""
        with self.lock:
            moves = self._moves()
            if i + 1 not in moves and 0 in moves:
                self.words[_MOVING] = 1
                self.words[MOVES_AT + moves.index(0)] = i + 1

    def end_move(self, i: int) -> None:
        """It has arrived, and is done here; or it never left."""
        with self.lock:
            moves = self._moves()
            for at, noted in enumerate(moves):
                if noted == i + 1:
                    self.words[MOVES_AT + at] = 0
            if not any(noted and noted != i + 1 for noted in moves):
                self.words[_MOVING] = 0

    def moves(self, begin: int, end: int) -> list[int]:
        """Those of the range that are noted as on their way."""
        return sorted({noted - 1 for noted in self._moves() if begin < noted <= end})

    def _moves(self) -> list[int]:
        return self.words[MOVES_AT : MOVES_AT + MOVES].tolist()

    # --- under the lock ---

    def _holds(self, i: int, slot: int, delivery: int) -> bool:
        return self.states[i] == _HANDED_BYTE and self.owners[i] == slot and self.deliveries[i] + 1 == delivery

    def _free(self, items: list[int], *, counted: bool) -> int:
        """Under the lock. The delivery is counted before the item is free, so that no claimer sees an old count."""
        # RETURNED is raised first, so that it is an upper bound at every instant: a surplus is put right by the next claim,
        # an item that is free and not counted would never be found.
        if items:
            self.words[_RETURNED] += sum(i < self.words[_NEXT] for i in items)
        for i in items:
            if counted and self.states[i] == _HANDED_BYTE:
                self.deliveries[i] = min(MOST_DELIVERIES, self.deliveries[i] + 1)
            gone = self.source is not None and self.source.states[i] == _MISSED_BYTE
            self.states[i] = _MISSED_BYTE if gone else 0
        return len(items)
