"""Maintenance that one consumer does for all: expired leases, delayed items, dead owners, segments left over."""

from __future__ import annotations

import time

from segq._core.directory.catalog import Catalog
from segq._core.directory.index import AT_LEISURE, LOOK_AGAIN
from segq._core.format.format import IndexWord, OwnerWord
from segq._core.recovery import recovery
from segq._core.segment.ledger_view import monotonic_ms
from segq._core.take.claims import Claimant
from segq._core.take.dead_letter_writer import Burial
from segq._core.take.open_segments import Shelf

LOOK_AFTER = 0.25  # seconds between checks of whether a recovery is due, while busy
_MANY = 16  # waiting consumers: if the one that does the maintenance dies, another wakes up soon


class Caretaker:
    """Call it only under the consumer's lock, except `pause`, `is_due` and `is_late`."""

    __slots__ = (
        "_alarm", "_bell", "_burial", "_catalog", "_every", "_index", "_lease", "_leisure", "_looked_after", "_shelf", "_slot",
        "_waited_at",
    )  # fmt: skip

    def __init__(self, catalog: Catalog, shelf: Shelf, by: Claimant, burial: Burial) -> None:
        self._catalog, self._index, self._shelf, self._burial = catalog, catalog.index, shelf, burial
        self._bell, self._alarm, self._slot, self._lease = by.bell, by.alarm, by.slot, by.lease
        self._looked_after = 0.0
        self._leisure = 1
        self._waited_at = catalog.index.owner_word(by.slot, OwnerWord.WAITED)
        self._every = LOOK_AFTER if by.lease is None else min(LOOK_AFTER, by.lease / 10)

    def is_due(self) -> bool:
        """Whether a consumer should do the maintenance before it sleeps."""
        return time.monotonic() - self._looked_after > self._every

    def is_late(self) -> bool:
        """Whether even a busy consumer should do the maintenance."""
        return time.monotonic() - self._looked_after > 2 * self._every

    def pause(self) -> float:
        """How many seconds a waiting consumer may sleep before the next maintenance or delayed item (0 or less: now).

        Where many wait, a consumer sleeps longer if another has just looked for dead owners: waking a process with cold
        caches costs a tenth of a millisecond, even if it does little.
        """
        self._index.words[self._waited_at] = monotonic_ms()
        left = LOOK_AGAIN * self._leisure if self._lease is None else min(LOOK_AGAIN, max(0.01, self._lease / 10))
        return left if (due_in := self._alarm.left()) is None else min(left, due_in)

    def look_after_others(self) -> None:
        self._looked_after = time.monotonic()
        if self._lease is not None:
            self._expire()
        self._free_due()
        if not self._index.turn_to_rescue():
            self._leisure = min(2 * self._leisure, AT_LEISURE) if self._index.waiting(monotonic_ms()) >= _MANY else 1
        else:
            self._leisure = 1
            self._catalog.look_again()
            if recovery.rescue(self._catalog, self._slot):
                self._burial.rescue()
            if self._catalog.labelled:
                self._catalog.tidy()
            self._clear_away()

    def see_to_the_alarm(self) -> None:
        """Frees delayed items, if the first of them is due."""
        if self._alarm.rings():
            self._free_due(everything=True)

    def _clear_away(self) -> None:
        """Removes segments that are complete; seals those that a producer could not seal."""
        for view in self._shelf.begun():
            self._shelf.retire_if_complete(view)
            if not view.ledger.sealed and not view.ledger.owner:  # its producer could not seal it on close
                with self._catalog.structure:
                    recovery.rescue_orphans(self._catalog)

    def _expire(self) -> None:
        now = time.monotonic()
        freed = sum(view.ledger.expire(now) for view in self._shelf.begun(everything=True))
        if freed:
            self._index.add(IndexWord.REDELIVERED, freed)
            self._bell.ring()

    def _free_due(self, *, everything: bool = False) -> None:
        """Frees the delayed items that are due, and sets the alarm to the next one."""
        now, freed, following = monotonic_ms(), 0, 0
        for view in self._shelf.begun(everything=everything):
            ledger = view.ledger
            if ledger.due and ledger.due <= now:
                freed += ledger.free_due(now)
            if due := ledger.due:
                following = min(following or due, due)
        if following:
            self._alarm.set(following)
        if freed:
            self._bell.ring(freed)
