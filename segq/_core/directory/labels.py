"""The labels of a topic: which labels exist, and which items of a segment each label has finished.

A label exists while its file is in `labels/`. The file appears and disappears under the structure lock. A word in the index
tells a handle whether its list of labels is out of date.
"""

from __future__ import annotations

import logging
import os

from segq._core.base.errors import DamagedError, SettingsError
from segq._core.base.failpoints import ARMED, reach
from segq._core.base.settings import Settings
from segq._core.directory.index import Index
from segq._core.directory.label import Label
from segq._core.format import format as fmt
from segq._core.format.format import IndexWord, LedgerFlag, SegmentName
from segq._core.segment.ledger import Ledger
from segq._core.segment.ledger_view import Census
from segq._core.system import fs

log = logging.getLogger("segq")


class Labels:
    """The labels as one handle knows them."""

    def __init__(self, queue: str, settings: Settings, index: Index) -> None:
        self._queue, self._index = queue, index
        self._directory = os.path.join(queue, fmt.LABELS_DIR)
        self._durable = settings.durability == "power"
        self.flags = LedgerFlag.DEADLINES if settings.lease else LedgerFlag(0)
        if settings.droppable:
            self.flags |= LedgerFlag.DROPPABLE
        self._known: dict[str, Label] = {}
        self._seen = -1
        self._ledgers: dict[tuple[str, str], Ledger | None] = {}
        self._ledgers_of = -1

    # --- which labels exist ---

    def all(self) -> list[Label]:
        changes = self._index.words[IndexWord.LABELS]
        if changes != self._seen:
            known: dict[str, Label] = {}
            for entry in self._entries():
                label = self._known.get(entry)
                if label is None or label.removed:
                    try:
                        label = Label.open(os.path.join(self._directory, entry), self._index)
                    except FileNotFoundError:
                        continue
                    except DamagedError as error:
                        log.error("%s: %s", self._queue, error)
                        continue
                if not label.removed:
                    known[entry] = label
            self._known, self._seen = known, changes
        return list(self._known.values())

    def damaged(self) -> dict[str, DamagedError]:
        """Label files that cannot be read, and the error of each."""
        found: dict[str, DamagedError] = {}
        for entry in self._entries():
            try:
                Label.open(os.path.join(self._directory, entry), self._index)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                found[entry] = error
        return found

    def _entries(self) -> list[str]:
        if not os.path.isdir(self._directory):
            return []
        return [entry for entry in fs.listing(self._directory) if entry != fmt.UNFINISHED]

    def look_again(self) -> None:
        """Forgets the list, so that the next call reads the files."""
        self._seen = -1

    def find(self, text: str) -> Label | None:
        return next((label for label in self.all() if label.text == text), None)

    def create(self, text: str, label_id: str, cut: int, starts: dict[str, int]) -> Label:
        """Creates a label whose name is free. Under the structure lock. Raises StorageError."""
        if not os.path.isdir(self._directory):
            fs.make_directory(self._directory)
            if self._durable:
                fs.sync_directory(self._queue)
        path = self._path(text)
        if os.path.lexists(path):  # an unreadable file of a label of this name
            fs.quarantine(self._queue, os.path.relpath(path, self._queue), f"not the file of label {text!r}; it begins anew")
        label = Label.create(path, text, label_id, cut, starts, self._index, durable=self._durable)
        self.changed()
        self._known[os.path.basename(path)] = label  # the label has begun: from here on no open can fail
        return label

    def forget_unfinished(self) -> None:
        """Removes the unfinished file of a creator that died. Under the structure lock, so no creation is under way."""
        unfinished = os.path.join(self._directory, fmt.UNFINISHED)
        if os.path.lexists(unfinished):
            fs.unlink(unfinished)

    def remove(self, label: Label) -> None:
        """Removes a label and tells its consumers. Under the structure lock."""
        fs.unlink(self._path(label.text))
        if self._durable:
            fs.sync_directory(self._directory)
        label.mark_removed()
        self.changed()

    def _path(self, text: str) -> str:
        return os.path.join(self._directory, fmt.label_file(text))

    def changed(self) -> None:
        """Announces that the list of labels has changed. Under the structure lock."""
        self._index.words[IndexWord.LABELS] = (self._index.words[IndexWord.LABELS] + 1) & (2**63 - 1)

    # --- what the labels have finished in a segment ---

    def ledger(self, label: Label, name: SegmentName, source: Ledger) -> Ledger | None:
        """The label's ledger of a segment, for reading; None if the label has not begun with the segment."""
        generation = self._index.generation
        if generation != self._ledgers_of:
            self._ledgers = {key: ledger for key, ledger in list(self._ledgers.items()) if ledger is not None}
            self._ledgers_of = generation
        key, ledgers = (label.id, name.identity), self._ledgers  # another thread may replace the dict
        if key in ledgers:
            return ledgers[key]
        place: SegmentName | None = name
        while place is not None:
            path = os.path.join(self._queue, str(place))
            try:
                ledger = Ledger.open(os.path.join(path, fmt.label_ledger(label.id)), source)
            except DamagedError:
                break
            except FileNotFoundError:
                if os.path.isdir(path):
                    break
                place = fs.locate(self._queue, name)  # a renamed segment must not look like one not begun
            else:
                ledger.close()  # the mapping stays
                ledgers[key] = ledger
                return ledger
        ledgers[key] = None
        return None

    def forget_segments(self, present: set[str]) -> None:
        """Forgets ledgers of segments that are gone."""
        self._ledgers = {key: ledger for key, ledger in list(self._ledgers.items()) if key[1] in present}

    def over(self, name: SegmentName, source: Ledger) -> bytes:
        """For each item of a segment: 1 if no label will receive it (again); 0 otherwise, or if there is no label."""
        return self.over_of(self.all(), name, source)

    def over_of(self, labels: list[Label], name: SegmentName, source: Ledger) -> bytes:
        """Like `over`, but only for these labels."""
        items = source.published
        both = source.over_mask(items)
        if not labels:
            return both
        every = (1 << 8 * items) - 1
        for label in labels:
            ledger = self.ledger(label, name, source)
            mask = ledger.over_mask(items) if ledger is not None else (b"\1" * label.start_in(name)).ljust(items, b"\0")
            every &= int.from_bytes(mask, "little")
            if not every:
                return both
        return (every | int.from_bytes(both, "little")).to_bytes(items, "little")

    def finished(self, name: SegmentName, source: Ledger) -> bool:
        """Whether there is a label and every label has finished every item of a segment."""
        labels = self.all()
        items = source.published
        for label in labels:
            ledger = self.ledger(label, name, source)
            if ledger is None and 0 in source.over_mask(items)[label.start_in(name) :]:
                return False
            if ledger is not None and ledger.done() < items and 0 in self._with_gone(ledger, source, items):
                return False
        return bool(labels)

    def in_hand(self, name: SegmentName, source: Ledger) -> bool:
        """Whether a consumer holds a message of the segment that is not acked yet."""
        ledgers = (self.ledger(label, name, source) for label in self.all())
        return any(ledger is not None and ledger.handed() for ledger in ledgers)

    def _with_gone(self, ledger: Ledger, source: Ledger, items: int) -> bytes:
        mask = int.from_bytes(ledger.over_mask(items), "little") | int.from_bytes(source.over_mask(items), "little")
        return mask.to_bytes(items, "little")

    def census(self, label: Label, name: SegmentName, source: Ledger) -> Census:
        """Counts the items of a segment by their state for one label."""
        gone = source.over_mask(source.published)
        ledger = self.ledger(label, name, source)
        if ledger is not None:
            return ledger.census(gone)
        start = label.start_in(name)
        return Census(
            waiting=gone.count(0, start), claimed=0, acknowledged=0, missed=gone.count(1, start), first=gone.find(0, start)
        )

    def write_off(self, name: SegmentName, path: str) -> None:
        """Books for each label what it acked and missed of a segment that is removed, or about to be moved away.

        Under the structure lock. After a death half-way, repeating it is safe as long as no other segment was booked since.
        """
        try:
            source = Ledger.open(os.path.join(path, fmt.LEDGER_FILE))
        except (FileNotFoundError, DamagedError):
            return
        source.close()
        for label in self.all():
            if label.booked(name.stamp):
                continue
            try:
                ledger = Ledger.open(os.path.join(path, fmt.label_ledger(label.id)), source)
            except (FileNotFoundError, DamagedError):
                done, missed = 0, max(0, source.published - label.start_in(name))
            else:
                done, missed = ledger.write_off()
                ledger.close()
            label.book(name.stamp, done, missed)
            if ARMED:
                reach("gone.booked")


class Chime:
    """The bells of all labels, rung when items arrive. Each label gets its own wake."""

    def __init__(self, labels: Labels, index: Index) -> None:
        self._labels, self._words = labels, index.words

    def ring(self, count: int = 1) -> None:
        words = self._words
        words[IndexWord.ITEMS_SLEEPERS] = 0
        for label in self._labels.all():
            label.bell.ring(count)
            if label.bell.flagged:
                words[IndexWord.ITEMS_SLEEPERS] = 1

    def ring_all(self) -> None:
        for label in self._labels.all():
            label.bell.ring_all()


def checked_label(label: str) -> str:
    """Returns the label. Raises SettingsError if it is not valid."""
    if not isinstance(label, str):
        raise SettingsError(f"label must be text, not {label!r}")
    try:
        label.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"label must be text that UTF-8 can hold, not {label!r}") from None
    return label
