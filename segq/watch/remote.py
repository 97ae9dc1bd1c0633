"""A queue (or topic) of another engine watched: what its server says of it."""

from __future__ import annotations

import dataclasses
import time

from segq._core.base.errors import NotAQueueError, QueueError
from segq._core.directory.tally import LabelStats
from segq.engines.address import parse
from segq.engines.connect import connect, kind_of
from segq.engines.counts import EngineStats
from segq.engines.interface import QueueLike, TopicLike
from segq.watch.snapshot import MISSING, OPEN, REFUSED, Event, Flow, LabelView, Snapshot
from segq.watch.watcher import per_second, with_coming_and_going


class RemoteWatcher:
    """Looks at what is at `address` whenever `look` is called. Nothing there is changed.

    An engine does not know who uses a queue, so no processes are shown; its server may be away, which the snapshot says.
    """

    def __init__(self, address: str) -> None:
        """Raises SettingsError for what is no address."""
        self.path = parse(address).shown()
        self._address = address
        self._handle: QueueLike | TopicLike | None = None
        self._before: Snapshot | None = None
        self._begun = Flow()  # the engine's counts when the watch began
        self._last = 0.0  # monotonic

    def look(self) -> Snapshot:
        """How it stands now; takes as long as the server takes to answer. What is wrong is in the snapshot."""
        now, before = time.time(), self._before
        try:
            snapshot = self._seen(now)
        except NotAQueueError:
            snapshot = Snapshot(path=self.path, time=now, state=MISSING, error="there is no queue")
        except QueueError as error:
            snapshot = Snapshot(path=self.path, time=now, state=REFUSED, error=str(error))
        if snapshot.state == MISSING:
            self.close()
        self._before = snapshot
        return snapshot if before is None else with_coming_and_going(snapshot, before)

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def _seen(self, now: float) -> Snapshot:
        if self._handle is None:
            self._handle = connect(self._address, kind_of(self._address), create=False)
        stats = self._handle.stats()
        counts = Flow()
        if isinstance(stats, EngineStats):
            counts = Flow(put=stats.ever_put, get=stats.ever_got, ack=stats.ever_gone)
        before, monotonic = self._before, time.monotonic()
        known = before is not None and before.state == OPEN
        if not known:
            self._begun = counts
        interval = monotonic - self._last if known else None
        self._last = monotonic
        begun = self._begun
        totals = Flow(put=counts.put - begun.put, get=counts.get - begun.get, ack=counts.ack - begun.ack)
        labels = tuple(map(_view, stats.labels))
        snapshot = Snapshot(
            path=self.path,
            time=now,
            state=OPEN,
            kind=stats.kind,
            capacity=stats.capacity,
            max_bytes=stats.max_bytes,
            items=stats.items,
            waiting=stats.waiting,
            claimed=stats.claimed,
            taken=stats.items,
            bytes=stats.bytes,
            oldest_age=max(0.0, now - stats.oldest) if stats.oldest is not None else None,
            dead_letters=stats.dead or None,
            redelivered=stats.redelivered,
            expired=stats.expired,
            shutdown=stats.shutdown,
            interval=interval,
            totals=totals,
            rates=per_second(before.totals, totals, interval) if before is not None and interval else Flow(),
            labels=labels,
        )
        return dataclasses.replace(snapshot, events=_events(before, snapshot)) if known and before is not None else snapshot


def _view(label: LabelStats) -> LabelView:
    return LabelView(
        label=label.label, lag=label.lag, lag_seconds=label.lag_seconds, waiting=label.waiting, claimed=label.claimed,
        acknowledged=label.acknowledged, missed=label.missed, ack_rate=0.0,
    )  # fmt: skip


def _events(before: Snapshot, now: Snapshot) -> tuple[Event, ...]:
    old, new = {label.label for label in before.labels}, {label.label for label in now.labels}
    told = [f"label {text!r} began" for text in sorted(new - old)] + [f"label {text!r} is gone" for text in sorted(old - new)]
    return tuple(Event(time=now.time, kind="label", text=text) for text in told)
