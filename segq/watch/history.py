"""The last minutes of a watched queue: what the curves are drawn from, and what happened lately."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from segq.watch.snapshot import OPEN, Event, Snapshot

POINTS = 600  # ten minutes at a look a second: more than any screen is wide
EVENTS = 200


class Point(NamedTuple):
    """Rates in items a second, and the items stored, at a time."""

    time: float
    put: float
    get: float
    ack: float
    items: int


class History:
    """Remembers snapshots as they come."""

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=POINTS)
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self.last: Snapshot | None = None

    def add(self, snapshot: Snapshot) -> None:
        self.last = snapshot
        self.events.extend(snapshot.events)
        if snapshot.state == OPEN and snapshot.interval is not None:
            rates = snapshot.rates
            self.points.append(Point(snapshot.time, rates.put, rates.get, rates.ack, snapshot.items))

    def series(self, name: str, most: int) -> list[float]:
        """The last `most` values of put, get, ack or items, oldest first."""
        at = Point._fields.index(name)
        return [point[at] for point in list(self.points)[-most:]]
