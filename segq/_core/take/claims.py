"""Items that a consumer has claimed, and how many it should claim at a time."""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from segq._core.base.errors import QueueError
from segq._core.base.failpoints import ARMED, reach
from segq._core.base.settings import Settings, positive_seconds
from segq._core.directory.index import Bell, Index
from segq._core.directory.owners import Owner
from segq._core.directory.wakeups import Alarm
from segq._core.format.blocks import Runs, put_time
from segq._core.format.format import DONE, HANDED, IndexWord, SegmentName
from segq._core.segment.ledger import Ledger
from segq._core.segment.ledger_view import monotonic_deadline, monotonic_ms

log = logging.getLogger("segq")

_HANDED_STATE, _DONE_STATE = HANDED[0], DONE[0]
_ROOM_SLEEPERS = int(IndexWord.ROOM_SLEEPERS)
AHEAD_SECONDS = 0.002  # work claimed at a time: a slow consumer must not hold items that others could process
MOST_AT_ONCE = 4096
AHEAD_BYTES = 4 << 20  # limit of the memory for items claimed ahead
_NONE_LEFT: deque[tuple[int, Any]] = deque(maxlen=0)
_GROWTH = 8  # a claim is at most this many times the last one: one quick item must not cause a large claim


class Claimant:
    """The consumer that claims: the data that all its claims share."""

    __slots__ = (
        "alarm", "bell", "closed", "index", "lease", "max_deliveries", "on_rejected", "on_settled", "owner", "slot", "words",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, index: Index, bell: Bell, settings: Settings,
        on_settled: weakref.WeakMethod[Callable[[SegmentName], None]],
        on_rejected: weakref.WeakMethod[Callable[[ClaimedItems, int, int, str], bool]],
    ) -> None:  # fmt: skip
        self.owner = owner  # stays alive as long as a message is unsettled, even if its handle was dropped
        self.slot, self.index, self.bell, self.alarm = owner.slot, index, bell, Alarm(bell, index)
        self.lease, self.max_deliveries = settings.lease, settings.max_deliveries
        self.on_settled, self.on_rejected, self.words = on_settled, on_rejected, index.words
        self.closed = False

    def deadline(self) -> float:
        return monotonic_deadline(self.lease) if self.lease is not None else 0.0


class ClaimedItems:
    """The claimed items begin … end-1 of one segment and their `values`; after `offer`, `left` holds those not handed out yet.

    `left` is a deque of (index, value). Taking from it is atomic: a thread in `get` and the keeper thread never take the
    same item. `gets_offset` + index is the handle's total of gets after that item is taken. `final` is the index of the
    segment's last item, if this claim has it and the segment is sealed: the thread that takes it retires the segment.
    """

    __slots__ = ("begin", "by", "contested", "deliveries", "end", "final", "gets_offset", "ledger", "left", "loaded_at", "name",
                 "owners", "runs", "states", "take", "unsettled", "values")  # fmt: skip

    def __init__(
        self, by: Claimant, name: SegmentName, ledger: Ledger, begin: int, end: int, values: list[Any], runs: list[Runs]
    ) -> None:
        self.by, self.name, self.ledger = by, name, ledger
        self.begin, self.end, self.values, self.runs = begin, end, values, runs
        self.states, self.owners, self.deliveries = ledger.states, ledger.owners, ledger.deliveries
        self.contested = ledger.contested
        self.left: deque[tuple[int, Any]] = _NONE_LEFT
        self.unsettled = 0  # unsettled messages; only a hint for when to check whether the segment is complete

    def offer(self, gets_before: int) -> None:
        """Makes the items available for threads to take one by one."""
        begin, ledger = self.begin, self.ledger
        self.final = self.end - 1 if ledger.sealed and self.end == ledger.published else -1
        self.gets_offset = gets_before + 1 - begin
        self.left = deque(zip(range(begin, self.end), self.values, strict=True))
        self.take: Callable[[], tuple[int, Any]] = self.left.popleft
        self.loaded_at = time.monotonic()

    @classmethod
    def nothing(cls) -> ClaimedItems:
        """An empty claim, used when nothing is claimed."""
        claimed = cls.__new__(cls)
        claimed.begin = claimed.end = 0
        claimed.left = deque()
        claimed.take = claimed.left.popleft
        claimed.loaded_at, claimed.gets_offset, claimed.final, claimed.contested = 0.0, 0, -1, False
        return claimed

    def gets_total(self) -> int:
        """The handle's total of gets after all these items are taken."""
        return self.gets_offset + self.end - 1

    # --- called by a message (see `message.Claim`) ---

    def identity(self, i: int) -> str:
        return f"{self.name.identity}-{i}"

    def time_of(self, i: int) -> float:
        return put_time(self.runs, i) / 1000

    def acknowledge(self, i: int, delivery: int) -> bool:
        by = self.by
        if by.closed:
            return False
        if self.contested:
            if not self.ledger.settle(i, by.slot, delivery):
                return False
        else:  # `settle` inlined, to save the call
            states = self.states
            if ARMED:
                reach("ack.begun")
            if states[i] != _HANDED_STATE or self.owners[i] != by.slot or self.deliveries[i] + 1 != delivery:
                return False
            states[i] = _DONE_STATE
            if ARMED:
                reach("ack.done")
        if by.words[_ROOM_SLEEPERS]:
            by.index.freed()
        self.unsettled -= 1
        if not self.unsettled and not self.left and self.ledger.sealed:
            on_settled = by.on_settled()
            if on_settled is not None:
                on_settled(self.name)
        return True

    def refuse(self, i: int, delivery: int, delay: float, reason: str) -> bool:
        by = self.by
        if by.closed:
            return False
        if by.max_deliveries is not None and delivery >= by.max_deliveries:
            try:
                return self.reject(i, delivery, spent_reason(delivery, reason))
            except QueueError as error:  # the next consumer to claim it tries again
                log.warning("%s cannot be moved to the dead letters yet: %s", self.identity(i), error)
        if delay:
            due = monotonic_ms() + math.ceil(delay * 1000)
            if not self.ledger.defer(i, by.slot, delivery, due):
                return False
            by.alarm.set(due)
            return True
        if not self.ledger.refuse(i, by.slot, delivery):
            return False
        by.bell.ring()
        return True

    def reject(self, i: int, delivery: int, reason: str) -> bool:
        by = self.by
        on_rejected = by.on_rejected()
        return not by.closed and on_rejected is not None and on_rejected(self, i, delivery, reason)

    def extend(self, i: int, delivery: int, seconds: float) -> bool:
        positive_seconds("seconds", seconds)
        by = self.by
        return not by.closed and self.ledger.extend(i, by.slot, delivery, monotonic_deadline(seconds))


def spent_reason(deliveries: int, last: str = "") -> str:
    """The reason stored with an item that exceeded its deliveries."""
    times = "once" if deliveries == 1 else f"{deliveries} times"
    return f"handed out {times} and not acknowledged" + (f"; at last: {last}" if last else "")


class Pace:
    """How many items to claim: about `AHEAD_SECONDS` of this consumer's work, estimated from its last items."""

    __slots__ = ("_count", "_fixed", "_most", "_per_item")

    def __init__(self, prefetch: int | None) -> None:
        self._fixed = prefetch
        self._count = 1
        self._per_item = AHEAD_SECONDS
        self._most = MOST_AT_ONCE

    def saw(self, size: int) -> None:
        """Records the size of an item of the last claim: fewer large items are claimed ahead."""
        self._most = max(1, min(MOST_AT_ONCE, AHEAD_BYTES // (size or 1)))

    def took(self, seconds: float, items: int) -> None:
        """Records how long the consumer worked on the last claim, without waiting."""
        per_item = max(seconds / items, 1e-7)
        # Slow down at once, speed up by halves: one slow item predicts the next better than one quick item.
        self._per_item = per_item if per_item > self._per_item else (self._per_item + per_item) / 2

    def count(self) -> int:
        if self._fixed is not None:
            return self._fixed
        self._count = max(1, min(int(AHEAD_SECONDS / self._per_item), self._count * _GROWTH, self._most))
        return self._count
