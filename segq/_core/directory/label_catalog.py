"""A topic's segments as one label sees them: without those it has finished, and with its own claims on items."""

from __future__ import annotations

import os
from collections.abc import Iterator

from segq._core.base.errors import DamagedError, LabelRemoved
from segq._core.base.failpoints import ARMED, reach
from segq._core.base.settings import Settings
from segq._core.directory.catalog import Catalog
from segq._core.directory.index import Index
from segq._core.directory.label import Label
from segq._core.directory.topic_catalog import TopicCatalog
from segq._core.format import format as fmt
from segq._core.format.format import SegmentName, State
from segq._core.segment.ledger import Ledger
from segq._core.system import fs
from segq._core.system.locks import StructureLock


class LabelCatalog(TopicCatalog):
    """The catalog that the consumers of one label use."""

    def __init__(self, queue: str, settings: Settings, index: Index, structure: StructureLock, label: Label) -> None:
        super().__init__(queue, settings, index, structure)
        self.label = label
        self._over: set[str] = set()  # segments that this label has finished
        self._shown: list[SegmentName] = []
        self._shown_of: list[SegmentName] | None = None

    def names(self) -> list[SegmentName]:
        """The segments that this label has not finished. Raises LabelRemoved."""
        if self.label.removed:
            raise LabelRemoved(
                f"label {self.label.text!r} of {self.queue} was removed; subscribe again to begin anew", path=self.queue
            )
        names = super().names()
        if names is not self._shown_of:
            present = {name.identity for name in names}
            self._over &= present
            self._shown_of = names
            self._filter()
        return self._shown

    def _filter(self) -> None:
        self._shown = [name for name in self._shown_of or [] if name.identity not in self._over]

    def own_holders(self, name: SegmentName) -> Iterator[Ledger]:
        return self._begun(name, [self.label])

    def ledger(self, name: SegmentName) -> Ledger | None:
        """The label's ledger of a segment, created if necessary; None if the segment has no item for the label."""
        for _attempt in range(8):  # each failure means a rename between the lookup and the open
            source = Catalog.ledger(self, name)
            if source is None:
                return None
            source.close()
            found = self.locate(name)
            if found is None:
                return None
            path = os.path.join(self.path(found), fmt.label_ledger(self.label.id))
            try:
                return Ledger.open(path, source)
            except FileNotFoundError:
                if self._nothing_for_us(found, source):
                    return None
                return self._begin(found, source)
            except DamagedError as error:
                with self.structure:
                    if os.path.lexists(path):
                        fs.clear_away(self.queue, os.path.relpath(path, self.queue), str(error))
        return None

    def has_begun(self, name: SegmentName) -> bool:
        return os.path.lexists(os.path.join(self.path(name), fmt.label_ledger(self.label.id)))

    def _nothing_for_us(self, name: SegmentName, source: Ledger) -> bool:
        """Whether all items of a sealed segment are older than the label. (Producers do not resume such a segment.)"""
        if name.state is State.LOADING or self.label.start_in(name) < source.published:
            return False
        self._over.add(name.identity)
        self._filter()
        return True

    def _begin(self, name: SegmentName, source: Ledger) -> Ledger | None:
        with self.structure:
            found = self.locate(name)
            if found is None or self.label.removed:
                return None
            start = self.label.start_in(found)
            now = self._make_chosen(found, source)
            if now is None:
                return None
            path = os.path.join(self.path(now), fmt.label_ledger(self.label.id))
            if os.path.exists(path):
                return Ledger.open(path, source)
            if ARMED:
                reach("label.chosen")
            ledger = Ledger.create_for_label(path, source, self.labels.flags, b"\1" * start)
            if ARMED:
                reach("label.ledger")
            self.index.changed()
            return ledger

    def retire(self, name: SegmentName, ledger: Ledger) -> bool:
        """Notes that this label has finished the segment; removes it if all have. `ledger`: the label's or the producer's."""
        if ledger.source is not None and ledger.complete():
            self._over.add(name.identity)
            self._filter()
        source = self.mapped(name)
        found = self.locate(name)
        if source is None or found is None or found.state is State.LOADING or not self.finished(found, source):
            return False
        return super().retire(name, source)
