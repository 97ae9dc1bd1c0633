"""The segments that a consumer has open, and the order in which it takes from them.

Segments of one lineage (one producer) go strictly in order: a consumer claims the producer's items in the order put. A consumer
stays with one lineage for a while and then goes on to the next, so that none starves. Consumers begin at different lineages,
which spreads them. With `oldest_first` a consumer always takes from the oldest segment that has free items.
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

_READERS = 2  # segments that stay open for reading blocks; one read by RocksDB is in memory as a whole (16 MiB)
_KEPT = 64  # segments that maintenance keeps open; it opens the others for one look


class Shelf:
    """The open segments of one consumer. Call it only under the consumer's lock."""

    def __init__(self, catalog: Catalog, owner: Owner) -> None:
        self._catalog, self._owner = catalog, owner
        self._views: dict[str, SegmentView] = {}
        self._recent: list[SegmentView] = []
        self._pruned = -1
        self._looked_at = 0  # stamp of the last segment opened for one look only
        self.at_hand: SegmentView | None = None
        self.oldest_first = False

    # --- opening ---

    def known(self, name: SegmentName) -> SegmentView | None:
        return self._views.get(name.identity)

    def view(self, name: SegmentName) -> SegmentView | None:
        """The view of a segment, opened if necessary; None if the segment is gone, finished or just quarantined."""
        view = self._views.get(name.identity)
        if view is None and (view := self.fresh(name)) is not None:
            self._views[name.identity] = view
            self.retire_if_complete(view)
            view = self._views.get(name.identity)
        return view

    def fresh(self, name: SegmentName) -> SegmentView | None:
        """Opens a view and does not keep it."""
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
        """The segments in which items may be claimed. A view may be closed as soon as the loop goes on to the next.

        If there are many segments, one call yields only some of them and the next call goes on; `everything`: yields all.
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
        """Makes this the current segment (`at_hand`)."""
        if self.at_hand is not view:
            self.retire_if_complete(self.at_hand)
        self.at_hand = view
        self._recent = [other for other in self._recent if other is not view] + [view]
        while len(self._recent) > _READERS:
            self._recent.pop(0).close()

    def read(self, view: SegmentView, i: int) -> bytes:
        """Reads one item of any segment and leaves nothing open for it. Raises DamagedError."""
        try:
            return view.read(i, i + 1)[0][0]
        finally:
            if view not in self._recent:
                view.close()

    def _repair(self, name: SegmentName, error: DamagedError) -> None:
        """Rebuilds the unreadable ledger of a sealed segment, or moves the segment to quarantine."""
        with self._catalog.structure:
            found = self._catalog.locate(name)
            if found is None or found.state is State.LOADING:
                return
            try:
                again = self._catalog.ledger(found)
            except DamagedError:
                pass
            else:  # it was only being renamed, or another process has repaired it
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

    # --- the order of the segments ---

    def heads(self, slot: int) -> list[SegmentName]:
        """The oldest segment with free items of each lineage, beginning with the lineage after the current one."""
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
        """Puts segments first whose next items can be read without opening anything: opening a reader takes milliseconds."""
        if self.oldest_first:
            return heads
        easy = [name for name in heads if (view := self._views.get(name.identity)) is not None and view.at_hand()]
        return [*easy, *(name for name in heads if name not in easy)] if easy else heads

    def heads_its_lineage(self, view: SegmentView) -> bool:
        """Whether no older segment of the same producer has free items again (a consumer gave them back).

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
        """Whether any item can be claimed. Claims nothing."""
        for name in self._catalog.names():
            if name.state is State.READY:
                return True
            view = self.view(name)
            if view is not None and view.ledger.available():
                return True
        return False

    def at_ease(self) -> bool:
        """Whether all free items can be claimed and read without a directory listing, a rename or an open."""
        if self._catalog.stale():
            return False
        for name in self._catalog.names():
            view = self._views.get(name.identity)
            if view is None or name.state is State.READY or (view.ledger.available() and not view.at_hand()):
                return False
        return True

    # --- closing and removing ---

    def retire_if_complete(self, view: SegmentView | None) -> None:
        """Removes the segment if it is sealed and all its items are done.

        Never raises a disk error, because its caller holds items that are already acked. A later call tries again.
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
        """Closes the views of segments that are gone from the directory."""
        names, generation = self._catalog.names(), self._catalog.index.generation
        if generation != self._pruned:
            self._pruned = generation
            present = {name.identity for name in names}
            for identity in [identity for identity in self._views if identity not in present]:
                self._drop(self._views[identity])

    def _drop(self, view: SegmentView) -> None:
        """Forgets a view. Its ledger stays open as long as unsettled messages refer to it."""
        self._views.pop(view.name.identity, None)
        self._recent = [other for other in self._recent if other is not view]
        if self.at_hand is view:
            self.at_hand = None
        view.close()

    def close(self) -> None:
        """Retires complete segments and closes everything."""
        for view in list(self._views.values()):
            self.retire_if_complete(view)
            self._drop(view)
            view.ledger.close()
