"""`KafkaSource`: topics into a queue.

One thread, one loop: poll, put, say how far. The order is the guarantee: records are put with one `put_many`, then noted as
stored (see `positions`), then their offsets are given to the client, which commits them to the group every `commit_interval`
and before it lets go of a partition. So a death at any point repeats at most what was not committed, and loses nothing.

When the queue is full the batch waits in memory, the partitions are paused, and polling goes on, so that the group does not
take the process for dead. Records whose partition goes to somebody else meanwhile are forgotten: the other reads them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import segq
from segq.connectors.kafka import client
from segq.connectors.kafka.client import log
from segq.connectors.kafka.intake import Convert, Intake, SourceCounts, Waiting
from segq.connectors.kafka.positions import Partition, Positions
from segq.connectors.kafka.reading import Reading
from segq.connectors.kafka.record import function
from segq.engines.interface import Putting

_POLL_SECONDS = 0.1  # how long it waits for a record at once, and so how soon it sees that it is to stop
_PAUSE_AFTER_SECONDS = 1.0  # a pause throws away what was fetched ahead, which a moment's fullness is not worth
_NO_RECORDS = ("raw", "json")


class KafkaSource:
    """Reads topics and puts every record into a queue. Run one in each of as many processes as you like.

    >>> source = KafkaSource(queue, "orders", brokers="localhost:9092", group="billing")  # doctest: +SKIP
    >>> source.run(stop)  # until the threading.Event `stop` is set  # doctest: +SKIP

    Every record is in the queue before its offset is committed. With `dedup` it is there once, whatever dies; docs/kafka.md
    tells the one exception, and how it shows. Records of a partition are put in their order.

    Args:
        queue: an open queue, or topic; of another engine only with `dedup=False`. What is put is a `Record`, unless `convert`
            makes something else of it.
        topics: a name, or several; one that begins with "^" is a regular expression, as librdkafka has it.
        brokers: "host:port", or several.
        group: the consumer group; its members share the partitions.
        batch: how many records are put at once, at most.
        dedup: whether a record that the queue has had is dropped, wherever the group's offsets stand. To put records again on
            purpose, rewind the group and use `dedup=False`. A topic is known by its id, so that one made anew under the same
            name is another; "by-name" is for clusters that have no ids (Kafka before 2.8, most of the lookalikes).
        start: where a group that has committed nothing begins: "earliest" or "latest".
        commit_interval: seconds between commits; with dedup=False, so much is repeated after a kill.
        convert: a function, or "package.module:function", from a `Record` to the item to put; None leaves the record out. What
            it raises ends `run`, and the record is read again.
        options: further settings of librdkafka ("security.protocol", "group.instance.id", …).

    Raises:
        ModuleNotFoundError: confluent-kafka is missing. SettingsError: a setting that cannot work.
    """

    def __init__(
        self,
        queue: Putting,
        topics: str | Sequence[str],
        *,
        brokers: str | Sequence[str],
        group: str,
        batch: int = 1000,
        dedup: bool | str = True,
        start: str = "earliest",
        commit_interval: float = 1.0,
        convert: Convert | str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        client.library()
        self.queue = queue
        self.topics = [topics] if isinstance(topics, str) else list(topics)
        if not self.topics or not all(isinstance(topic, str) and topic for topic in self.topics):
            raise segq.SettingsError(f"topics must name at least one topic, not {topics!r}")
        if not group or not isinstance(group, str):
            raise segq.SettingsError(f"group must be the name of a consumer group, not {group!r}")
        if start not in ("earliest", "latest"):
            raise segq.SettingsError(f'start must be "earliest" or "latest", not {start!r}')
        self._batch = client.positive("batch", batch, int)
        if queue.settings.capacity is not None:  # a batch that took all of it would wait until the queue is empty
            self._batch = max(1, min(self._batch, queue.settings.capacity // 2))
        self._convert = function("convert", convert)
        if self._convert is None and queue.settings.serializer in _NO_RECORDS:
            raise segq.SettingsError(
                f"{queue.path} stores its items as {queue.settings.serializer}, which cannot hold a record with its bytes; give"
                ' convert= (say, a function that returns record.value), or create the queue with serializer="msgpack"'
            )
        if dedup not in (True, False, "by-name"):
            raise segq.SettingsError(f'dedup must be True, False or "by-name", not {dedup!r}')
        if dedup and not os.path.isdir(queue.path):
            raise segq.SettingsError(
                f"{queue.path} is no directory, where the source could note how far each partition is stored; give dedup=False"
                " (records are stored at least once), or put into a local queue and bridge that one"
            )
        self._dedup = dedup
        interval = client.positive("commit_interval", commit_interval, float)
        self._settings = {
            "partition.assignment.strategy": "cooperative-sticky",
            **(options or {}),
            "auto.offset.reset": start,
            "bootstrap.servers": client.brokers_text(brokers),
            "group.id": group,
            "enable.auto.commit": True,  # of what `Reading.stored` is told, and of nothing else
            "enable.auto.offset.store": False,
            "auto.commit.interval.ms": max(1, round(interval * 1000)),
        }
        self._counts = SourceCounts()

    @classmethod
    def from_settings(cls, queue: Putting, **settings: Any) -> Self:
        """The same with all settings by name, as a configuration file gives them."""
        try:
            return cls(queue, **settings)
        except TypeError as error:
            raise segq.SettingsError(f"kafka source: {error}") from error

    @property
    def counts(self) -> SourceCounts:
        """What it has done so far."""
        return dataclasses.replace(self._counts)

    def run(self, stop: threading.Event) -> None:
        """Reads and puts until `stop` is set or the queue is shut down. What is stored is committed when this returns.

        Brokers that cannot be reached are waited for. The queue's errors end it, and what was not stored is read again by
        whoever is next.

        Raises KafkaConnectorError where going on is of no use; the queue's errors (StorageError, ItemTooLarge, …).
        """
        _Run(self.queue, self.topics, self._settings, self._dedup, self._batch, self._convert, self._counts).until(stop)


class _Run:
    """One run of a source: what waits to be stored, and the parts that read and store."""

    def __init__(
        self, queue: Putting, topics: Sequence[str], settings: Mapping[str, Any], dedup: bool | str, batch: int,
        convert: Convert | None, counts: SourceCounts,
    ) -> None:  # fmt: skip
        self._queue, self._batch, self._convert, self._counts = queue, batch, convert, counts
        self._positions = Positions(queue.path, durable=queue.settings.durability == "power") if dedup else None
        self._intake = Intake(queue, self._positions, convert, counts)
        self._waiting: list[Waiting] = []
        self._full_since = 0.0
        self._reading = Reading(f"kafka source of {queue.path}", topics, settings, self._give_up, by_name=dedup == "by-name")

    def until(self, stop: threading.Event) -> None:
        with contextlib.ExitStack() as closing:
            if self._positions is not None:
                closing.callback(self._positions.close)
            closing.callback(self._reading.close)
            while not stop.is_set():
                self._read()
                if not self._waiting:
                    continue
                try:
                    self._store()
                except segq.ShutDown:
                    log.info("%s was shut down: its kafka source ends", self._queue.path)
                    return

    def _read(self) -> None:
        records = self._reading.poll(1, 0) if self._waiting else self._reading.poll(self._batch, _POLL_SECONDS)
        convert = self._convert
        self._waiting += [Waiting(record, record if convert is None else convert(record)) for record in records]

    def _store(self) -> None:
        batch = self._waiting[: self._batch]
        last: dict[Partition, int] = {}
        for record, _ in batch:
            last[record.topic, record.partition] = record.offset
        try:
            done = self._intake.store(batch, last, self._reading)
        except segq.ItemTooLarge:
            self._take_less(batch)
            return
        if done:
            self._reading.stored(last)
            del self._waiting[: len(batch)]
            self._full_since = 0.0
            self._reading.resume()
        elif not self._full_since:
            self._full_since = time.monotonic()
        elif time.monotonic() - self._full_since > _PAUSE_AFTER_SECONDS and self._reading.pause():
            self._counts.pauses += 1
            log.info("%s is full: its kafka source pauses", self._queue.path)

    def _take_less(self, batch: Sequence[Waiting]) -> None:
        """A batch that the queue can never hold at once; a record that it cannot is the user's to deal with."""
        if len(batch) == 1:
            record = batch[0].record
            raise segq.ItemTooLarge(
                f"{self._queue.path} can never hold record {record.topic}/{record.partition}/{record.offset}; give the queue"
                " more max_bytes, or leave the record out with convert=",
                path=self._queue.path,
            )
        self._batch = len(batch) // 2

    def _give_up(self, partitions: set[Partition]) -> None:
        """What waits of these was not stored; whoever gets them reads it."""
        self._waiting = [one for one in self._waiting if (one.record.topic, one.record.partition) not in partitions]
        if self._positions is not None:
            self._positions.close(partitions)
