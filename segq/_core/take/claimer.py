"""Claiming: mark a range of items in the ledger of the next segment in turn, read them, decode them.

An item that cannot be read or decoded never stops the queue: the claimer sets it aside with the reason and tries the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from segq._core.base.errors import DamagedError, QueueError
from segq._core.base.settings import Settings
from segq._core.directory.catalog import Catalog
from segq._core.format.blocks import Runs, put_time
from segq._core.format.format import IndexWord
from segq._core.segment.blob import DamagedItem
from segq._core.segment.ledger_view import monotonic_ms
from segq._core.system import fs
from segq._core.take.claims import Claimant, ClaimedItems, Pace, spent_reason
from segq._core.take.dead_letter_writer import Burial
from segq._core.take.open_segments import Shelf
from segq._core.take.reader import SegmentView

log = logging.getLogger("segq")

_SHUTDOWN = int(IndexWord.SHUTDOWN)
_TURN_SECONDS = 0.25  # a consumer stays this long with one lineage while other lineages have items
_AGAIN_MS = 1000  # before the next attempt to move an item to the dead letters
_FEW = 4  # taking up to this many items one by one is cheaper than claiming them together
_VAIN = 5  # failed reads in a row; a rename during the read causes only one or two


class Claimer:
    """Claims and reads items for one consumer. Call it only under the consumer's lock."""

    def __init__(
        self, catalog: Catalog, shelf: Shelf, by: Claimant, pace: Pace, settings: Settings,
        loads: Callable[[bytes], Any] | None, burial: Burial,
    ) -> None:  # fmt: skip
        """`loads`: the deserializer; None to hand out the stored bytes."""
        self._catalog, self._shelf, self._by, self._pace, self._burial = catalog, shelf, by, pace, burial
        self._serializer, self._loads, self._max_deliveries = settings.serializer, loads, settings.max_deliveries
        self._bell, self._words = by.bell, catalog.index.words
        self._turn_began = 0.0

    def next(self, count: int) -> ClaimedItems | None:
        """Claims and reads up to `count` items of the next segment in turn; None if no item is free."""
        if self._words[_SHUTDOWN] == 2:
            return None
        now, shelf = time.monotonic(), self._shelf
        view = shelf.at_hand
        if view is not None and now - self._turn_began < _TURN_SECONDS and shelf.heads_its_lineage(view):
            claimed = self._claim_in(view, count)
            if claimed is not None:
                return claimed
        if now - self._turn_began < _TURN_SECONDS:
            heads = shelf.easy_first(shelf.heads(self._by.slot))
        else:
            self._turn_began = now
            heads = shelf.heads(self._by.slot)
        for name in heads:
            view = shelf.view(name)
            claimed = self._claim_in(view, count) if view is not None else None
            if view is not None and claimed is not None:
                if view is not shelf.at_hand:
                    shelf.turn_to(view)
                return claimed
        return None

    def fresh(self, now: float) -> tuple[SegmentView, int, Any] | None:
        """Reads the next item without claiming it, if few items wait and a copy and decoding are enough to read it.

        This is the case for a consumer that keeps up; it saves most of the cost of a claim. None: call `next` instead.
        """
        view = self._shelf.at_hand
        if view is None or now - self._turn_began >= _TURN_SECONDS or self._words[_SHUTDOWN] == 2:
            return None
        i = view.ledger.fresh(_FEW)
        if i < 0 or not self._shelf.heads_its_lineage(view) or (data := view.live_item(i)) is None:
            return None
        try:
            return view, i, self._loads(data) if self._loads is not None else data
        except Exception:  # any error of a deserializer; `next` meets it again and sets the item aside
            return None

    def at_ease(self) -> bool:
        """Whether `next` needs to open nothing: then it takes about ten microseconds, otherwise about ten milliseconds."""
        shelf, view = self._shelf, self._shelf.at_hand
        if view is not None and time.monotonic() - self._turn_began < _TURN_SECONDS and not self._catalog.stale():
            ledger = view.ledger
            if ledger.available() and not ledger.must_be_chosen() and view.at_hand() and shelf.heads_its_lineage(view):
                return True
        return shelf.at_ease()

    def span(self, view: SegmentView, count: int) -> tuple[int, int] | None:
        """Claims up to `count` adjacent items in one segment without reading them."""
        ledger = view.ledger
        if ledger.must_be_chosen():
            self._catalog.choose(view.name, ledger)
        return ledger.claim(count, self._by.slot, self._by.deadline())

    def _claim_in(self, view: SegmentView, count: int) -> ClaimedItems | None:
        vain = 0
        while (span := self.span(view, count)) is not None:
            begin, end = span
            try:
                raw, runs = view.read(begin, end)
                if (self._max_deliveries is not None or view.ledger.moving) and self._moved(view, begin, end, raw, runs):
                    continue
                values = self._decoded(view, begin, raw)
            except DamagedError as error:
                if self._catalog.locate(view.name) is None:  # the whole segment was dropped or has expired
                    return None
                vain = 0 if self._salvage(view, begin, end, error, last=vain == _VAIN) else vain + 1
                continue
            except BaseException:  # the user's serializer can raise anything, KeyboardInterrupt too
                view.ledger.give_back(begin, end, self._by.slot)
                raise
            if len(values) != len(raw):
                continue
            self._pace.saw(len(raw[0]))
            if view.ledger.available():
                self._bell.ring()
            return ClaimedItems(self._by, view.name, view.ledger, begin, end, values, runs)
        return None

    def _moved(self, view: SegmentView, begin: int, end: int, raw: list[bytes], runs: list[Runs]) -> bool:
        """Moves exhausted items of the range to the dead letters; True if any was moved, earlier or now, or must be retried.

        If True, the other items are free again. An item that cannot be moved now (disk full, say) is retried later.
        """
        ledger, slot, most = view.ledger, self._by.slot, self._max_deliveries
        begun = set(ledger.moves(begin, end)) if ledger.moving else set[int]()
        spent = set(ledger.spent(begin, end, most)) if most is not None else set[int]()
        gone = False
        for i in sorted(begun | spent):
            try:
                arrived = i in begun and self._burial.has_arrived(view.name, i)
                if not arrived and i in spent:
                    count = ledger.deliveries[i]
                    at = put_time(runs, i) / 1000
                    self._burial.move(
                        view.name, ledger, i, raw[i - begin], reason=spent_reason(count), deliveries=count, enqueued_at=at
                    )
                    arrived = True
            except (QueueError, OSError) as error:
                log.warning("%s-%d cannot be moved to the dead letters yet: %s", view.name.identity, i, error)
                due = monotonic_ms() + _AGAIN_MS
                if ledger.postpone(i, slot, due):
                    self._by.alarm.set(due)
                gone = True
                continue
            if arrived:
                ledger.settle_claimed(i, i + 1, slot)
                gone = True
            self._burial.moved(ledger, i)
        if gone:
            ledger.give_back(begin, end, slot)
            self._by.index.freed(len(raw))
            self._shelf.retire_if_complete(view)
        return gone

    def decoded_or_nothing(self, raw: list[bytes]) -> list[Any]:
        """The decoded values, or an empty list if one cannot be decoded (for a read-only look)."""
        try:
            return [self._loads(data) for data in raw] if self._loads is not None else list(raw)
        except Exception:  # any error of a deserializer
            return []

    def _decoded(self, view: SegmentView, begin: int, raw: list[bytes]) -> list[Any]:
        """The decoded values; empty if any cannot be decoded: those go to quarantine, the others are free again."""
        loads = self._loads
        if loads is None:
            return raw
        try:
            return [loads(data) for data in raw]
        except Exception:  # any error of a deserializer; the loop below finds the item
            log.debug("decoding item by item", exc_info=True)
        for i, data in enumerate(raw, begin):
            try:
                loads(data)
            except Exception as error:
                reason = f"cannot be decoded with serializer={self._serializer!r}: {error!r}"
                place = fs.quarantine_bytes(self._catalog.queue, f"{view.name.identity}-{i}.item", data, reason)
                extra = {"event": "quarantine", "queue": self._catalog.queue, "segment": str(view.name)}
                log.error("quarantined %s: %s", place, reason, extra=extra | {"place": place, "reason": reason})
                view.ledger.settle_claimed(i, i + 1, self._by.slot)
        view.ledger.give_back(begin, begin + len(raw), self._by.slot)
        return []

    def _salvage(self, view: SegmentView, begin: int, end: int, error: DamagedError, *, last: bool) -> int:
        """Marks the unreadable items of the range dead and gives back the rest. Returns how many it marked.

        In a sealed segment it marks all items before the next whole block at once; in a loading segment, only claimed items.
        A damaged open batch can contradict itself: each item can be read alone, but never all together. At the `last`
        attempt, all of them are marked dead.
        """
        i, ledger, dead = begin, view.ledger, 0
        while i < end:
            try:
                view.read(i, i + 1)
                i += 1
            except DamagedItem:
                dead += ledger.bury(i, i + 1, self._by.slot)
                log.error("%s: item %d cannot be read: %s", view.name, i, error)
                i += 1
            except DamagedError:
                stop = max(i + 1, view.readable_from(i, ledger.published if ledger.sealed else end))
                dead += (buried := ledger.bury(i, stop, self._by.slot))
                log.error("%s: %d items from %d on cannot be read: %s", view.name, buried, i, error)
                i = stop
        if last and not dead:
            dead = ledger.bury(begin, end, self._by.slot)
            log.error("%s: %d items from %d on cannot be read: %s", view.name, dead, begin, error)
        ledger.give_back(begin, end, self._by.slot)
        self._shelf.retire_if_complete(view)
        return dead
