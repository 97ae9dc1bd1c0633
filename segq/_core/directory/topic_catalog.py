"""A topic's segments and their life cycle. A segment is removed when every label has finished it, when all its items have
expired, or when it is dropped for newer items.

The producer's ledger notes expired and dropped items; `labels` knows what each label has finished. No label has begun with a
`ready` segment: a label's ledger is created under the structure lock, after the segment was renamed to `chosen`. For a loading
segment, the ledger first notes that the segment will become `chosen`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from segq._core.base.errors import DamagedError, StorageError
from segq._core.base.failpoints import ARMED, reach
from segq._core.base.settings import Settings
from segq._core.directory.catalog import Catalog
from segq._core.directory.index import Index
from segq._core.directory.label import Label
from segq._core.directory.labels import Chime, Labels
from segq._core.format import format as fmt
from segq._core.format.format import LedgerFlag, SegmentName, State
from segq._core.segment.ledger import Ledger
from segq._core.segment.ledger_view import now_ms
from segq._core.system import fs
from segq._core.system.locks import StructureLock


class TopicCatalog(Catalog):
    """The directory of a topic as one handle sees it."""

    labelled = True

    def __init__(self, queue: str, settings: Settings, index: Index, structure: StructureLock) -> None:
        super().__init__(queue, settings, index, structure)
        self.labels = Labels(queue, settings, index)
        self.bell = Chime(self.labels, index)
        self.flags &= ~LedgerFlag.DEADLINES  # each label's ledger has the leases
        if settings.droppable:
            self.flags |= LedgerFlag.DROPPABLE
        self._mapped: dict[str, Ledger] = {}

    # --- looking ---

    def mapped(self, name: SegmentName) -> Ledger | None:
        """The producer's ledger of a segment, for reading; None if the segment is gone or the ledger unreadable."""
        ledger = self._mapped.get(name.identity)
        if ledger is None:
            try:
                ledger = Catalog.ledger(self, name)
            except DamagedError:
                return None
            if ledger is not None:
                ledger.close()  # the mapping stays
                self._mapped[name.identity] = ledger
        return ledger

    def finished(self, name: SegmentName, ledger: Ledger) -> bool:
        now = now_ms()
        if not ledger.sealed:
            return False
        ledger.lapse(now)
        if ledger.lapsed(now) or ledger.done() == ledger.published:
            return not self.labels.in_hand(name, ledger)
        return self._settings.retain == "until-acked" and self.labels.finished(name, ledger)

    def all_done(self, name: SegmentName, ledger: Ledger, begin: int, end: int) -> bool:
        """Asks all existing labels; a label created later begins after the items they have finished."""
        if self._settings.retain == "ttl" or not self.labels.all():
            return ledger.all_done(begin, end)
        ledgers = [self.labels.ledger(label, name, ledger) for label in self.labels.all()]
        return all(held is not None and held.all_done(begin, end) for held in ledgers)

    def gone(self, name: SegmentName, ledger: Ledger) -> tuple[int, int]:
        ledger.lapse(now_ms())
        if self._settings.retain == "ttl":
            return super().gone(name, ledger)
        over = self.labels.over(name, ledger)
        return over.count(1), ledger.bytes_of(over, 0, fmt.ONES)

    def holders(self, name: SegmentName) -> Iterator[Ledger]:
        return self._begun(name, self.labels.all())

    def settle_name(self, name: SegmentName, ledger: Ledger) -> SegmentName:
        begun = any(entry.startswith(f"{fmt.LEDGER_FILE}.") for entry in fs.listing(self.path(name)))
        if begun or name.state is State.CHOSEN:
            return self._make_chosen(name, ledger) or name
        return name

    def _begun(self, name: SegmentName, labels: list[Label]) -> Iterator[Ledger]:
        """The ledgers of labels that have begun with a segment, each open only for its iteration. Under the structure lock."""
        try:
            source = Ledger.open(os.path.join(self.path(name), fmt.LEDGER_FILE))
        except (DamagedError, FileNotFoundError):
            return
        source.close()
        for label in labels:
            try:
                ledger = Ledger.open(os.path.join(self.path(name), fmt.label_ledger(label.id)), source)
            except (DamagedError, FileNotFoundError):
                continue
            yield ledger
            ledger.close()

    # --- labels ---

    def begin(self, text: str, start: str, time_of: Callable[[SegmentName, int], float]) -> Label:
        """Returns the label of that name; if there is none, creates one that begins at `start`, as of now.

        The new label does not see items already removed. Raises StorageError, and then creates no label.
        """
        with self.structure:
            self.labels.look_again()
            label = self.labels.find(text)
            if label is None:
                Catalog.names(self)  # lists the names now, so that nothing waits for a listing under the index's lock
                with self.index.lock:  # the new label must not take room from a producer that is reserving it
                    label = self._begun_now(text, start, time_of)
                    if ARMED:
                        reach("label.created")
                with contextlib.suppress(StorageError):  # the label has begun; others tidy too
                    self.tidy()
        return label

    def _begun_now(self, text: str, start: str, time_of: Callable[[SegmentName, int], float]) -> Label:
        self.sweep()  # removed segments must not be booked for the new label
        names = self.listed()
        before: dict[SegmentName, bytes] = {}
        ledgers: dict[SegmentName, Ledger] = {}
        for name in names:
            ledger = self.mapped(name)
            if ledger is None:
                continue
            ledger.lapse(now_ms())
            kept = self._settings.retain == "ttl"
            published = ledger.published
            over = ledger.over_mask(published) if kept else self.labels.over(name, ledger)[:published]
            ledgers[name], before[name] = ledger, over
        last: tuple[float, SegmentName, int] | None = None
        if start == "newest":
            ends = [(name, mask.rfind(0)) for name, mask in before.items()]
            last = max(((time_of(name, i), name, i) for name, i in ends if i >= 0), default=None)
        if start != "oldest":
            before = {name: b"\1" * len(mask) for name, mask in before.items()}
        if last is not None:
            _, name, i = last
            before[name] = (b"\1" * i + b"\0").ljust(len(before[name]), b"\1")
        starts: dict[str, int] = {}
        label_id = fmt.new_label_id()
        for name, mask in before.items():
            at = mask.find(0)
            starts[name.identity] = len(mask) if at < 0 else at
            if 1 in mask[at:] and at >= 0:  # not all removed items are at the start
                self._make_chosen(name, ledgers[name])
                now = self.locate(name) or name
                place = os.path.join(self.path(now), fmt.label_ledger(label_id))
                Ledger.create_for_label(place, ledgers[name], self.labels.flags, mask).close()
        if ARMED:
            reach("label.begun")
        cut = max((name.stamp for name in names), default=0)
        return self.labels.create(text, label_id, cut, {name: count for name, count in starts.items() if count})

    def _make_chosen(self, name: SegmentName, ledger: Ledger) -> SegmentName | None:
        """Makes a segment chosen before a label begins with it. Under the structure lock; None if the segment is gone."""
        found = self.locate(name)
        if found is not None and found.state is State.READY:
            found = self._move(found, State.CHOSEN)
        ledger.chosen()
        return found

    def remove_label(self, label: Label) -> None:
        """Deletes the label and the items kept only for it. Acked items stay acked, even if it was the last label."""
        with self.structure:
            self.labels.look_again()
            last = self._settings.retain == "until-acked" and [each.id for each in self.labels.all()] == [label.id]
            Catalog.names(self)  # as in `begin`
            with self.index.lock:
                if last:
                    self._note_acknowledged([label])
                    if ARMED:
                        reach("label.noted")
                self.labels.remove(label)
                if last:
                    self._note_acknowledged([label])  # items acked between the two
            if ARMED:
                reach("label.removed")
            for name in self.listed():
                place = os.path.join(self.path(name), fmt.label_ledger(label.id))
                if os.path.lexists(place):
                    fs.unlink(place)
            self.index.changed()
            self.tidy()

    def _note_acknowledged(self, labels: list[Label]) -> None:
        """Notes in producers' ledgers the items that these last labels will not receive (again)."""
        for name in self.listed():
            ledger = self.mapped(name)
            if ledger is not None:
                ledger.waive(self.labels.over_of(labels, name, ledger))

    # --- the end of a segment ---

    def retire(self, name: SegmentName, ledger: Ledger) -> bool:
        gone = super().retire(name, ledger)
        if gone:
            self.index.freed()
        return gone

    def seal(self, name: SegmentName, ledger: Ledger) -> SegmentName | None:
        sealed = super().seal(name, ledger)
        if sealed is not None and self.finished(sealed, ledger):
            with contextlib.suppress(StorageError):  # it is sealed; a later call removes it
                self.retire(sealed, ledger)
        return sealed

    def _resumable(self, name: SegmentName) -> bool:
        return not any(label.start_in(name) for label in self.labels.all())

    def _sealed_as(self, ledger: Ledger) -> State:
        return State.CHOSEN if ledger.is_chosen else State.READY

    def _dead(self, name: SegmentName, _ledger: Ledger) -> int:
        return max((held.dead() for held in self.holders(name)), default=0)

    def _take_away(self, name: SegmentName, ledger: Ledger) -> SegmentName | None:
        self.labels.look_again()  # reads the label files: a damaged word in the index must not hide a label
        if not self.finished(name, ledger):
            return None
        self.sweep()  # segments must be written off one at a time
        gone = self._move(name, State.REMOVED)
        if gone is not None:
            if ARMED:
                reach("gone.renamed")
            self._write_off(gone)
        return gone

    def _write_off(self, name: SegmentName) -> None:
        self.labels.write_off(name, self.path(name))
        if ARMED:
            reach("gone.all_booked")
        fs.unlink(os.path.join(self.path(name), fmt.LEDGER_FILE))  # marks the write-off as done

    def quarantine(self, name: SegmentName, reason: str) -> None:
        with self.structure:
            found = self.locate(name)
            if found is not None:
                self.labels.write_off(found, self.path(found))
            super().quarantine(name, reason)

    def sweep(self) -> None:
        for name in self.listed(removed=True):
            self._write_off(name)
        self.labels.forget_unfinished()
        super().sweep()

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """While the body runs, no segment is removed, and all removed segments are booked."""
        with self.structure:
            self.sweep()
            yield

    def tidy(self) -> None:
        names = list(Catalog.names(self))
        for name in names:
            ledger = self.mapped(name)
            if ledger is not None and self.finished(name, ledger):
                self.retire(name, ledger)
        present = {name.identity for name in names}
        self._mapped = {identity: ledger for identity, ledger in list(self._mapped.items()) if identity in present}
        self.labels.forget_segments(present)

    def make_room(self) -> bool:
        """Drops the items of the oldest segment that has any; False if there is none or the topic is not droppable."""
        if not self._settings.droppable:
            return False
        with self.structure:
            for name in self.listed():
                ledger = self.mapped(name)
                if ledger is None or self.gone(name, ledger)[0] == ledger.published:
                    continue
                end = ledger.published
                if ARMED:
                    reach("drop.begun")
                ledger.drop(end)
                if ARMED:
                    reach("drop.marked")
                for held in self.holders(name):
                    held.drop(end)
                if ARMED:
                    reach("drop.done")
                if ledger.sealed:
                    self.retire(name, ledger)
                return True
        return False
