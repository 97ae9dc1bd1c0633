"""A consumer group's member: records in, offsets out, pauses, and partitions that come and go."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segq.connectors.kafka import client
from segq.connectors.kafka.client import Complaints, KafkaConnectorError, log
from segq.connectors.kafka.positions import Partition
from segq.connectors.kafka.record import Record

_LOOKUP_SECONDS = 10.0
_CLOSE_SECONDS = 5.0  # half of what is left of a process after SIGTERM where containers are run by their defaults
_LOOKUP_AGAIN_SECONDS = 1.0


class Reading:
    """One membership, from joining to leaving. Used by one thread; callbacks come from within `poll` and `close`."""

    def __init__(
        self,
        who: str,
        topics: Sequence[str],
        settings: Mapping[str, Any],
        given_up: Callable[[set[Partition]], None],
        *,
        by_name: bool,
    ) -> None:
        """`given_up` is called with partitions before another member may read them; `by_name`: topics have no ids."""
        self._kafka = client.library()
        self._who, self._settings, self._given_up = who, settings, given_up
        self._by_name = by_name
        self._complaints = Complaints(who)
        self._paused: set[Partition] = set()
        self._admin: Any = None
        self._lookup_at = 0.0
        self._consumer = client.made(self._kafka.Consumer, {**settings, "error_cb": self._complaints.hear})
        self._consumer.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def close(self) -> None:
        """Commits what `stored` was told and leaves the group.

        With no broker to be reached the client tries for as long as the group would wait for it; we do not.
        """
        closing = threading.Thread(target=self._consumer.close, name="segq-kafka-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            log.warning("%s: no broker took the last offsets within %g s; records may be read again", self._who, _CLOSE_SECONDS)

    # --- the group ---

    def _assigned(self, _consumer: Any, partitions: list[Any]) -> None:
        log.info("%s: assigned %s", self._who, _names(partitions))

    def _revoked(self, _consumer: Any, partitions: list[Any]) -> None:
        """What was stored of them the client commits after this, unless they are lost already."""
        log.info("%s: gave up %s", self._who, _names(partitions))
        gone = {_key(partition) for partition in partitions}
        self._paused -= gone
        self._given_up(gone)

    def stored(self, last: Mapping[Partition, int]) -> None:
        """The last offset of each partition that need not be read again; committed now and then, and on giving up."""
        for (topic, number), offset in last.items():
            with contextlib.suppress(self._kafka.KafkaException):  # not ours any more: whoever has it says how far
                self._consumer.store_offsets(offsets=[self._kafka.TopicPartition(topic, number, offset + 1)])

    # --- reading ---

    def poll(self, most: int, timeout: float) -> list[Record]:
        """Up to `most` records; waits for the first, takes what is there then. Raises KafkaConnectorError."""
        self._complaints.refuse_fatal()
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(most - 1, 0)] if most > 1 else [first]
        records = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._complaints.hear(error)
                continue
            kind, timestamp = message.timestamp()
            headers = message.headers()
            records.append(
                Record(
                    topic=message.topic(),
                    partition=message.partition(),
                    offset=message.offset(),
                    value=message.value(),
                    key=message.key(),
                    timestamp=timestamp if kind else None,
                    headers=tuple(headers) if headers else (),
                )
            )
        return records

    def pause(self) -> bool:
        """No records of any partition, those assigned since the last call included; whether this is news."""
        fresh = [partition for partition in self._consumer.assignment() if _key(partition) not in self._paused]
        news = bool(fresh) and not self._paused
        if fresh:
            self._consumer.pause(fresh)
            self._paused |= set(map(_key, fresh))
        return news

    def resume(self) -> None:
        if self._paused:
            back = [partition for partition in self._consumer.assignment() if _key(partition) in self._paused]
            self._paused.clear()
            if back:
                self._consumer.resume(back)

    # --- which topic it is ---

    def topic_ids(self, topics: Sequence[str]) -> dict[str, str]:
        """The cluster's ids of those topics; without those that it cannot tell now. Asks at most once a second.

        Raises KafkaConnectorError if it has none.
        """
        if self._by_name:
            return dict.fromkeys(topics, NO_ID)
        if not topics or time.monotonic() < self._lookup_at:
            return {}
        self._lookup_at = time.monotonic() + _LOOKUP_AGAIN_SECONDS
        if self._admin is None:
            from confluent_kafka.admin import AdminClient

            settings = client.connection_only(self._settings)
            self._admin = client.made(AdminClient, {**settings, "error_cb": self._complaints.hear})
        found: dict[str, str] = {}
        asked = self._admin.describe_topics(self._kafka.TopicCollection(list(topics)), request_timeout=_LOOKUP_SECONDS)
        for topic, answer in asked.items():
            try:
                told = answer.result().topic_id
            except self._kafka.KafkaException as error:
                self._complaints.hear(error.args[0])
                continue
            bits = 0 if told is None else told.get_most_significant_bits() << 64 | told.get_least_significant_bits() & _LOW_BITS
            if not bits:
                raise KafkaConnectorError(f'{self._who}: this cluster gives its topics no ids; use dedup="by-name"')
            found[topic] = f"{bits & _ALL_BITS:032x}"
        return found


NO_ID = "by-name"
_LOW_BITS, _ALL_BITS = (1 << 64) - 1, (1 << 128) - 1  # the client gives an id as two signed halves


def _key(partition: Any) -> Partition:
    return partition.topic, partition.partition


def _names(partitions: Sequence[Any]) -> str:
    return ", ".join(f"{partition.topic}/{partition.partition}" for partition in partitions) or "nothing"
