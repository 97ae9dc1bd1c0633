"""How the segments of a queue stand, read from their ledgers without a lock, and without changing a byte.

Every file is opened and mapped for reading only. A mapping outlives the file's deletion, so what happened in a segment that
went since the last look is still read off its ledger. What cannot change any more is remembered instead of read again: a
queue with thousands of sealed segments costs a look no more than one with few.
"""

from __future__ import annotations

import dataclasses
import os
from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

from segq._core.base.errors import DamagedError, StorageError
from segq._core.base.settings import Settings
from segq._core.format import blocks
from segq._core.format import format as fmt
from segq._core.format.format import SegmentName, State
from segq._core.segment.batch import BatchReader
from segq._core.segment.ledger_view import Census, LedgerView, now_ms
from segq._core.system import fs
from segq.watch.labels import WatchedLabel

_ATTEMPTS = 4  # to catch a segment under its name; each failure means that somebody renamed it
_MOST_OPEN = 200  # mappings kept between looks: up to Python 3.12 each costs a descriptor, of which a process may have 1,024
_MOST_MARKS = 128


class Standing(NamedTuple):
    """One segment. `over`: items that nobody will be handed (again); `missed` of them expired, or were dropped."""

    name: SegmentName
    owner: int
    published: int
    over: int
    missed: int
    handed: int
    reserved: int
    bytes: int


@dataclasses.dataclass(slots=True)
class _Segment:
    """What is remembered of a segment."""

    name: SegmentName
    standing: Standing
    seen_at: float
    ledger: LedgerView | None = None
    batch: BatchReader | None = None
    ended_at: float | None = None
    marks: list[tuple[int, float]] = dataclasses.field(default_factory=list)  # (items, when so many were there)
    begun: dict[str, LedgerView | None] = dataclasses.field(default_factory=dict)  # by label; None: it has not begun
    census: dict[str, Census] = dataclasses.field(default_factory=dict)
    final: set[str] = dataclasses.field(default_factory=set)  # labels for which nothing can change any more
    cold: tuple[int, ...] = ()  # in a topic: the generation of the index, and the labels, for which nothing about it can change


class Segments:
    """All segments of a queue (or, with `labels`, of a topic), look after look."""

    def __init__(self, queue: str, settings: Settings) -> None:
        self._queue, self._byte_limit = queue, settings.max_bytes is not None
        self._kept = settings.retain == "ttl"  # for labels to come, whoever has had them
        self._droppable = settings.droppable
        self._known: dict[str, _Segment] = {}
        self._generation = -1
        self._first = True
        self.holders: Counter[int] = Counter()  # items in the hands of each owner's slot
        self.gone: list[Standing] = []  # those that went since the last look, as they stood in the end
        self.standings: list[Standing] = []

    def look(self, generation: int, now: float, labels: list[WatchedLabel] | None = None) -> list[Standing]:
        """Oldest first. `generation`: the index's, by which it is known that no name has changed.

        Raises FileNotFoundError when the queue is gone.
        """
        names = self._names()
        tails = {name.lineage: name for name in names}  # only the youngest of a lineage can be resumed, and grow
        following = _following(names)
        self.holders = Counter()
        present: dict[str, _Segment] = {}
        open_mappings = 0
        life = (generation, *(int(label.id, 16) for label in labels or ()))
        for name in names:
            known = self._known.get(name.identity)
            settled = name.state is State.READY and tails[name.lineage] is not name and labels is None
            if known is not None and known.name.state is name.state and (settled or (known.cold == life and generation >= 0)):
                present[name.identity] = known
                continue
            seen = self._read(name, known, labels, now)
            if seen is None:
                continue
            if seen.ended_at is None and name.state is not State.LOADING:
                seen.ended_at = self._end_of(name, following.get(name.identity))
            seen.cold = life if labels is not None and self._cold(seen, labels) else ()
            open_mappings += (seen.ledger is not None) + len(seen.begun)
            if settled or seen.cold or open_mappings > _MOST_OPEN:
                seen.ledger = None
                seen.begun = {}
            present[name.identity] = seen
        self.gone = [self._last_of(segment) for key, segment in self._known.items() if key not in present]
        self._known = present
        self._first = False
        self.standings = [segment.standing for segment in present.values()]
        return self.standings

    # --- which there are ---

    def _names(self) -> list[SegmentName]:
        found = {
            name.identity: name
            for name in map(fmt.parse_segment, fs.directories(self._queue))
            if name is not None and name.state is not State.REMOVED
        }
        for key, segment in self._known.items():
            if key not in found and (moved := fs.locate(self._queue, segment.name)) is not None:
                found[key] = moved  # the listing missed it while it was renamed
        return sorted(found.values())

    def _end_of(self, name: SegmentName, following: SegmentName | None) -> float | None:
        """About when the last item of a sealed segment was put."""
        try:
            sealed = os.stat(os.path.join(self._queue, str(name))).st_mtime  # its open batch was deleted then
        except OSError:
            return None
        return min(sealed, following.stamp / 1e9) if following is not None else sealed

    def _last_of(self, segment: _Segment) -> Standing:
        """How a segment stood when it went."""
        if segment.ledger is not None and not segment.census:
            return self._standing(segment.name, segment.ledger)
        standing = segment.standing
        return standing if self._in_quarantine(segment.name) else standing._replace(over=standing.published)

    def _in_quarantine(self, name: SegmentName) -> bool:
        places = (os.path.join(self._queue, fmt.QUARANTINE_DIR, str(name.in_state(state))) for state in State)
        return any(os.path.lexists(place) for place in places)

    # --- one of them ---

    def _read(
        self, name: SegmentName, known: _Segment | None, labels: list[WatchedLabel] | None, now: float
    ) -> _Segment | None:
        ledger = known.ledger if known is not None else None
        if ledger is None:
            ledger = self._open(name)
            if ledger is None:
                return None
        seen = known
        if seen is None:
            seen = _Segment(name, self._standing(name, ledger), now)
            if not self._first:  # it was begun since the last look
                seen.marks.append((0, name.stamp / 1e9))
        if seen.name.state is not name.state:
            seen.batch = None
        seen.name, seen.ledger = name, ledger
        if labels is None:
            seen.standing = self._standing(name, ledger)
            if name.state is not State.READY:
                self.holders.update(ledger.holders())
        else:
            seen.standing = self._shared(seen, ledger, labels)
        published = seen.standing.published
        if not seen.marks or seen.marks[-1][0] < published:
            seen.marks.append((published, now))
            if len(seen.marks) > _MOST_MARKS:
                seen.marks = seen.marks[::2]
        return seen

    def _open(self, name: SegmentName) -> LedgerView | None:
        place: SegmentName | None = name
        for _attempt in range(_ATTEMPTS):
            if place is None:
                break
            try:
                ledger = LedgerView.look(os.path.join(self._queue, str(place), fmt.LEDGER_FILE))
            except FileNotFoundError:
                place = fs.locate(self._queue, name)
            except (DamagedError, StorageError):
                break
            else:
                ledger.close()  # the mapping stays
                return ledger
        return None

    def _standing(self, name: SegmentName, ledger: LedgerView) -> Standing:
        published = ledger.published
        over = min(ledger.done(), published)
        missed = 0
        if ledger.expires is not None:
            missed = ledger.missed()
            if ledger.lapsed(now_ms()):  # nobody was there to mark it
                missed, over = missed + published - over, published
        size = ledger.published_bytes() - ledger.done_bytes() if self._byte_limit else 0
        handed = ledger.handed() if name.state is not State.READY else 0
        return Standing(name, ledger.owner, published, over, missed, handed, ledger.reserved()[0], size)

    # --- in a topic ---

    def _shared(self, seen: _Segment, source: LedgerView, labels: list[WatchedLabel]) -> Standing:
        published = source.published
        gone = b"\1" * published if source.lapsed(now_ms()) else source.over_mask(published)
        every = int.from_bytes(b"\1" * published, "little")
        handed = 0
        seen.census = {label.id: seen.census[label.id] for label in labels if label.id in seen.census}
        for label in labels:
            if label.id in seen.final and seen.census[label.id].first < 0:
                continue
            view = self._begun(seen, label, source)
            if view is None:
                start = label.start_in(seen.name)
                seen.census[label.id] = Census(
                    gone.count(0, start), 0, 0, gone.count(1, start), gone.find(0, start) if start < published else -1
                )
                every &= int.from_bytes((b"\1" * start).ljust(published, b"\0")[:published], "little")
                continue
            census = seen.census[label.id] = view.census(gone)
            self.holders.update(view.holders())
            handed += census.claimed
            if source.sealed and census.first < 0 and not census.claimed:
                seen.final.add(label.id)
                seen.begun.pop(label.id, None)
            else:
                every &= int.from_bytes(view.over_mask(published), "little")
        both = int.from_bytes(gone, "little")
        over = both if self._kept or not labels else both | every
        count = over.bit_count()
        size = 0
        if self._byte_limit:
            size = source.published_bytes() - source.bytes_of(over.to_bytes(published, "little"), 0, fmt.ONES)
        return Standing(seen.name, source.owner, published, count, gone.count(1), handed, source.reserved()[0], size)

    def _begun(self, seen: _Segment, label: WatchedLabel, source: LedgerView) -> LedgerView | None:
        view = seen.begun.get(label.id)
        if view is not None:
            return view
        place: SegmentName | None = seen.name
        for _attempt in range(_ATTEMPTS):
            if place is None:
                return None
            path = os.path.join(self._queue, str(place))
            try:
                view = LedgerView.look(os.path.join(path, fmt.label_ledger(label.id)), source)
            except FileNotFoundError:
                if os.path.isdir(path):
                    return None
                place = fs.locate(self._queue, seen.name)
            except (DamagedError, StorageError):
                return None
            else:
                view.close()
                seen.begun[label.id] = view
                return view
        return None

    def _cold(self, seen: _Segment, labels: list[WatchedLabel]) -> bool:
        """Whether nothing can change about a topic's segment until a name changes: each label is done, or has not begun."""
        ledger = seen.ledger
        return (
            ledger is not None
            and ledger.sealed
            and ledger.expires is None
            and not self._droppable
            and all(label.id in seen.final or label.id not in seen.begun for label in labels)
        )

    def censuses(self, label: WatchedLabel) -> list[tuple[SegmentName, Census]]:
        """How each segment stands with a label, oldest first."""
        found = ((segment.name, segment.census.get(label.id)) for segment in self._known.values())
        return [(name, census) for name, census in found if census is not None]

    # --- times ---

    def oldest(self, now: float) -> float | None:
        """About when the oldest item was put that is not over; None if there is none."""
        for segment in self._known.values():
            standing = segment.standing
            if standing.published > standing.over:
                ledger = segment.ledger
                first = ledger.first_open() if ledger is not None and not segment.census else 0
                if segment.census:
                    first = min((c.first for c in segment.census.values() if c.first >= 0), default=0)
                return self.put_time(segment.name, first, now)
        return None

    def put_time(self, name: SegmentName, item: int, now: float) -> float:
        """When an item was put: to the millisecond while it lies in the open batch, else between what is known around it."""
        segment = self._known.get(name.identity)
        if segment is None:
            return name.stamp / 1e9
        published = segment.standing.published
        if name.state is State.LOADING and (exact := self._in_batch(segment, item, published)):
            return exact
        begin, end = name.stamp / 1e9, segment.ended_at or now
        marks = [(0, begin), *segment.marks]
        if not segment.marks or segment.marks[-1][0] < published or segment.marks[0][1] > end:
            marks = [(0, begin), (published, end)]
        at = bisect_right(marks, item, key=lambda mark: mark[0])
        if at >= len(marks):
            return min(end, marks[-1][1])
        (low, since), (high, until) = marks[at - 1], marks[at]
        return min(since + (until - since) * (item - low) / max(1, high - low), now)

    def _in_batch(self, segment: _Segment, item: int, published: int) -> float:
        try:
            if segment.batch is None:
                path = os.path.join(self._queue, str(segment.name), fmt.BATCH_FILE)
                segment.batch = BatchReader(path, writable=False)
            found = segment.batch.read(item, item + 1, published)
        except (FileNotFoundError, DamagedError, StorageError):
            return 0.0
        return blocks.put_time([found[1]], item) / 1000 if found is not None else 0.0


def _following(names: list[SegmentName]) -> dict[str, SegmentName]:
    """For each segment the next of its lineage."""
    found: dict[str, SegmentName] = {}
    last: dict[str, SegmentName] = {}
    for name in names:
        if name.lineage in last:
            found[last[name.lineage].identity] = name
        last[name.lineage] = name
    return found
