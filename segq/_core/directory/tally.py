"""Counts, all derived from names and ledgers: what is stored, how much of the capacity is taken, who is at work.

`Tally` is the one place that adds up; the producer asks it for room, `qsize` and `stats` ask it for people.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator

from segq._core.base.errors import DamagedError
from segq._core.base.settings import Settings
from segq._core.directory import owners
from segq._core.directory.catalog import Catalog
from segq._core.directory.label import Label
from segq._core.directory.topic_catalog import TopicCatalog
from segq._core.format import format as fmt
from segq._core.format.format import IndexWord, OwnerWord, SegmentName, State
from segq._core.segment.ledger import Ledger
from segq._core.segment.ledger_view import LedgerView, now_ms
from segq._core.system import fs


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OwnerStats:
    """One open handle: who, and what it has done since it was opened. Times are seconds of the epoch."""

    slot: int
    pid: int
    started: float
    command: str
    puts: int
    gets: int
    alive: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelStats:
    """What one label of a topic has done, and has to do.

    `lag` is how many items it has not acknowledged (`waiting`, or `claimed` by somebody), `lag_seconds` how long ago the oldest
    of these was put, `position` its id (None: nothing is left). `acknowledged` and `missed` (expired or dropped before the
    label had them) count since it began, and are exact; `redelivered` is how often an item was handed out again; `delayed`
    of those that wait were given back for later.
    """

    label: str
    position: str | None
    lag: int
    lag_seconds: float
    waiting: int
    claimed: int
    acknowledged: int
    redelivered: int
    missed: int
    delayed: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A queue, or a topic, at a moment; other processes go on meanwhile, so the numbers need not fit each other to the item.

    `items` are stored and not acknowledged, of which `waiting` can be handed out (or lie prefetched with a consumer) and
    `claimed` are with somebody who has not acknowledged them; `bytes` is their payload, where a byte limit is set.
    `oldest` is when the oldest segment was begun (seconds of the epoch). `puts` and `gets` are those of the handles in
    `owners` since each was opened; a put shows with the next one in another millisecond. `expired` items of a queue ran out of
    time before anybody had them; `delayed` ones were given back for later and are not due yet (they wait as well); `dead` is
    how many dead letters there are. In a topic `items` are stored (for whichever label), and what waits is told by label.
    """

    path: str
    kind: str
    capacity: int | None
    max_bytes: int | None
    items: int
    waiting: int
    claimed: int
    bytes: int | None
    segments: dict[str, int]
    quarantined: int
    rescues: int
    redelivered: int
    oldest: float | None
    owners: tuple[OwnerStats, ...]
    puts: int
    gets: int
    shutdown: bool
    expired: int = 0
    delayed: int = 0
    dead: int = 0
    labels: tuple[LabelStats, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Room taken: by items stored or reserved for, in items and bytes; `idle` of it is reserved and not used yet."""

    items: int
    bytes: int
    idle: int
    idle_bytes: int


class Tally:
    """Adds up the ledgers of all segments. Keeps them mapped between calls; a sealed untouched one is read only once."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._ledgers: dict[str, Ledger] = {}
        self._untouched: dict[str, tuple[int, int]] = {}

    @contextlib.contextmanager
    def decided(self) -> Iterator[Taken]:
        """The room taken, while the index's lock is held: nobody else reserves until the body has ended.

        Reading the names may take the structure lock, which comes before the index's lock. So the names are read first; if they
        change before the index's lock is held, both are tried again.
        """
        while True:
            self._catalog.names()
            with self._catalog.index.lock:
                names = self._catalog.known()
                if names is not None:
                    yield self._taken(names)
                    return

    def taken(self) -> Taken:
        """The room taken just now. A reservation needs `decided`."""
        return self._taken(self._catalog.names())

    def _taken(self, names: list[SegmentName]) -> Taken:
        items = size = idle = idle_bytes = 0
        for name, ledger in self._walk(names):
            if ledger is None:
                published, published_bytes = self._untouched[name.identity]
                items += published
                size += published_bytes
                continue
            reserved, reserved_bytes = ledger.reserved()
            gone, gone_bytes = self._catalog.gone(name, ledger)
            items += reserved - gone
            size += reserved_bytes - gone_bytes
            idle += reserved - ledger.published
            idle_bytes += reserved_bytes - ledger.published_bytes()
        return Taken(items=items, bytes=size, idle=idle, idle_bytes=idle_bytes)

    def full(self, settings: Settings) -> bool:
        """Whether the items stored take all the room there is."""
        taken, capacity, max_bytes = self.taken(), settings.capacity, settings.max_bytes
        return (capacity is not None and taken.items - taken.idle >= capacity) or (
            max_bytes is not None and taken.bytes - taken.idle_bytes >= max_bytes
        )

    def stored(self) -> tuple[int, int]:
        """(items stored and not done, how many of them are handed to somebody)."""
        items = handed = 0
        for name, ledger in self._walk(self._catalog.names()):
            if ledger is None:
                items += self._untouched[name.identity][0]
                continue
            handed += ledger.handed()
            items += max(0, ledger.published - self._catalog.gone(name, ledger)[0])
        return items, min(handed, items)

    def delayed(self) -> int:
        """Items that were given back for later and are not due yet."""
        return sum(ledger.delayed() for _, ledger in self._walk(self._catalog.names()) if ledger is not None)

    def missed(self) -> int:
        """Items that expired before anybody had them, in segments that are still there."""
        return sum(
            ledger.missed()
            for _, ledger in self._walk(self._catalog.names())
            if ledger is not None and ledger.expires is not None
        )

    def _walk(self, names: list[SegmentName]) -> list[tuple[SegmentName, Ledger | None]]:
        """Each segment with its ledger, or None for one whose counts stand in `_untouched`."""
        walked: list[tuple[SegmentName, Ledger | None]] = []
        ledgers, untouched = self._ledgers, self._untouched
        kept_ledgers: dict[str, Ledger] = {}
        kept_untouched: dict[str, tuple[int, int]] = {}
        tails = {name.lineage: name for name in names}  # only the youngest of a lineage can be resumed, and grow
        for name in names:
            key = name.identity
            settled = name.state is State.READY and tails[name.lineage] is not name
            if settled and key in untouched:
                kept_untouched[key] = untouched[key]
                walked.append((name, None))
                continue
            ledger = ledgers.get(key)
            if ledger is None:
                try:
                    ledger = self._catalog.ledger(name)
                except DamagedError:
                    ledger = None
                if ledger is None:
                    continue
                if ledger.expires is None or self._catalog.labelled:
                    ledger.close()  # the mapping stays; it is only read
            if ledger.expires is None and settled and ledger.must_be_chosen() and not self._catalog.labelled:
                kept_untouched[key] = (ledger.published, ledger.published_bytes())
                walked.append((name, None))
            else:
                kept_ledgers[key] = ledger
                walked.append((name, ledger))
        self._ledgers, self._untouched = kept_ledgers, kept_untouched
        return walked


def outstanding(catalog: Catalog) -> int:
    """Items handed out by get, by all handles, for which task_done was not called."""
    return sum(max(0, catalog.index.outstanding(slot)) for slot in owners.slots(catalog.queue))


def label_stats(catalog: TopicCatalog, label: Label, time_of: Callable[[SegmentName, int], float]) -> LabelStats:
    """`time_of`: when an item was put, in seconds of the epoch."""
    with catalog.steady():
        counts = [0, 0, *label.settled]  # waiting, claimed, acknowledged, missed
        redelivered, delayed, oldest = 0, 0, None
        for name in list(Catalog.names(catalog)):
            source = catalog.mapped(name)
            if source is None:
                continue
            source.lapse(now_ms())
            census = catalog.labels.census(label, name, source)
            counts = [a + b for a, b in zip(counts, census[:4], strict=True)]
            ledger = catalog.labels.ledger(label, name, source)
            if ledger is not None:
                redelivered += ledger.redelivered()
                delayed += ledger.delayed()
            if oldest is None and census.first >= 0:
                oldest = (name, census.first)
    waiting, claimed, acknowledged, missed = counts
    since = time_of(*oldest) if oldest is not None else 0.0
    return LabelStats(
        label=label.text,
        position=f"{oldest[0].identity}-{oldest[1]}" if oldest is not None else None,
        lag=waiting + claimed,
        lag_seconds=max(0.0, time.time() - since) if since else 0.0,
        waiting=waiting,
        claimed=claimed,
        acknowledged=acknowledged,
        redelivered=redelivered,
        missed=missed,
        delayed=delayed,
    )


def collect(catalog: Catalog, tally: Tally, kind: str, settings: Settings, labels: tuple[LabelStats, ...] = ()) -> Stats:
    index = catalog.index
    catalog.look_again()
    items, handed = tally.stored()
    taken = tally.taken()
    names = catalog.names()
    handles = tuple(filter(None, (_owner(catalog, slot) for slot in owners.slots(catalog.queue))))
    quarantine = os.path.join(catalog.queue, fmt.QUARANTINE_DIR)
    return Stats(
        path=catalog.queue,
        kind=kind,
        capacity=settings.capacity,
        max_bytes=settings.max_bytes,
        items=items,
        waiting=items - handed,
        claimed=handed,
        bytes=taken.bytes - taken.idle_bytes if settings.max_bytes else None,
        segments={s.value: sum(n.state is s for n in names) for s in (State.LOADING, State.READY, State.CHOSEN)},
        quarantined=sum(not n.endswith(".reason") for n in fs.listing(quarantine)) if os.path.isdir(quarantine) else 0,
        rescues=index.words[IndexWord.RESCUES],
        redelivered=index.words[IndexWord.REDELIVERED],
        oldest=names[0].stamp / 1e9 if names else None,
        owners=handles,
        puts=sum(owner.puts for owner in handles),
        gets=sum(owner.gets for owner in handles),
        shutdown=index.shutdown != 0,
        expired=0 if catalog.labelled else index.words[IndexWord.EXPIRED] + tally.missed(),
        delayed=0 if catalog.labelled else tally.delayed(),
        dead=dead_letters(catalog.queue),
        labels=labels,
    )


def dead_letters(queue: str) -> int:
    """How many dead letters a queue has, read off their ledgers; nothing is opened."""
    place, count = os.path.join(queue, fmt.DEAD_DIR), 0
    if not os.path.isdir(place):
        return 0
    for entry in fs.directories(place):
        name = fmt.parse_segment(entry)
        if name is None or name.state is State.REMOVED:
            continue
        with contextlib.suppress(FileNotFoundError, DamagedError):  # one that is renamed just now is not counted
            ledger = LedgerView.look(os.path.join(place, entry, fmt.LEDGER_FILE))
            ledger.close()
            count += ledger.published - ledger.done()
    return count


def _owner(catalog: Catalog, slot: int) -> OwnerStats | None:
    record = owners.record(catalog.queue, slot)
    if record is None:
        return None
    words, at = catalog.index.words, catalog.index.owner_word
    return OwnerStats(
        slot=slot,
        pid=record.pid,
        started=record.started,
        command=record.command,
        puts=words[at(slot, OwnerWord.PUTS)],
        gets=words[at(slot, OwnerWord.GETS)] + words[at(slot, OwnerWord.RECEIVES)],
        alive=owners.is_alive(catalog.queue, slot),
    )
