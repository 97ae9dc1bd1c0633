"""Mending what an examination found: under the structure lock, beside living processes, and nothing unread is deleted.

What a rescue does anyway comes first; then each problem by its kind. Every step looks again before it acts, since time has
passed, and can be repeated. Whether it helped is not for us to say: `check` examines once more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from segq._core.base.errors import DamagedError
from segq._core.base.settings import Settings
from segq._core.directory import owners
from segq._core.directory.catalog import Catalog
from segq._core.directory.index import Index
from segq._core.directory.label import Label
from segq._core.directory.topic_catalog import TopicCatalog
from segq._core.format import format as fmt
from segq._core.format.format import LabelWord, SegmentName, State
from segq._core.recovery import recovery
from segq._core.segment.ledger import Ledger
from segq._core.segment.rocksdb import SegmentReader
from segq._core.system import fs
from segq._core.system.locks import StructureLock
from segq.doctor.problem import ERROR, Problem
from segq.doctor.segment_examination import unreadable


class Repair:
    """One round of mending."""

    def __init__(self, path: str, kind: str, settings: Settings) -> None:
        self._path, self._kind, self._settings = path, kind, settings
        self._structure = StructureLock(path)

    def run(self, problems: list[Problem]) -> None:
        """Raises StorageError."""
        if any(problem.kind == "index" and problem.severity == ERROR for problem in problems):
            return  # a new index would only hide that the living do not share it
        owners = os.path.join(self._path, fmt.OWNERS_DIR)
        if not os.path.isdir(owners):
            fs.make_directory(owners)
        with self._structure:
            index = Index.open(self._path)
            try:
                catalog = (TopicCatalog if self._kind == "topic" else Catalog)(
                    self._path, self._settings, index, self._structure
                )
                recovery.rescue(catalog, 0)
                recovery.rescue_orphans(catalog)
                recovery.put_right(catalog)
                mend = _Mending(catalog)
                for problem in problems:
                    mend.one(problem)
            finally:
                index.close()


class _Mending:
    """Under the structure lock throughout."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._queue = catalog, catalog.queue
        self._files: dict[str, Callable[[Problem], None]] = {
            "leftover": self._leftover, "scratch": self._scratch, "label": self._label, "booking": self._booking,
        }  # fmt: skip
        self._segments: dict[str, Callable[[Problem, SegmentName], None]] = {
            "ledger": self._ledger, "claims": self._claims, "counters": self._counters, "names": self._name,
            "finished": self._finished, "items": self._items, "segment": self._items,
        }  # fmt: skip

    def one(self, problem: Problem) -> None:
        with contextlib.suppress(FileNotFoundError):
            if problem.kind in self._files:
                self._files[problem.kind](problem)
            elif problem.kind in self._segments:
                name = fmt.parse_segment(problem.where.partition(os.sep)[0])
                found = self._catalog.locate(name) if name is not None else None
                if found is not None:
                    self._segments[problem.kind](problem, found)

    # --- files ---

    def _leftover(self, problem: Problem) -> None:
        place, _, file = problem.where.rpartition(os.sep)
        name = fmt.parse_segment(place)
        if name is not None:
            known = {fmt.label_ledger(label.id) for label in self._labels()}
            found = self._catalog.locate(name)
            if found is not None and file not in known:
                fs.unlink(os.path.join(self._catalog.path(found), file))
        elif place != fmt.QUARANTINE_DIR or not self._anybody():
            fs.unlink(os.path.join(self._queue, problem.where))

    def _scratch(self, problem: Problem) -> None:
        slot = fmt.parse_slot(os.path.basename(problem.where).partition(".")[0])
        if slot not in owners.slots(self._queue):
            fs.remove_tree(os.path.join(self._queue, problem.where))

    def _label(self, problem: Problem) -> None:
        if isinstance(self._catalog, TopicCatalog) and os.path.basename(problem.where) in self._catalog.labels.damaged():
            fs.quarantine(self._queue, problem.where, problem.what)
            self._catalog.labels.changed()

    def _booking(self, problem: Problem) -> None:
        label = Label.open(os.path.join(self._queue, problem.where), self._catalog.index)
        label.booked(label.words[LabelWord.JOURNAL])

    def _labels(self) -> list[Label]:
        if not isinstance(self._catalog, TopicCatalog):
            return []
        self._catalog.labels.look_again()
        return self._catalog.labels.all()

    def _anybody(self) -> bool:
        return any(owners.is_alive(self._queue, slot) for slot in owners.slots(self._queue))

    # --- segments ---

    def _ledger(self, problem: Problem, name: SegmentName) -> None:
        _, inside, file = problem.where.partition(os.sep)
        if inside:
            with contextlib.suppress(DamagedError):
                source = Ledger.open(os.path.join(self._catalog.path(name), fmt.LEDGER_FILE))
                source.close()
                try:
                    Ledger.open(os.path.join(self._catalog.path(name), file), source).close()
                except DamagedError as error:
                    fs.quarantine(self._queue, os.path.join(str(name), file), str(error))
            return
        try:
            ledger = Ledger.open(os.path.join(self._catalog.path(name), fmt.LEDGER_FILE))
        except (DamagedError, FileNotFoundError) as error:
            if name.state is not State.LOADING:  # else its producer may be alive; if nobody is, it was rescued
                self._rebuild(name, error)
            return
        if name.state is not State.LOADING and not ledger.sealed:
            self._seal(name, ledger)
        ledger.close()

    def _seal(self, name: SegmentName, ledger: Ledger) -> None:
        """The name says sealed, the ledger does not, nor may it know of all items: an old one, as power loss leaves it."""
        path = self._catalog.path(name)
        if os.path.exists(os.path.join(path, "CURRENT")):
            try:
                reader = SegmentReader(path, None)
                try:
                    logged = reader.logged()
                finally:
                    reader.close()
            except DamagedError as error:
                self._catalog.quarantine(name, str(error))
                return
            if logged.end >= ledger.published:  # nothing is given up here
                recovery.believe_the_log(path, ledger, logged)
        ledger.seal()
        self._catalog.bell.ring()

    def _rebuild(self, name: SegmentName, error: Exception) -> None:
        try:
            rebuilt = recovery.rebuild_ledger(self._catalog, name)
        except DamagedError as worse:
            self._catalog.quarantine(name, f"{error}; {worse}")
            return
        if rebuilt is not None:
            rebuilt.close()
            self._catalog.index.changed()
            self._catalog.bell.ring()

    def _claims(self, _problem: Problem, name: SegmentName) -> None:
        slots = set(owners.slots(self._queue))
        for ledger in self._catalog.holders(name):
            for slot in ledger.holders().keys() - slots:
                ledger.release(slot)
        self._catalog.bell.ring()

    def _counters(self, _problem: Problem, name: SegmentName) -> None:
        for ledger in self._catalog.holders(name):
            ledger.reveal()
        ledger = Ledger.open(os.path.join(self._catalog.path(name), fmt.LEDGER_FILE))
        if name.state is not State.LOADING and ledger.sealed:
            ledger.seal()
        ledger.close()
        self._catalog.bell.ring()
        self._catalog.index.freed()

    def _name(self, _problem: Problem, name: SegmentName) -> None:
        ledger = Ledger.open(os.path.join(self._catalog.path(name), fmt.LEDGER_FILE))
        if name.state is State.READY and not ledger.untouched():
            self._catalog.correct(name, ledger)
        ledger.close()

    def _finished(self, _problem: Problem, name: SegmentName) -> None:
        ledger = Ledger.open(os.path.join(self._catalog.path(name), fmt.LEDGER_FILE))
        self._catalog.retire(name, ledger)
        ledger.close()

    def _items(self, problem: Problem, name: SegmentName) -> None:
        """Marks what cannot be read, so that nobody waits for it; where that is all, the segment goes to quarantine."""
        if name.state is State.LOADING:
            return
        if problem.kind == "segment" and not any(ledger.holders() for ledger in self._catalog.holders(name)):
            self._catalog.quarantine(name, problem.what)
            return
        for ledger in self._catalog.holders(name):
            for i in unreadable(self._catalog.path(name), ledger):
                ledger.bury(i, i + 1, 0)  # what is claimed stays its claimer's, who finds out
        ledger = Ledger.open(os.path.join(self._catalog.path(name), fmt.LEDGER_FILE))
        self._catalog.retire(name, ledger)
        ledger.close()


__all__ = ["Repair"]
