"""The segments of a queue and their life cycle: which renames of a segment are allowed, and when.

`LIFE` is the only table of them; no other code renames a segment. Every change is one atomic rename under the structure lock.
A new generation in the index follows it and tells other handles that their list is old. The directory holds the true names;
the lists kept here are caches.
"""

from __future__ import annotations

import dataclasses
import logging
import operator
import os
import time
import uuid
from collections.abc import Iterator
from typing import Protocol

from segq._core.base.errors import DamagedError, NotAQueueError, StorageError
from segq._core.base.failpoints import ARMED, reach
from segq._core.base.settings import Settings
from segq._core.directory.index import Index
from segq._core.format import format as fmt
from segq._core.format.format import IndexWord, LedgerFlag, SegmentName, State
from segq._core.segment.ledger import Ledger
from segq._core.segment.ledger_view import now_ms
from segq._core.system import fs
from segq._core.system.locks import StructureLock

log = logging.getLogger("segq")
log.addHandler(logging.NullHandler())  # a library logs nothing unless its user wants it

LIFE: dict[tuple[State, State], str] = {
    (State.READY, State.LOADING): "a producer resumes the untouched tail of a lineage",
    (State.LOADING, State.READY): "sealed by its producer or a rescuer, nothing claimed in it",
    (State.LOADING, State.CHOSEN): "sealed by its producer or a rescuer, something claimed or done",
    (State.READY, State.CHOSEN): "the first consumer is about to claim in it",
    (State.LOADING, State.REMOVED): "sealed, and every item done",
    (State.CHOSEN, State.REMOVED): "every item done",
    (State.READY, State.REMOVED): "every item expired, or was dropped, or was there before every label",
}
_identity = operator.attrgetter("identity")
_LISTINGS = 16  # attempts to list the directory without a change, before taking the lock


@dataclasses.dataclass(frozen=True, slots=True)
class Loading:
    """A segment just created or resumed by this handle."""

    name: SegmentName
    path: str
    ledger: Ledger
    resumed: bool


class Ringer(Protocol):
    """Wakes consumers when items arrive."""

    def ring(self, count: int = 1) -> None: ...
    def ring_all(self) -> None: ...


class Catalog:
    """The directory as one handle sees it."""

    labelled = False  # whether an item goes to every label instead of to one consumer

    def __init__(self, queue: str, settings: Settings, index: Index, structure: StructureLock) -> None:
        self.queue = queue
        self.index = index
        self.structure = structure
        self.bell: Ringer = index.items
        self._settings = settings
        self._durable = settings.durability == "power"
        self.items = settings.segment_items
        self.flags = LedgerFlag(0)
        if settings.lease:
            self.flags |= LedgerFlag.DEADLINES
        if settings.max_bytes:
            self.flags |= LedgerFlag.SIZES
        self._names: list[SegmentName] = []
        self._seen = -1

    # --- looking ---

    def names(self) -> list[SegmentName]:
        """All segments that are not being removed, oldest first; lists the directory only after a change."""
        if self.index.generation != self._seen:
            self._names, self._seen = self._settled_list()
        return self._names

    def known(self) -> list[SegmentName] | None:
        """`names` without waiting for a lock; None if the directory must be read first."""
        return self._names if self.index.generation == self._seen else None

    def stale(self) -> bool:
        """Whether `names` would have to read the directory."""
        return self.index.generation != self._seen

    def _settled_list(self) -> tuple[list[SegmentName], int]:
        """The names at one moment, and their generation.

        Reading a large directory takes several system calls, between which a rename can hide an entry or show it twice.
        """
        index = self.index
        for _attempt in range(_LISTINGS):
            generation = index.generation
            if not generation & 1:
                names = self.listed()
                if index.generation == generation:
                    return names, generation
        with self.structure:
            if index.generation & 1:  # a process died in the middle of a change
                index.changed()
            return self.listed(), index.generation

    def look_again(self) -> None:
        """Forgets the list: a new generation may have been lost with the index, but the directory is right."""
        self._seen = -1

    def listed(self, *, removed: bool = False) -> list[SegmentName]:
        """The names in the directory now, oldest first."""
        try:
            entries = fs.directories(self.queue)
        except FileNotFoundError:
            raise NotAQueueError(
                f"{self.queue} is gone: the queue was removed while this handle was open", path=self.queue
            ) from None
        found = (fmt.parse_segment(entry) for entry in entries)
        chosen = [name for name in found if name and (name.state is State.REMOVED) == removed]
        chosen.sort(key=_identity)
        return chosen

    def path(self, name: SegmentName) -> str:
        return os.path.join(self.queue, str(name))

    def locate(self, name: SegmentName) -> SegmentName | None:
        """The segment with its current name; None if it is gone."""
        return fs.locate(self.queue, name)

    def ledger(self, name: SegmentName) -> Ledger | None:
        """Opens the ledger of a segment under its current name; None if the segment is gone. Raises DamagedError."""
        for _attempt in range(8):  # each failure means a rename between the lookup and the open
            found = self.locate(name)
            if found is None:
                return None
            try:
                return Ledger.open(os.path.join(self.path(found), fmt.LEDGER_FILE))
            except FileNotFoundError:
                if str(self.locate(name)) == str(found):  # names compare without their state
                    raise DamagedError(f"{self.path(found)} has no ledger", path=self.queue, segment=str(found)) from None
        return None

    def has_begun(self, _name: SegmentName) -> bool:
        """Whether a consumer that uses this catalog may have claimed items in a chosen segment."""
        return True

    # --- changing ---

    def create(self, lineage: str | None, items: int, slot: int, epoch: int, *, expiring: bool = False) -> Loading:
        """Creates a loading segment for up to `items` items, which may expire. Raises StorageError and leaves none."""
        flags = self.flags | LedgerFlag.EXPIRES if expiring else self.flags
        with self.structure:
            name = SegmentName(self._stamp(), lineage or new_lineage(), State.LOADING)
            path = self.path(name)
            fs.make_directory(path)
            if ARMED:
                reach("create.named")
            try:
                ledger = Ledger.create(os.path.join(path, fmt.LEDGER_FILE), items, flags, slot, epoch)
            except BaseException:
                fs.remove_tree(path)
                raise
            if ARMED:
                reach("create.ledger")
            if self._durable:
                ledger.sync()
                fs.sync_directory(path)
                fs.sync_directory(self.queue)
            self.index.changed()
        return Loading(name, path, ledger, resumed=False)

    def resume(self, items: int, slot: int, epoch: int, *, expiring: bool = False) -> Loading | None:
        """Resumes the youngest segment for this handle, if it is the untouched tail of its lineage and has room."""
        with self.structure:
            names = self.listed()
            tails = {name.lineage: name for name in names}
            for name in sorted(tails.values(), reverse=True):
                if name.state is not State.READY:
                    continue
                try:
                    ledger = Ledger.open(os.path.join(self.path(name), fmt.LEDGER_FILE))
                except (DamagedError, FileNotFoundError):
                    continue
                with ledger.lock:
                    roomy = (
                        not ledger.final
                        and ledger.untouched()
                        and self._resumable(name)
                        and ledger.published <= items // 2
                        and ledger.layout.items == items
                        and (ledger.expires is not None or not expiring)
                    )
                    if roomy and ledger.epoch == epoch:
                        ledger.adopt(slot, epoch)
                        self._tidy(name)
                        loading = self._move(name, State.LOADING)
                        if ARMED:
                            reach("resume.renamed")
                        if loading is not None:
                            ledger.unseal()
                            return Loading(loading, self.path(loading), ledger, resumed=True)
                ledger.close()
                return None  # only the youngest: going back further would interleave old work with new
        return None

    def _resumable(self, _name: SegmentName) -> bool:
        """Whether no label has already fixed which items of the segment it skips."""
        return True

    def seal(self, name: SegmentName, ledger: Ledger) -> SegmentName | None:
        """Renames a loading segment with all items in RocksDB to ready, chosen or (all done: returns None) removed."""
        with self.structure:
            with ledger.lock:  # no claim between the look at `next` and the new name
                ledger.seal()
                if ARMED:
                    reach("seal.marked")
                if self._durable:
                    ledger.sync()
                target = self._sealed_as(ledger)
                try:
                    sealed = self._move(name, target)
                except BaseException:
                    ledger.unseal()
                    raise
                if target is State.CHOSEN:
                    ledger.chosen()
            if ARMED:
                reach("seal.renamed")
            if sealed is not None and target is not State.REMOVED:
                self._tidy(sealed)
            if sealed is not None:
                extra = {"event": "seal", "queue": self.queue, "segment": str(sealed), "items": ledger.published}
                log.debug("sealed %s", sealed, extra=extra)
            if ARMED:
                reach("seal.tidied")
        if target is State.REMOVED:
            fs.remove_tree(self.path(name.in_state(State.REMOVED)))
            return None
        return sealed

    def _sealed_as(self, ledger: Ledger) -> State:
        if ledger.done() == ledger.published and not ledger.dead():
            return State.REMOVED
        return State.READY if ledger.untouched() else State.CHOSEN

    def _tidy(self, name: SegmentName) -> None:
        """Removes the open batch, whose items are all in RocksDB. A failure does no harm: no reader uses the batch of a sealed
        segment. The rename is already done, so the caller must not fail."""
        try:
            fs.unlink(os.path.join(self.path(name), fmt.BATCH_FILE))
        except StorageError as error:
            log.warning("%s: its open batch cannot be removed: %s", name, error, extra={"segment": str(name)})

    def choose(self, name: SegmentName, ledger: Ledger) -> None:
        """Renames a ready segment to chosen, before the first claim in it."""
        with self.structure, ledger.lock:
            if ledger.must_be_chosen():
                self._move(name.in_state(State.READY), State.CHOSEN)
                ledger.chosen()
            if ARMED:
                reach("claim.chosen")

    def correct(self, name: SegmentName, ledger: Ledger) -> None:
        """Renames a ready segment with claims to chosen (power failed between the claim and the rename)."""
        with self.structure, ledger.lock:
            if self._move(name.in_state(State.READY), State.CHOSEN) is not None:
                ledger.chosen()

    def retire(self, name: SegmentName, ledger: Ledger) -> bool:
        """Removes a sealed segment whose items are all done; False if they are not, or if another process removed it."""
        if ARMED:
            reach("retire.begun")
        with self.structure:
            found = self.locate(name)
            if found is None or found.state is State.LOADING or not self.finished(found, ledger):
                return False
            if dead := self._dead(found, ledger):
                self.quarantine(found, f"{dead} of its {ledger.published} items could not be read; all others were delivered")
                return True
            gone = self._take_away(found, ledger)
        if ARMED:
            reach("retire.renamed")
        if gone is not None:
            fs.remove_tree(self.path(gone))
            if ARMED:
                reach("retire.deleted")
        return gone is not None

    def finished(self, _name: SegmentName, ledger: Ledger) -> bool:
        """Whether no consumer needs the segment any more."""
        return ledger.complete()

    def _dead(self, _name: SegmentName, ledger: Ledger) -> int:
        """How many of its items could not be read."""
        return ledger.dead()

    def _take_away(self, name: SegmentName, ledger: Ledger) -> SegmentName | None:
        """Renames a finished segment. Under the structure lock."""
        gone = self._move(name, State.REMOVED)
        if gone is not None and (missed := ledger.missed()):
            self.index.add(IndexWord.EXPIRED, missed)
        return gone

    def holders(self, name: SegmentName) -> Iterator[Ledger]:
        """The ledgers that note claims on a segment's items, each open only for its iteration. Under the structure lock."""
        try:
            ledger = Ledger.open(os.path.join(self.path(name), fmt.LEDGER_FILE))
        except (DamagedError, FileNotFoundError):
            return
        yield ledger
        ledger.close()

    def settle_name(self, name: SegmentName, ledger: Ledger) -> SegmentName:
        """After power loss: renames a sealed segment to chosen if a consumer had begun with it. Under the structure lock."""
        found = name
        if name.state is State.READY and not ledger.untouched():
            found = self._move(name, State.CHOSEN) or name
        if found.state is State.CHOSEN:
            ledger.chosen()
        return found

    def own_holders(self, name: SegmentName) -> Iterator[Ledger]:
        """Those `holders` in which this handle may have claimed items."""
        return self.holders(name)

    def all_done(self, _name: SegmentName, ledger: Ledger, begin: int, end: int) -> bool:
        """Whether no consumer will read the items begin … end-1 again."""
        return ledger.all_done(begin, end)

    def gone(self, _name: SegmentName, ledger: Ledger) -> tuple[int, int]:
        """Items (and their bytes) of a segment that no longer count against the capacity."""
        if ledger.expires is not None:
            ledger.lapse(now_ms())
        return ledger.done(), ledger.done_bytes()

    def make_room(self) -> bool:
        """Drops old items to make room, if the settings allow it; False if it dropped nothing."""
        return False

    def tidy(self) -> None:
        """Marks expired items and removes finished segments. Useful only where items expire."""
        now = now_ms()
        for name in list(self.names()):
            try:
                ledger = self.ledger(name)
            except DamagedError:
                continue
            if ledger is not None:
                ledger.lapse(now)
                if ledger.complete():
                    self.retire(name, ledger)
                ledger.close()

    def discard(self, name: SegmentName) -> None:
        """Removes a loading segment in which nothing was ever published. Under the structure lock."""
        gone = self._move(name, State.REMOVED)
        if gone is not None:
            fs.remove_tree(self.path(gone))

    def quarantine(self, name: SegmentName, reason: str) -> None:
        """Moves an unreadable segment to quarantine, where people can examine it."""
        with self.structure:
            found = self.locate(name)
            if found is None:
                return
            self.index.changing()
            try:
                place = fs.quarantine(self.queue, str(found), reason)
            finally:
                self.index.changed()
        extra = {"event": "quarantine", "queue": self.queue, "segment": str(found), "place": place, "reason": reason}
        log.error("quarantined %s: %s", place, reason, extra=extra)

    def sweep(self) -> None:
        """Finishes deletions that a dying process left half done. Under the structure lock."""
        for name in self.listed(removed=True):
            fs.remove_tree(self.path(name))

    def _move(self, name: SegmentName, target: State) -> SegmentName | None:
        """Does one step of `LIFE`, under the structure lock; None if the segment does not have this name (any more)."""
        if (name.state, target) not in LIFE:
            raise AssertionError(f"no step from {name.state} to {target}")
        moved = name.in_state(target)
        self.index.changing()
        try:
            fs.rename(self.path(name), self.path(moved))
        except FileNotFoundError:
            return None
        finally:
            self.index.changed()
        if self._durable:
            try:
                fs.sync_directory(self.queue)
            except StorageError as error:  # the rename is done; after a power failure it is repeated from the old name
                log.warning("%s: its new name may not survive loss of power: %s", moved, error)
        return moved

    def _stamp(self) -> int:
        """The clock in nanoseconds, but always greater than every earlier stamp. Under the structure lock."""
        words = self.index.words
        newest = max((name.stamp for name in self.listed()), default=0)
        last = words[IndexWord.LAST_STAMP]
        stamp = max(time.time_ns(), newest + 1, last + 1 if last < 1 << 62 else 0)  # ignores an absurd stamp of a damaged index
        words[IndexWord.LAST_STAMP] = stamp
        return stamp


def new_lineage() -> str:
    return uuid.uuid4().hex[:12]
