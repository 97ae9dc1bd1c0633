"""Batches into the queue: as they come, or each record once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

import segq
from segq.connectors.kafka.positions import NOTHING, Partition, Position, Positions
from segq.connectors.kafka.record import Record
from segq.engines.interface import Putting

_ROOM_SECONDS = 0.2  # how long room is waited for at once
_BUSY_SECONDS = 0.01  # the time of a put
_SAME_TOPIC_SECONDS = 30.0  # for how long a topic's id is believed when its offsets begin anew

Convert = Callable[[Record], Any]


class Waiting(NamedTuple):
    """A record and the item that it becomes (None: it is left out)."""

    record: Record
    item: Any


@dataclasses.dataclass(slots=True)
class SourceCounts:
    """What a source has done since it was made.

    Records `stored`, in how many `batches`; `repeats` dropped; records `left_out` by its convert; `doubtful` ones among the
    stored; `pauses`: how often the queue was full for so long that reading paused.
    """

    stored: int = 0
    batches: int = 0
    repeats: int = 0
    left_out: int = 0
    doubtful: int = 0
    pauses: int = 0


class Topics(Protocol):
    """Who knows the ids of topics."""

    def topic_ids(self, topics: Sequence[str]) -> dict[str, str]: ...


class Intake:
    """Stores batches, and, with positions, each record once."""

    def __init__(self, queue: Putting, positions: Positions | None, convert: Convert | None, counts: SourceCounts) -> None:
        self._queue, self._positions, self._convert, self._counts = queue, positions, convert, counts
        self._looked_up: dict[str, float] = {}

    def store(self, batch: Sequence[Waiting], last: Mapping[Partition, int], topics: Topics) -> bool:
        """All of it, or nothing: False if that has to be tried again (no room, or whose turn it is not clear).

        `last` is the highest offset of each partition in it. Raises the queue's errors, with nothing stored.
        """
        if self._positions is None:
            return self._put(batch)
        unknown = [topic for topic in {topic for topic, _ in last} if not self._positions.knows(topic)]
        for topic, topic_id in topics.topic_ids(unknown).items():
            self._positions.learn(topic, topic_id)
            self._looked_up[topic] = time.monotonic()
            unknown.remove(topic)
        if unknown:
            time.sleep(_BUSY_SECONDS)
            return False
        with self._positions.held(last) as held:
            if held is None:  # who had the partition before us is just storing
                time.sleep(_BUSY_SECONDS)
                return False
            return self._store_once(self._positions, batch, last, held)

    def _store_once(
        self, positions: Positions, batch: Sequence[Waiting], last: Mapping[Partition, int], held: Mapping[Partition, Position]
    ) -> bool:
        known = {partition: max(position.stored, position.storing) for partition, position in held.items()}
        if any(record.offset <= known[record.topic, record.partition] for record, _ in batch):
            if self._another_topic(positions, batch, held):
                return False
            batch = self._without_repeats(batch, held)
            last = {partition: offset for partition, offset in last.items() if offset > held[partition].stored}
        before = {partition: held[partition].storing for partition in last}
        for partition, offset in last.items():
            held[partition].note(held[partition].stored, max(offset, before[partition]))
        try:
            done = self._put(batch)
        except segq.QueueError:
            self._take_back(held, before)
            raise
        if not done:
            self._take_back(held, before)
            return False
        for partition, offset in last.items():
            held[partition].note(offset, before[partition] if before[partition] > offset else NOTHING)
        return True

    def _another_topic(self, positions: Positions, batch: Sequence[Waiting], held: Mapping[Partition, Position]) -> bool:
        """Offsets that begin anew may be those of a topic that was deleted and made anew: its id is asked for again."""
        topics = {record.topic for record, _ in batch if record.offset <= held[record.topic, record.partition].stored}
        old = [topic for topic in topics if time.monotonic() - self._looked_up[topic] > _SAME_TOPIC_SECONDS]
        for topic in old:
            positions.forget(topic)
        return bool(old)

    def _without_repeats(self, batch: Sequence[Waiting], held: Mapping[Partition, Position]) -> list[Waiting]:
        fresh: list[Waiting] = []
        for one in batch:
            position = held[one.record.topic, one.record.partition]
            if one.record.offset > position.stored:
                fresh.append(self._doubtful(one) if one.record.offset <= position.storing else one)
        self._counts.repeats += len(batch) - len(fresh)
        return fresh

    def _doubtful(self, one: Waiting) -> Waiting:
        record = msgspec.structs.replace(one.record, doubtful=True)
        return Waiting(record, record if self._convert is None else self._convert(record))

    @staticmethod
    def _take_back(held: Mapping[Partition, Position], before: Mapping[Partition, int]) -> None:
        for partition, storing in before.items():
            held[partition].note(held[partition].stored, storing)

    def _put(self, batch: Sequence[Waiting]) -> bool:
        items = [item for _, item in batch if item is not None]
        if items:
            try:
                self._queue.put_many(items, timeout=_ROOM_SECONDS)
            except segq.Full:
                return False
        counts = self._counts
        counts.stored += len(items)
        counts.left_out += len(batch) - len(items)
        counts.doubtful += sum(record.doubtful for record, _ in batch)
        counts.batches += bool(items)
        return True
