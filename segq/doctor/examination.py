"""Looking at a queue's directory and saying what is wrong, without changing anything in it.

All files are opened for reading only. The queue may be in use meanwhile: names, owners and labels are read under the
structure lock, which takes a moment; each segment's contents without it, which may take long, and what seems to be wrong with
one is looked at again under the lock before it is reported. Then no name changes, no owner comes or goes, and whatever the
living are in the middle of shows as what it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

from segq._core.base.errors import DamagedError
from segq._core.base.settings import Settings
from segq._core.directory import owners
from segq._core.directory.label import SeenLabel
from segq._core.format import format as fmt
from segq._core.format.format import IndexWord, SegmentName, State
from segq._core.segment.ledger_view import LedgerView
from segq._core.system import fs
from segq._core.system.locks import FileMutex, LookingLock, Rank
from segq._core.system.mapped import MappedFile
from segq.doctor.problem import ERROR, NOTE, Problem, Quarantined
from segq.doctor.segment_examination import SegmentExamination

_ATTEMPTS = 8  # to catch a segment under its name; each failure means that somebody renamed it
_DELETING_SECONDS = 10.0  # a directory that somebody alive is deleting is gone long before


class Examination:
    """One look at a queue or a topic."""

    def __init__(self, path: str, kind: str, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self._labelled = kind == "topic"
        self._lock = LookingLock(path)
        self.problems: list[Problem] = []
        self.quarantine: list[Quarantined] = []
        self._slots: set[int] = set()
        self._alive: set[int] = set()
        self._labels: list[SeenLabel] = []

    def run(self) -> None:
        """Fills `problems` and `quarantine`. Raises StorageError, or QueueError if the lock cannot be had."""
        with self._lock:
            names = self._directory()
            self._index(names)
        self._set_aside()
        for name in names:
            if self._doubts(name):
                with self._lock:
                    self._people(silent=True)
                    self.problems += self._doubts(name)

    def _add(self, kind: str, where: str, what: str, remedy: str, severity: str = ERROR) -> None:
        self.problems.append(Problem(kind=kind, where=where, what=what, remedy=remedy, severity=severity))

    # --- names, owners, labels; under the structure lock ---

    def _directory(self) -> list[SegmentName]:
        """What lies in the queue's directory; the segments, oldest first."""
        self._people(silent=False)
        known = {
            fmt.QUEUE_FILE,
            fmt.LOCK_FILE,
            fmt.INDEX_FILE,
            fmt.OWNERS_DIR,
            fmt.QUARANTINE_DIR,
            fmt.DEAD_DIR,
            fmt.CONNECTORS_DIR,
        }
        known |= {fmt.LABELS_DIR} if self._labelled else set()
        names: list[SegmentName] = []
        for entry in sorted(fs.listing(self.path)):
            name = fmt.parse_segment(entry)
            if name is None:
                if entry not in known:
                    self._stranger(entry)
            elif not os.path.isdir(place := os.path.join(self.path, entry)):
                if os.path.lexists(place):  # else somebody has just deleted the rest of it
                    self._add("names", entry, "has the name of a segment and is no directory", "move it elsewhere by hand")
            elif name.state is State.REMOVED:
                self._half_deleted(entry)
            else:
                names.append(name)
        by_identity: dict[str, list[SegmentName]] = {}
        for name in names:
            by_identity.setdefault(name.identity, []).append(name)
        for same in by_identity.values():
            if len(same) > 1:
                what = "the same segment under several names: " + ", ".join(map(str, same))
                self._add("names", str(same[0]), what, "copied by hand? move all but one elsewhere")
        return sorted(names, key=lambda name: name.identity)

    def _stranger(self, entry: str) -> None:
        if re.fullmatch(r"queue\.json\.\d+\.new", entry):
            self._add("leftover", entry, "left by a process that died while it made the queue", "delete it", severity=NOTE)
        elif entry.partition("_")[0] in tuple(State):
            what = "looks like a segment, but no segment has such a name: nobody reads it"
            self._add("names", entry, what, "renamed by hand? give it its name back, or `segq salvage` its items")
        else:
            self._add("foreign", entry, "an entry that segq does not know", "not segq's: move it elsewhere by hand")

    def _half_deleted(self, entry: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(os.path.join(self.path, entry))
            if self._alive and time.time() - max(status.st_mtime, status.st_ctime) < _DELETING_SECONDS:
                return  # somebody is at it
            what = "every item is done, and its deletion was interrupted"
            self._add("deletion", entry, what, "delete the rest", severity=NOTE)

    def _people(self, *, silent: bool) -> None:
        """Who has the queue open, which labels there are; `silent`: known already what is wrong with them."""
        kept = len(self.problems)
        self._slots, self._alive = set(), set()
        place = os.path.join(self.path, fmt.OWNERS_DIR)
        try:
            entries = sorted(fs.listing(place))
        except FileNotFoundError:
            self._add("owners", fmt.OWNERS_DIR, "missing: the queue cannot be opened", "make that directory")
            entries = []
        for entry in entries:
            slot = fmt.parse_slot(entry)
            if slot is not None:
                self._slots.add(slot)
                if owners.is_alive(self.path, slot):
                    self._alive.add(slot)
        for entry in entries:
            self._owner(entry)
        if self._labelled:
            self._read_labels()
        if silent:
            del self.problems[kept:]

    def _owner(self, entry: str) -> None:
        where = os.path.join(fmt.OWNERS_DIR, entry)
        slot = fmt.parse_slot(entry)
        if slot is not None:
            if slot not in self._alive:
                record = owners.record(self.path, slot)
                who = f"process {record.pid} ({record.command:.60})" if record else "a process"
                self._add("owner", where, f"{who} died with the queue open", "rescue what it held", severity=NOTE)
            return
        head, dot, _ = entry.partition(".")
        of = fmt.parse_slot(head) if dot else None
        if of is None:
            self._add("foreign", where, "an entry that segq does not know", "not segq's: move it elsewhere by hand")
        elif entry == f"{head}.new":
            self._add("leftover", where, "left by a process that died while it opened the queue", "delete it", severity=NOTE)
        elif of not in self._slots:
            self._add("scratch", where, "throw-away files of a process that is gone", "delete them", severity=NOTE)

    def _read_labels(self) -> None:
        self._labels = []
        place = os.path.join(self.path, fmt.LABELS_DIR)
        for entry in sorted(fs.listing(place)) if os.path.isdir(place) else ():
            where = os.path.join(fmt.LABELS_DIR, entry)
            if entry == fmt.UNFINISHED:
                self._add("leftover", where, "left by a process that died while it made a label", "delete it", severity=NOTE)
                continue
            try:
                label = SeenLabel.read(os.path.join(place, entry))
            except FileNotFoundError:
                continue
            except DamagedError as error:
                what = f"a label's file that cannot be read: {error}"
                self._add("label", where, what, "move it to quarantine: its consumers begin anew")
                continue
            self._labels.append(label)
            if label.half_booked:
                what = f"a process died while it booked a segment for label {label.text!r}"
                self._add("booking", where, what, "finish it, from the journal in that file", severity=NOTE)
            if entry != fmt.label_file(label.text):
                what = f"is the file of label {label.text!r}, whose name would be {fmt.label_file(label.text)}"
                self._add("names", where, what, "renamed by hand? give it its name back")

    # --- counters; under the structure lock ---

    def _index(self, names: list[SegmentName]) -> None:
        try:
            index = MappedFile.look(os.path.join(self.path, fmt.INDEX_FILE), fmt.INDEX_SIZE)
        except (FileNotFoundError, DamagedError):
            self._no_index("missing or damaged")
            return
        if index.words[IndexWord.MAGIC] != fmt.INDEX_MAGIC:
            self._no_index("not an index of this version")
        elif self.settings.capacity is not None and not self._labelled and not index.words[IndexWord.GENERATION] & 1:
            with FileMutex(index.descriptor, Rank.INDEX):
                self._capacity(names, self.settings.capacity)
        index.close()

    def _no_index(self, what: str) -> None:
        if self._alive:
            what += " while processes have the queue open: they and those who come will not hear each other"
            remedy = "close the queue in all processes, nothing is mended before; whoever opens it then makes a new one"
            self._add("index", fmt.INDEX_FILE, what, remedy)
        else:
            self._add("index", fmt.INDEX_FILE, what, "it is made anew", severity=NOTE)

    def _capacity(self, names: list[SegmentName], capacity: int) -> None:
        """Under the index's lock: nobody reserves meanwhile."""
        stored = 0
        for name in names:
            with contextlib.suppress(FileNotFoundError, DamagedError):
                ledger = LedgerView.look(os.path.join(self.path, str(name), fmt.LEDGER_FILE))
                ledger.close()
                stored += ledger.published - ledger.done()
        if stored > capacity:
            what = f"{stored} items are stored in a queue with capacity {capacity}"
            remedy = "nothing to do: producers wait until there is room (a ledger that was rebuilt delivers items again)"
            self._add("capacity", "", what, remedy, severity=NOTE)

    # --- quarantine ---

    def _set_aside(self) -> None:
        place = os.path.join(self.path, fmt.QUARANTINE_DIR)
        if not os.path.isdir(place):
            return
        entries = set(fs.listing(place))
        for entry in sorted(entries):
            if entry.endswith(".reason") and entry.removesuffix(".reason") in entries:
                continue
            if re.fullmatch(r".*\.\d+\.new", entry):
                if not self._alive:
                    where = os.path.join(fmt.QUARANTINE_DIR, entry)
                    self._add("leftover", where, "left by a process that died while it wrote it", "delete it", severity=NOTE)
                continue
            reason = "(no reason is noted)"
            with contextlib.suppress(OSError, DamagedError):
                reason = fs.read_file(os.path.join(place, f"{entry}.reason")).decode(errors="replace").strip()
            self.quarantine.append(Quarantined(name=entry, reason=reason, bytes=fs.size_of(os.path.join(place, entry))))

    # --- one segment ---

    def _doubts(self, name: SegmentName) -> list[Problem]:
        """What seems to be wrong with a segment; certain if found under the structure lock."""
        for _attempt in range(_ATTEMPTS):
            found = self._locate(name)
            if found is None:
                return []
            try:
                labels = self._labels if self._labelled else None
                kept = self.settings.retain == "ttl"
                return SegmentExamination(self.path, found, self._slots, self._alive, labels, kept=kept).run()
            except FileNotFoundError:
                continue
        return []

    def _locate(self, name: SegmentName) -> SegmentName | None:
        candidates = (name.in_state(state) for state in (name.state, State.LOADING, State.READY, State.CHOSEN))
        return next((each for each in candidates if os.path.isdir(os.path.join(self.path, str(each)))), None)
