"""One look at one segment, under the name it has just now; nothing in it is changed."""

from __future__ import annotations

import os
import re

from segq._core.base.errors import DamagedError, StorageError
from segq._core.directory.label import SeenLabel
from segq._core.format import format as fmt
from segq._core.format.format import SegmentName, State
from segq._core.segment.ledger_view import LedgerView, now_ms
from segq._core.system import fs
from segq.doctor.contents import Contents
from segq.doctor.problem import ERROR, NOTE, Problem

_FILES = re.compile(
    r"(?:ledger|ledger\.[0-9a-f]{8}|batch)(?:\.new)?|blob"
    r"|CURRENT|IDENTITY|LOCK|LOG|LOG\.old\..*|MANIFEST-\d+|OPTIONS-\d+|\d+\.(?:log|sst|dbtmp)|OPTIONS-\d+\.dbtmp"
    r"|rocksdict-config\.json|lost|archive"
)
_LABEL_LEDGER = re.compile(r"ledger\.([0-9a-f]{8})")


class SegmentExamination:
    """What is wrong with a segment, as far as a look without the structure lock can tell."""

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
