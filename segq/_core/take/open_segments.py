"""The segments that a consumer has open, and whose turn it is.

Those of one lineage (one producer) go strictly in order, so that its items are claimed in the order put; among lineages the
one at hand, for a while, then the next, so that none starves. Consumers begin at different lineages, which spreads them
where there are several. Or, `oldest_first`, always the oldest segment that has free items.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from segq._core.base.errors import DamagedError, StorageError
from segq._core.directory.catalog import Catalog
from segq._core.directory.owners import Owner
from segq._core.format.format import SegmentName, State
from segq._core.recovery import recovery
from segq._core.take.reader import SegmentView

log = logging.getLogger("segq")

_READERS = 2  # segments whose blocks stay open for reading; where RocksDB has to do that, each is in memory whole (16 MiB)
_KEPT = 64  # segments kept open for the sake of those who look after all; the others are opened for a look


class Shelf:
    """Used under the consumer's lock only."""

    def __init__(self, catalog: Catalog, owner: Owner) -> None:
        self._catalog, self._owner = catalog, owner
        self._views: dict[str, SegmentView] = {}
        self._recent: list[SegmentView] = []
        self._pruned = -1
        self._looked_at = 0  # stamp of the last segment that was opened only for a look
        self.at_hand: SegmentView | None = None
        self.oldest_first = False

    # --- opening ---

    def known(self, name: SegmentName) -> SegmentView | None:
        return self._views.get(name.identity)

    def view(self, name: SegmentName) -> SegmentView | None:
        """The view of a segment, opened if need be; None if it is gone, was just quarantined, or is found finished."""
        view = self._views.get(name.identity)
        if view is None and (view := self.fresh(name)) is not None:
            self._views[name.identity] = view
            self.retire_if_complete(view)
            view = self._views.get(name.identity)
        return view

    def fresh(self, name: SegmentName) -> SegmentView | None:
        """A view that is not kept here."""
        try:
            ledger = self._catalog.ledger(name)
        except DamagedError as error:
            self._repair(name, error)
            return None
        if ledger is None:
            self._catalog.look_again()
            return None
        return SegmentView(self._catalog, name, ledger, self._owner)

    def begun(self, *, everything: bool = False) -> Iterator[SegmentView]:
        """The segments in which something may be claimed, each for a look: it may be closed after its turn.

        Where they are many, not all in one call, unless it has to be `everything`: who calls again comes to them in turn.
        """
        opened, first = 0, self._looked_at
        for name in sorted(self._catalog.names(), key=lambda name: name.stamp <= first):
            if name.state is State.READY:
                continue
            view = self._views.get(name.identity)
            if view is None and name.state is State.CHOSEN and not self._catalog.has_begun(name):
                continue
            if view is None and len(self._views) < _KEPT:
                view = self.view(name)
            if view is not None:
                yield view
            elif (everything or opened < _KEPT) and (view := self.fresh(name)) is not None:
                opened, self._looked_at = opened + 1, name.stamp
                yield view
                view.close()
                view.ledger.close()

    def turn_to(self, view: SegmentView) -> None:
        """From now on this is the segment at hand."""
        if self.at_hand is not view:
            self.retire_if_complete(self.at_hand)
        self.at_hand = view
        self._recent = [other for other in self._recent if other is not view] + [view]
        while len(self._recent) > _READERS:
            self._recent.pop(0).close()

    def read(self, view: SegmentView, i: int) -> bytes:
        """One item of a segment, whosever turn it is; nothing stays open for it. Raises DamagedError."""
        try:
            return view.read(i, i + 1)[0][0]
        finally:
            if view not in self._recent:
                view.close()

    def _repair(self, name: SegmentName, error: DamagedError) -> None:
        """A sealed segment's ledger cannot be read: make a new one, or set the segment aside."""
        with self._catalog.structure:
            found = self._catalog.locate(name)
            if found is None or found.state is State.LOADING:
                return
            try:
                again = self._catalog.ledger(found)
            except DamagedError:
                pass
            else:  # it was only being renamed, or somebody has mended it
                if again is not None:
                    again.close()
                return
            try:
                rebuilt = recovery.rebuild_ledger(self._catalog, found)
            except DamagedError as worse:
                self._catalog.quarantine(found, f"{error}; {worse}")
                return
            if rebuilt is not None:
                rebuilt.close()

    # --- whose turn it is ---

    def heads(self, slot: int) -> list[SegmentName]:
        """The oldest segment with free items of each lineage; the one after the lineage at hand first."""
        heads: list[SegmentName] = []
        seen: set[str] = set()
        self._prune()
        for name in list(self._catalog.names()):
            if name.lineage in seen:
                continue
            if name.state is not State.READY:
                view = self.view(name)
                if view is None or not view.ledger.available():
                    continue
            seen.add(name.lineage)
            heads.append(name)
        if self.oldest_first:
            turn = 0
        elif self.at_hand is None:
            turn = slot % len(heads) if heads else 0
        else:
            stamp = self.at_hand.name.stamp
            turn = next((i for i, name in enumerate(heads) if name.stamp > stamp), 0)
        return heads[turn:] + heads[:turn]

    def easy_first(self, heads: list[SegmentName]) -> list[SegmentName]:
        """Those before the others whose next items can be read without opening anything: a reader takes milliseconds."""
        if self.oldest_first:
            return heads
        easy = [name for name in heads if (view := self._views.get(name.identity)) is not None and view.at_hand()]
        return [*easy, *(name for name in heads if name not in easy)] if easy else heads

    def heads_its_lineage(self, view: SegmentView) -> bool:
        """Whether no older segment of the same producer has items free again (given back by somebody).

        `oldest_first`: of any producer.
        """
        for name in self._catalog.names():
            if name.stamp >= view.name.stamp:
                return True
            if self.oldest_first or name.lineage == view.name.lineage:
                if name.state is State.READY:
                    return False
                older = self.view(name)
                if older is not None and older.ledger.available():
                    return False
        return True

    def something_free(self) -> bool:
        """Whether there is anything to claim; nothing is claimed by looking."""
        for name in self._catalog.names():
            if name.state is State.READY:
                return True
            view = self.view(name)
            if view is not None and view.ledger.available():
                return True
        return False

    def at_ease(self) -> bool:
        """Whether all that is free can be claimed and read as it is: no name to be learned or changed, nothing to be opened."""
        if self._catalog.stale():
            return False
        for name in self._catalog.names():
            view = self._views.get(name.identity)
            if view is None or name.state is State.READY or (view.ledger.available() and not view.at_hand()):
                return False
        return True

    # --- letting go ---

    def retire_if_complete(self, view: SegmentView | None) -> None:
        """Removes the segment if it is sealed and all its items are done.

        Never raises for the disk's sake: its caller has items in hand that are acknowledged. Somebody will try again.
        """
        if view is not None and view.ledger.complete():
            view.close()
            try:
                self._catalog.retire(view.name, view.ledger)
            except StorageError as error:
                log.warning("%s is finished and cannot be removed yet: %s", view.name, error)
                return
            self._drop(view)

    def _prune(self) -> None:
        """Lets go of segments that are gone from the directory."""
        names, generation = self._catalog.names(), self._catalog.index.generation
        if generation != self._pruned:
            self._pruned = generation
            present = {name.identity for name in names}
            for identity in [identity for identity in self._views if identity not in present]:
                self._drop(self._views[identity])

    def _drop(self, view: SegmentView) -> None:
        """Messages may still be out: their ledger stays open as long as they live."""
        self._views.pop(view.name.identity, None)
        self._recent = [other for other in self._recent if other is not view]
        if self.at_hand is view:
            self.at_hand = None
        view.close()

    def close(self) -> None:
        """Retires what is complete, and lets go of everything."""
        for view in list(self._views.values()):
            self.retire_if_complete(view)
            self._drop(view)
            view.ledger.close()
