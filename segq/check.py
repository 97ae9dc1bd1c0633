"""`check`: is the directory in order, and if not, what is wrong and what would mend it.

Looks at names, `queue.json`, owners, ledgers against RocksDB, and half-done deletions; `fix` mends what can be mended without
deleting anything unread. The queue may be in use meanwhile: what the living are doing is not a problem.
"""

from __future__ import annotations

import dataclasses
import os

from segq import format as fmt
from segq import fs, process, rescue
from segq.catalog import Catalog
from segq.errors import DamagedError, NotAQueueError, QueueError
from segq.format import SegmentName, State
from segq.index import Index
from segq.ledger import Ledger
from segq.locks import StructureLock
from segq.segment import SegmentReader
from segq.topic_catalog import TopicCatalog


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: its `kind`, `where`, `what` in words, the `remedy`, and whether it was `fixed` now."""

    kind: str
    where: str
    what: str
    remedy: str
    fixed: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `check` found. `ok` if nothing is wrong (any more)."""

    path: str
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return all(problem.fixed for problem in self.problems)


def check(path: str | os.PathLike[str], fix: bool = False) -> Report:
    """Examines the queue at `path`. Raises NotAQueueError or FormatVersionError if it is none that can be examined."""
    path = os.path.abspath(os.fspath(path))
    fs.refuse_non_directory(path)
    try:
        _, kind, settings = fmt.decode_queue_file(fs.read_file(os.path.join(path, fmt.QUEUE_FILE)), path)
    except FileNotFoundError:
        raise NotAQueueError(f"there is no queue at {path}", path=path) from None
    fs.refuse_other_than_directories(path, fmt.DIRECTORIES)
    fs.refuse_other_than_file(path, fmt.LOCK_FILE)
    structure = StructureLock(path)
    with structure:
        had_index = _index_is_whole(path)
        catalog = (TopicCatalog if kind == "topic" else Catalog)(path, settings, Index.open(path), structure)
        examination = _Examination(catalog, fix=fix)
        if not had_index:
            examination.add("index", "index", "missing or damaged", "it is made anew", fixed=True)
        examination.names()
        examination.owners()
        if isinstance(catalog, TopicCatalog):
            examination.labels(catalog)
        for name in catalog.listed():
            examination.segment(name)
        examination.catalog.index.close()
    return Report(path=path, problems=tuple(examination.problems))


class _Examination:
    """Under the structure lock throughout."""

    def __init__(self, catalog: Catalog, *, fix: bool) -> None:
        self.catalog, self.fix = catalog, fix
        self.problems: list[Problem] = []
        queue = catalog.queue
        self._alive = any(process.is_alive(queue, slot) for slot in process.slots(queue))

    def add(self, kind: str, where: str, what: str, remedy: str, *, fixed: bool) -> None:
        self.problems.append(Problem(kind=kind, where=where, what=what, remedy=remedy, fixed=fixed))

    def names(self) -> None:
        known = {fmt.QUEUE_FILE, fmt.LOCK_FILE, fmt.INDEX_FILE, fmt.OWNERS_DIR, fmt.QUARANTINE_DIR}
        known |= {fmt.LABELS_DIR} if self.catalog.labelled else set()
        for entry in sorted(fs.listing(self.catalog.queue)):
            name = fmt.parse_segment(entry)
            if name is None and entry not in known:
                remedy = "not segq's: move it elsewhere by hand"
                self.add("foreign", entry, "an entry that segq does not know", remedy, fixed=False)
            elif name is not None and name.state is State.REMOVED:
                if self.fix:
                    self.catalog.sweep()
                self.add("deletion", entry, "finished, its deletion was interrupted", "delete the rest", fixed=self.fix)
        by_identity: dict[str, list[SegmentName]] = {}
        for name in self.catalog.listed():
            by_identity.setdefault(name.identity, []).append(name)
        for names in by_identity.values():
            if len(names) > 1:
                what = "the same segment under several names: " + ", ".join(map(str, names))
                self.add("names", str(names[0]), what, "copied by hand? move all but one elsewhere", fixed=False)

    def owners(self) -> None:
        queue = self.catalog.queue
        for slot in process.slots(queue):
            if not process.is_alive(queue, slot):
                record = process.record(queue, slot)
                who = f"process {record.pid} ({record.command:.60})" if record else "a process"
                self.add("owner", fmt.slot_name(slot), f"{who} died with the queue open", "rescue what it held", fixed=self.fix)
        if self.fix:
            rescue.rescue(self.catalog, 0)
            rescue.rescue_orphans(self.catalog)
            rescue.put_right(self.catalog)

    def labels(self, catalog: TopicCatalog) -> None:
        for entry, error in catalog.labels.damaged().items():
            what, where = f"cannot be read: {error}", os.path.join(fmt.LABELS_DIR, entry)
            if self.fix:
                fs.quarantine(catalog.queue, where, what)
                catalog.labels.changed()
            self.add("label", where, what, "move it to quarantine: its consumers begin anew", fixed=self.fix)

    def segment(self, name: SegmentName) -> None:
        try:
            ledger = Ledger.open(os.path.join(self.catalog.path(name), fmt.LEDGER_FILE))
        except (DamagedError, FileNotFoundError) as error:
            self._ledger_is_lost(name, error)
            return
        live = name.state is State.LOADING
        try:
            if live:
                if ledger.owner not in process.slots(self.catalog.queue):
                    self.add("orphan", str(name), "its producer is gone", "seal it", fixed=False)
                return
            self._sealed(name, ledger)
        finally:
            ledger.close()

    def _sealed(self, name: SegmentName, ledger: Ledger) -> None:
        where = str(name)
        if not ledger.sealed:
            self.add("ledger", where, "sealed by its name, not by its ledger", "the next rescue settles it", fixed=False)
        if self.catalog.finished(name, ledger) and not ledger.dead():
            gone = self.fix and self.catalog.retire(name, ledger)
            if not self._alive:  # else whoever took the last item removes it with its next call
                self.add("finished", where, "every item is done, and it is still here", "remove it", fixed=gone)
            return
        if name.state is State.READY and ledger.done() > ledger.missed():
            self.add(
                "names", where, "called ready, but has items that are done", "harmless; it is consumed as it is", fixed=False
            )
        try:
            reader = SegmentReader(self.catalog.path(name), None)
        except QueueError as error:
            self._unreadable(name, error)
            return
        try:
            end = reader.end()
        except DamagedError as error:
            self._unreadable(name, error)
            return
        finally:
            reader.close()
        if end < ledger.published and not self.catalog.all_done(
            name, ledger, end, ledger.published
        ):  # more is a block that was written and, its producer being killed, never published
            what = f"{ledger.published} items by its ledger, {end} in its blocks"
            self.add("items", where, what, "consumers deliver what there is and quarantine the rest", fixed=False)

    def _ledger_is_lost(self, name: SegmentName, error: Exception) -> None:
        fixed = False
        if self.fix and name.state is not State.LOADING:
            try:
                rebuilt = rescue.rebuild_ledger(self.catalog, name)
                fixed = rebuilt is not None
            except DamagedError as worse:
                self._unreadable(name, worse)
                return
        self.add("ledger", str(name), f"cannot be read: {error}", "rebuild it; its items are delivered again", fixed=fixed)

    def _unreadable(self, name: SegmentName, error: Exception) -> None:
        if self.fix:
            self.catalog.quarantine(name, str(error))
        self.add("segment", str(name), f"cannot be read: {error}", "move it to quarantine", fixed=self.fix)


def _index_is_whole(path: str) -> bool:
    try:
        data = fs.read_file(os.path.join(path, fmt.INDEX_FILE))
    except (FileNotFoundError, DamagedError):
        return False
    return len(data) >= fmt.INDEX_SIZE and int.from_bytes(data[:8], "little") == fmt.INDEX_MAGIC
