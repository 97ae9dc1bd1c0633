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

from segq import format as fmt
from segq import fs, process
from segq.contents import Contents
from segq.errors import DamagedError, StorageError
from segq.format import IndexWord, SegmentName, State
from segq.label import SeenLabel
from segq.ledger_view import LedgerView, now_ms
from segq.locks import FileMutex, LookingLock
from segq.mapped import MappedFile
from segq.problem import ERROR, NOTE, Problem, Quarantined
from segq.settings import Settings

_ATTEMPTS = 8  # to catch a segment under its name; each failure means that somebody renamed it
_DELETING_SECONDS = 10.0  # a directory that somebody alive is deleting is gone long before
_FILES = re.compile(
    r"(?:ledger|ledger\.[0-9a-f]{8}|batch)(?:\.new)?|blob"
    r"|CURRENT|IDENTITY|LOCK|LOG|LOG\.old\..*|MANIFEST-\d+|OPTIONS-\d+|\d+\.(?:log|sst|dbtmp)|OPTIONS-\d+\.dbtmp"
    r"|rocksdict-config\.json|lost|archive"
)
_LABEL_LEDGER = re.compile(r"ledger\.([0-9a-f]{8})")


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
                if process.is_alive(self.path, slot):
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
                record = process.record(self.path, slot)
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
            # Locked the other way round than elsewhere: as no name changes now, nobody waits for names under the index's lock.
            with FileMutex(index.descriptor):
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
                return _SegmentLook(self.path, found, self._slots, self._alive, labels, kept=kept).run()
            except FileNotFoundError:
                continue
        return []

    def _locate(self, name: SegmentName) -> SegmentName | None:
        candidates = (name.in_state(state) for state in (name.state, State.LOADING, State.READY, State.CHOSEN))
        return next((each for each in candidates if os.path.isdir(os.path.join(self.path, str(each)))), None)


class _SegmentLook:
    """One look at one segment, under the name it has just now."""

    def __init__(
        self, queue: str, name: SegmentName, slots: set[int], alive: set[int], labels: list[SeenLabel] | None, *, kept: bool
    ) -> None:
        """`labels`: None in a queue. `kept`: what all labels have read stays, for those to come."""
        self._kept = kept
        self._path = os.path.join(queue, str(name))
        self._name, self._slots, self._alive, self._labels = name, slots, alive, labels
        self._loading = name.state is State.LOADING
        self._problems: list[Problem] = []

    def run(self) -> list[Problem]:
        """Raises FileNotFoundError if the segment was renamed meanwhile."""
        entries = fs.listing(self._path)
        for entry in entries:
            if not _FILES.fullmatch(entry):
                where = os.path.join(str(self._name), entry)
                self._add("foreign", "an entry that segq does not know", "not segq's: move it elsewhere by hand", where=where)
        try:
            ledger = LedgerView.look(os.path.join(self._path, fmt.LEDGER_FILE))
        except (DamagedError, FileNotFoundError) as error:
            if not os.path.isdir(self._path):
                raise FileNotFoundError from error
            self._lost_ledger(entries, error)
            return self._problems
        try:
            views = self._of_labels(entries, ledger)
            for view in [ledger, *views.values()]:
                self._claims(view)
            producer = self._whose(ledger)
            if not self._loading:
                self._sealed(ledger)
            if not self._finished(ledger, views):
                self._items(ledger, views, producer=producer)
            for view in views.values():
                view.close()
        finally:
            ledger.close()
        return self._problems

    def _add(self, kind: str, what: str, remedy: str, *, where: str = "", severity: str = ERROR) -> None:
        problem = Problem(kind=kind, where=where or str(self._name), what=what, remedy=remedy, severity=severity)
        self._problems.append(problem)

    # --- ledgers ---

    def _lost_ledger(self, entries: list[str], error: Exception) -> None:
        holds = {fmt.BATCH_FILE, "CURRENT"} & set(entries)
        if self._loading and not holds:
            what = "its producer died while it made it; nothing was stored in it"
            self._add("orphan", what, "remove it", severity=NOTE)
            return
        what = "has lost its ledger" if isinstance(error, FileNotFoundError) else f"its ledger cannot be read: {error}"
        if self._loading and self._alive:
            remedy = "its producer may be alive: close the queue in all processes first; then it is rebuilt"
        elif fmt.BATCH_FILE in entries and "CURRENT" not in entries:
            remedy = "move it to quarantine; `segq salvage` reads what is certain to have been put"
        else:
            remedy = "rebuild it from the blocks; all of its items are delivered again"
        self._add("ledger", what, remedy)

    def _of_labels(self, entries: list[str], source: LedgerView) -> dict[str, LedgerView]:
        """The ledgers of a topic's labels, by their ids."""
        found: dict[str, LedgerView] = {}
        known = {each.id: each for each in self._labels or ()}
        for entry in entries:
            match = _LABEL_LEDGER.fullmatch(entry)
            if match is None:
                continue
            where = os.path.join(str(self._name), entry)
            if match[1] not in known:
                what = "the ledger of a label that is gone"
                self._add("leftover", what, "delete it", where=where, severity=NOTE)
                continue
            try:
                found[match[1]] = LedgerView.look(os.path.join(self._path, entry), source)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                what = f"the ledger of label {known[match[1]].text!r} cannot be read: {error}"
                remedy = "make a new one: that label gets the items of this segment again"
                self._add("ledger", what, remedy, where=where, severity=NOTE)
        return found

    def _claims(self, view: LedgerView) -> None:
        lost = {slot: count for slot, count in view.holders().items() if slot not in self._slots}
        if lost:
            what = f"{sum(lost.values())} items are claimed by a handle that is gone, and nobody will free them"
            self._add("claims", what, "free them: they are delivered (again)")
        with view.lock:
            hidden = view.hidden()
        if hidden:
            what = f"{hidden} items were given back, and its ledger does not count them: no consumer finds them"
            self._add("counters", what, "count them")

    def _whose(self, ledger: LedgerView) -> str:
        """In what hands a loading segment is: "living" or "dead"; "" for a sealed one."""
        if not self._loading:
            return ""
        if ledger.owner in self._slots:
            return "living" if ledger.owner in self._alive else "dead"
        self._add("orphan", "its producer is gone", "seal it", severity=NOTE)
        return "dead"

    def _sealed(self, ledger: LedgerView) -> None:
        if not ledger.sealed:
            what = "sealed by its name, not by its ledger: it would never be removed"
            self._add("ledger", what, "say so in the ledger as well")
        reserved, published = ledger.reserved()[0], ledger.published
        if ledger.sealed and reserved > published:
            what = (
                f"room for {reserved - published} items is reserved that nobody can use: less can be put than there is room for"
            )
            self._add("counters", what, "give it back")
        touched = ledger.done() - ledger.missed() or ledger.holders()
        if self._name.state is State.READY and self._labels is None and touched:
            what = "called ready, but items of it were claimed: what the dead hold in it would not be freed"
            self._add("names", what, "call it chosen")

    # --- items ---

    def _finished(self, ledger: LedgerView, views: dict[str, LedgerView]) -> bool:
        if self._loading or not ledger.sealed or 0 in self._over(ledger, views):
            return False
        if any(view.handed() for view in views.values()):
            return False
        if not self._alive:  # else whoever took the last item removes it with its next call
            dead = max(view.dead() for view in [ledger, *views.values()])
            what = "every item is done, and it is still here"
            what += f" ({dead} of them could not be read)" if dead else ""
            self._add("finished", what, "move it to quarantine" if dead else "remove it", severity=NOTE)
        return True

    def _over(self, ledger: LedgerView, views: dict[str, LedgerView]) -> bytes:
        """A 1 for each item that nobody will be handed (again)."""
        published = ledger.published
        over = int.from_bytes(ledger.over_mask(published), "little")
        if ledger.expires is not None:
            now = now_ms()
            lapsed = bytes(int(at <= now) for at in ledger.expires[:published].tolist())
            over |= int.from_bytes(lapsed, "little")
        if self._labels and not self._kept:
            every = (1 << 8 * published) - 1
            for each in self._labels:
                view = views.get(each.id)
                start = (b"\1" * each.start_in(self._name))[:published].ljust(published, b"\0")
                every &= int.from_bytes(view.over_mask(published) if view is not None else start, "little")
            over |= every
        return over.to_bytes(published, "little")

    def _items(self, ledger: LedgerView, views: dict[str, LedgerView], *, producer: str) -> None:
        over = self._over(ledger, views)
        if 0 not in over:
            return
        contents = Contents(self._path, len(over))
        try:
            lost = contents.unreadable(over.translate(_INVERTED))
        except StorageError as error:
            self._add("segment", f"the disk refuses to let it be read: {error}", "see to the disk, and check again")
            return
        finally:
            contents.close()
        over = self._over(ledger, views)
        lost = {i: why for i, why in lost.items() if not over[i]}
        if not lost:
            return
        first = min(lost)
        what = f"{len(lost)} of its {len(over)} items cannot be read, from item {first} on: {lost[first]}"
        if producer == "living":
            remedy = "consumers skip them; the segment goes to quarantine when the rest is delivered"
        elif len(lost) == over.count(0):
            remedy = "move it to quarantine; `segq salvage` reads what can still be read there"
        else:
            remedy = "mark them: the rest is delivered, then it goes to quarantine (see `segq salvage`)"
        self._add("items" if len(lost) < over.count(0) else "segment", what, remedy)


_INVERTED = bytes([1, 0]) + bytes(254)


def unreadable(path: str, ledger: LedgerView) -> list[int]:
    """The items of a segment that cannot be read and that its ledger does not count as over."""
    published = ledger.published
    contents = Contents(path, published)
    try:
        return sorted(contents.unreadable(ledger.over_mask(published).translate(_INVERTED)))
    finally:
        contents.close()


__all__ = ["Examination", "unreadable"]
