"""`KafkaSink`: a queue into a topic.

One thread, one loop: receive, hand to the client, acknowledge what the broker has confirmed. Items are handed over in the
order received, and an idempotent producer keeps that order within each partition, through retries and broker restarts, and
doubles nothing. What is not confirmed when the process dies is handed out again by the queue, oldest first.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import segq
from segq.connectors.kafka import client
from segq.connectors.kafka.client import Complaints, log
from segq.connectors.kafka.record import Record, function, outgoing
from segq.engines.interface import Getting

_RECEIVE_SECONDS = 0.1  # how long it waits for an item at once, and so how soon it sees that it is to stop
_CONFIRM_SECONDS = 0.02  # how long it waits for a confirmation at once while items may come
_BATCH = 500
_AFTER_FAILURE_SECONDS = 1.0  # what failed comes back from the queue at once; this keeps that from spinning

Convert = Callable[[Any], Record | bytes | str | None]


@dataclasses.dataclass(slots=True)
class SinkCounts:
    """What a sink has done since it was made.

    Items `sent` (confirmed and acknowledged), `given_back` for another try, `rejected` because no broker would ever take them,
    `left_out` by its convert, and `lost`: confirmed, but no longer ours to acknowledge (the lease ran out), so sent again.
    """

    sent: int = 0
    given_back: int = 0
    rejected: int = 0
    left_out: int = 0
    lost: int = 0


class KafkaSink:
    """Sends every item of a queue to a topic, and acknowledges it when the broker has confirmed it.

    >>> sink = KafkaSink(queue, "answers", brokers="localhost:9092")  # doctest: +SKIP
    >>> sink.run(stop)  # until the threading.Event `stop` is set  # doctest: +SKIP

    At least once: what was under way when a process died is sent again. Items with the same key arrive in the order in which
    they were put by one producer, with one sink; several sinks on one queue share its items, so order among them is lost.

    Args:
        queue: an open queue, or a topic's subscription, of any engine.
        topic: where to; None: each record's own `topic`.
        brokers: "host:port", or several.
        key: the name of the field of an item (a map) that is its key, or a function from the item to the key (bytes, text
            or None). Without it records keep the key they came with.
        convert: a function, or "package.module:function", from an item to what is sent: a `Record`, bytes, text (None leaves
            the item out). Without it a record is sent with its key, value, headers and timestamp, bytes and text as they are,
            anything else as JSON. An item for which it raises is given back, and the error ends `run`.
        id_header: the name of a header to carry `message.id`, by which a reader can tell what was sent twice.
        in_flight: how many items may be sent and not confirmed.
        drain: how many seconds to wait, when stopped, for confirmations; what has none by then is given back.
        options: further settings of librdkafka ("compression.type", "linger.ms", "security.protocol", …). By default the
            client waits for a broker for ever (`message.timeout.ms` 0) and puts a key where Kafka's Java client does.

    Raises:
        ModuleNotFoundError: confluent-kafka is missing. SettingsError: a setting that cannot work.
    """

    def __init__(
        self,
        queue: Getting,
        topic: str | None,
        *,
        brokers: str | Sequence[str],
        key: str | Callable[[Any], bytes | str | None] | None = None,
        convert: Convert | str | None = None,
        id_header: str | None = None,
        in_flight: int = 10_000,
        drain: float = 5.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        client.library()
        self.queue = queue
        if topic is not None and (not isinstance(topic, str) or not topic):
            raise segq.SettingsError(f"topic must be a name, or None for each record's own, not {topic!r}")
        self.topic = topic
        self._key = key
        self._convert = function("convert", convert) or outgoing
        self._id_header = id_header
        self._in_flight = client.positive("in_flight", in_flight, int)
        self._drain = client.positive("drain", drain, float)
        self._settings = {
            "message.timeout.ms": 0,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": max(100_000, self._in_flight),
            **(options or {}),
            "bootstrap.servers": client.brokers_text(brokers),
            "enable.idempotence": True,
        }
        self._counts = SinkCounts()

    @classmethod
    def from_settings(cls, queue: Getting, **settings: Any) -> Self:
        """The same with all settings by name, as a configuration file gives them."""
        try:
            return cls(queue, **settings)
        except TypeError as error:
            raise segq.SettingsError(f"kafka sink: {error}") from error

    @property
    def counts(self) -> SinkCounts:
        """What it has done so far."""
        return dataclasses.replace(self._counts)

    def run(self, stop: threading.Event) -> None:
        """Sends until `stop` is set, or the queue is shut down and empty; then waits for what is under way.

        Raises KafkaConnectorError where going on is of no use (what was not confirmed is given back); the queue's errors.
        """
        sending = _Sending(self.queue, self._settings, self._counts)
        try:
            while not stop.is_set():
                sending.listen()
                room = self._in_flight - sending.under_way
                if room <= 0 or sending.recovering():
                    sending.wait(_RECEIVE_SECONDS)
                    continue
                try:
                    messages = self.queue.receive_many(
                        min(room, _BATCH), block=not sending.under_way, timeout=None if sending.under_way else _RECEIVE_SECONDS
                    )
                except segq.Empty:
                    sending.wait(_CONFIRM_SECONDS)
                    continue
                except segq.ShutDown:
                    if sending.under_way:  # some may come back
                        sending.wait(_RECEIVE_SECONDS)
                        continue
                    return
                self._send(sending, messages)
        finally:
            sending.end(self._drain)

    def _send(self, sending: _Sending, messages: list[segq.Message]) -> None:
        for i, message in enumerate(messages):
            try:
                record = self._outgoing(message)
            except BaseException:
                for unsent in messages[i:]:
                    unsent.nack()
                raise
            if record is None:
                message.ack()
                self._counts.left_out += 1
                continue
            sending.send(message, self.topic or record.topic, record)

    def _outgoing(self, message: segq.Message) -> Record | None:
        item = message.value
        made = self._convert(item)
        if made is None:
            return None
        record = made if isinstance(made, Record) else outgoing(made)
        key, headers = record.key, record.headers
        if self._key is not None:
            key = _encoded(self._key(item) if callable(self._key) else item[self._key])
        if self._id_header is not None:
            headers = (*headers, (self._id_header, message.id.encode()))
        if key is record.key and headers is record.headers:
            return record
        return Record(topic=record.topic, value=record.value, key=key, timestamp=record.timestamp, headers=headers)


def _encoded(key: Any) -> bytes | None:
    return key if key is None or isinstance(key, bytes) else str(key).encode()


class _Sending:
    """One run: the producer, and the messages that wait for their confirmation. Used by one thread."""

    def __init__(self, queue: Getting, settings: Mapping[str, Any], counts: SinkCounts) -> None:
        self._kafka = client.library()
        self._counts = counts
        self._who = f"kafka sink of {queue.path}"
        self._complaints = Complaints(self._who)
        self._recovers_at = 0.0
        self.under_way = 0
        codes = self._kafka.KafkaError
        #: what no retry mends: it is the item's
        self._hopeless = {codes.MSG_SIZE_TOO_LARGE, codes.INVALID_MSG, codes.INVALID_RECORD, codes._INVALID_ARG}  # noqa: SLF001
        self._producer = client.made(self._kafka.Producer, {**settings, "error_cb": self._complaints.hear})

    def send(self, message: segq.Message, topic: str, record: Record) -> None:
        answer = functools.partial(self._answered, message)
        headers = list(record.headers) if record.headers else None
        self.under_way += 1
        while True:
            try:
                self._producer.produce(
                    topic, record.value, record.key, on_delivery=answer, timestamp=record.timestamp or 0, headers=headers
                )
            except BufferError:  # librdkafka's own queue is full, of bytes
                self._producer.poll(_CONFIRM_SECONDS)
            except self._kafka.KafkaException as error:
                self._answered(message, error.args[0], None)
                return
            else:
                return

    def listen(self) -> None:
        """Takes what confirmations there are. Raises KafkaConnectorError."""
        self._producer.poll(0)
        self._complaints.refuse_fatal()

    def wait(self, seconds: float) -> None:
        self._producer.poll(seconds)

    def recovering(self) -> bool:
        return time.monotonic() < self._recovers_at

    def _answered(self, message: segq.Message, error: Any, _delivered: Any) -> None:
        self.under_way -= 1
        try:
            if error is None:
                message.ack()
                self._counts.sent += 1
            elif error.code() in self._hopeless:
                self._refuse(message, error)
            else:
                self._complaints.hear(error)
                self._recovers_at = time.monotonic() + _AFTER_FAILURE_SECONDS
                message.nack()
                self._counts.given_back += 1
        except segq.ReceiptError as lost:
            self._counts.lost += 1
            log.warning("%s: %s", self._who, lost)

    def _refuse(self, message: segq.Message, error: Any) -> None:
        reason = f"Kafka refuses it: {error.str()}"
        log.error("%s: item %s: %s", self._who, message.id, reason)
        message.reject(reason)
        self._counts.rejected += 1

    def end(self, seconds: float) -> None:
        """Waits for what is under way; gives back what is not confirmed after that."""
        if self._producer.flush(seconds):
            self._producer.purge()  # which answers for each of them
            self._producer.flush(1)
