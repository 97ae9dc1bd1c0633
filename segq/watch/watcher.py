"""One queue watched: each look tells how it stands, and what has changed since the last."""

from __future__ import annotations

import dataclasses
import os
import time

from segq._core.base.errors import DamagedError, QueueError, StorageError
from segq._core.base.settings import Settings
from segq._core.format import format as fmt
from segq._core.format.format import IndexWord, State
from segq._core.segment.ledger_view import Census
from segq._core.system import fs
from segq._core.system.mapped import MappedFile
from segq.watch.events import Events
from segq.watch.labels import WatchedLabel, WatchedLabels
from segq.watch.people import Handle, People
from segq.watch.segments import Segments, Standing
from segq.watch.snapshot import MISSING, OPEN, REFUSED, Event, Flow, LabelView, ProcessView, Snapshot
from segq.watch.totals import Totals

DEAD_LETTERS = "dead"
"""The directory of a queue in which, as a queue of its own, lies what was given up."""


class Watcher:
    """Looks at the queue (or topic) at `path` whenever `look` is called, and never changes anything there.

    It takes no handle and writes nothing, so a queue behaves the same whether it is watched or not. The only locks it ever
    tries are those of owners, to see who is dead; that of the living it cannot get, that of a dead one it has for a moment.
    The queue need not be there yet, and may go.
    """

    def __init__(self, path: str | os.PathLike[str], *, processes: bool = True) -> None:
        """`processes`: whether to look at the processes that use it (which costs more than all else)."""
        self.path = os.path.abspath(os.fspath(path))
        self._processes = processes
        self._seen: _Queue | None = None
        self._before: Snapshot | None = None

    def look(self) -> Snapshot:
        """How the queue stands now. Raises nothing about the queue: what is wrong with it is in the snapshot."""
        now = time.time()
        try:
            version, kind, settings = self._settings()
            if self._seen is None or self._seen.version != version:
                self._seen = _Queue(self.path, version, kind, settings, processes=self._processes)
            snapshot = self._seen.look(now)
        except (FileNotFoundError, NotADirectoryError):
            snapshot = Snapshot(path=self.path, time=now, state=MISSING, error="there is no queue")
        except QueueError as error:
            snapshot = Snapshot(path=self.path, time=now, state=REFUSED, error=str(error))
        if snapshot.state != OPEN:
            self._seen = None
        self._before, before = snapshot, self._before
        return snapshot if before is None else with_coming_and_going(snapshot, before)

    def _settings(self) -> tuple[tuple[int, int], str, Settings]:
        path = os.path.join(self.path, fmt.QUEUE_FILE)
        with fs.storage_errors(path):
            status = os.stat(path)
        version = (status.st_ino, status.st_mtime_ns)
        if self._seen is not None and self._seen.version == version:
            return version, self._seen.kind, self._seen.settings
        _, kind, settings = fmt.decode_queue_file(fs.read_file(path), self.path)
        return version, kind, settings


class _Queue:
    """One life of the queue: made anew when another takes its place."""

    def __init__(self, path: str, version: tuple[int, int], kind: str, settings: Settings, *, processes: bool) -> None:
        self.version, self.kind, self.settings = version, kind, settings
        self._path, self._processes = path, processes
        self._index: MappedFile | None = None
        self._segments = Segments(path, settings)
        self._labels = WatchedLabels(path) if kind == "topic" else None
        self._people, self._totals, self._events = People(path), Totals(), Events(path)
        self._acknowledged: dict[str, int] = {}
        self._dead: Watcher | None = None
        self._before: Snapshot | None = None
        self._last = 0.0  # monotonic

    def look(self, now: float) -> Snapshot:
        index = self._opened_index()
        words = index.words if index is not None else None
        generation = words[IndexWord.GENERATION] if words is not None else -1
        handles = self._people.look(index)
        labels = self._labels.look() if self._labels is not None else None
        standings = self._segments.look(-1 if generation & 1 else generation, now, labels)
        self._people.look_after(handles, index)
        monotonic = time.monotonic()  # here, where the counts are read: on a busy machine a look may be held up anywhere
        interval = monotonic - self._last if self._before is not None else None
        self._last = monotonic
        expired = 0
        if labels is None:
            expired = sum(standing.missed for standing in standings) + (words[IndexWord.EXPIRED] if words is not None else 0)
        owners = {handle.key: (handle.puts, handle.gets) for handle in handles}
        totals = self._totals.look(owners, standings, self._segments.gone, expired)
        views = tuple(self._label(label, now, interval) for label in labels or ())
        if labels is not None:
            totals = Flow(put=totals.put, get=totals.get, ack=self._acknowledged_of_all(views))
        items = sum(standing.published - standing.over for standing in standings)
        claimed = min(sum(standing.handed for standing in standings), items)
        before = self._before
        snapshot = Snapshot(
            path=self._path,
            time=now,
            state=OPEN,
            kind=self.kind,
            capacity=self.settings.capacity,
            max_bytes=self.settings.max_bytes,
            items=items,
            waiting=items - claimed,
            claimed=claimed,
            taken=sum(standing.reserved - standing.over for standing in standings),
            bytes=sum(standing.bytes for standing in standings) if self.settings.max_bytes else None,
            oldest_age=self._age(now),
            segments={s.value: sum(st.name.state is s for st in standings) for s in (State.LOADING, State.READY, State.CHOSEN)},
            quarantined=self._events.set_aside(),
            dead_letters=self._dead_letters(),
            rescues=words[IndexWord.RESCUES] if words is not None else 0,
            redelivered=words[IndexWord.REDELIVERED] if words is not None else 0,
            expired=expired,
            shutdown=words is not None and words[IndexWord.SHUTDOWN] != 0,
            interval=interval,
            totals=totals,
            rates=per_second(before.totals, totals, interval) if before is not None and interval else Flow(),
            processes=self._views(handles, standings, interval),
            labels=views,
        )
        self._before = snapshot
        return _with(snapshot, self._events.between(before, snapshot))

    def _opened_index(self) -> MappedFile | None:
        if self._index is None or not self._index.same_file():
            try:
                index = MappedFile.look(os.path.join(self._path, fmt.INDEX_FILE), fmt.INDEX_SIZE)
                self._index = index if index.words[IndexWord.MAGIC] == fmt.INDEX_MAGIC else None
            except (FileNotFoundError, DamagedError, StorageError):
                self._index = None
        return self._index

    def _age(self, now: float) -> float | None:
        oldest = self._segments.oldest(now)
        return max(0.0, now - oldest) if oldest is not None else None

    def _views(self, handles: list[Handle], standings: list[Standing], interval: float | None) -> tuple[ProcessView, ...]:
        if not self._processes:
            return ()
        loading = {standing.owner for standing in standings if standing.name.state is State.LOADING}
        return self._people.processes(handles, self._segments.holders, loading, interval)

    def _label(self, label: WatchedLabel, now: float, interval: float | None) -> LabelView:
        settled, censuses = label.settled, self._segments.censuses(label)
        sums = [sum(column) for column in zip(*(census[:4] for _, census in censuses), strict=True)] or [0, 0, 0, 0]
        total = Census(sums[0], sums[1], sums[2] + settled[0], sums[3] + settled[1], -1)
        first = next(((name, census.first) for name, census in censuses if census.first >= 0), None)
        since = self._segments.put_time(*first, now) if first is not None else now
        known = self._acknowledged.get(label.id)
        acknowledged = max(total.acknowledged, known or 0)  # a share that is just being booked is nowhere for a moment
        self._acknowledged[label.id] = acknowledged
        return LabelView(
            label=label.text,
            lag=total.waiting + total.claimed,
            lag_seconds=max(0.0, now - since),
            waiting=total.waiting,
            claimed=total.claimed,
            acknowledged=acknowledged,
            missed=total.missed,
            ack_rate=(acknowledged - known) / interval if known is not None and interval else 0.0,
        )

    def _acknowledged_of_all(self, views: tuple[LabelView, ...]) -> float:
        """In a topic each label's acknowledgement counts."""
        if self._before is None:
            return 0.0
        old = {view.label: view.acknowledged for view in self._before.labels}
        return self._before.totals.ack + sum(max(0, view.acknowledged - old.get(view.label, 0)) for view in views)

    def _dead_letters(self) -> int | None:
        """Items in the queue of what was given up, if there is one."""
        place = os.path.join(self._path, DEAD_LETTERS)
        if not os.path.exists(os.path.join(place, fmt.QUEUE_FILE)):
            self._dead = None
            return None
        if self._dead is None:
            self._dead = Watcher(place, processes=False)
        return self._dead.look().items


def per_second(before: Flow, now: Flow, interval: float) -> Flow:
    """The rates between two counts."""
    return Flow(
        put=(now.put - before.put) / interval, get=(now.get - before.get) / interval, ack=(now.ack - before.ack) / interval
    )


def _with(snapshot: Snapshot, events: tuple[Event, ...]) -> Snapshot:
    return dataclasses.replace(snapshot, events=events) if events else snapshot


def with_coming_and_going(now: Snapshot, before: Snapshot) -> Snapshot:
    """`now`, with the news if there is a queue that there was not, or the other way round."""
    if now.state == before.state:
        return now
    told = {OPEN: "the queue is there", MISSING: "the queue is gone", REFUSED: now.error}[now.state]
    return _with(now, (Event(time=now.time, kind="queue", text=told), *now.events))
