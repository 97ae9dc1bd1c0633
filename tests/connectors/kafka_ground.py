"""What the Kafka tests stand on: a cluster (a real broker, or librdkafka's mock), topics, records that can prove what they are."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from accounts import until
from cli_command import environment

import segq
from benchmarks.kafka_broker import VERSION, SharedBroker, UnavailableError
from segq.connectors.kafka import Record

HANDS = Path(__file__).with_name("kafka_hands.py")
PATIENCE = 60.0
_numbers = itertools.count()


class Cluster:
    """A real broker if there is one to be had, shared by the session's processes; else the mock, one for each of them."""

    def __init__(self, directory: Path) -> None:
        from confluent_kafka import Producer

        self._broker: SharedBroker | None = None
        self._mock: Any = None
        try:
            self._broker = SharedBroker(directory)
        except UnavailableError as error:
            self._mock = Producer({"test.mock.num.brokers": 1})
            (broker,) = self._mock.list_topics(timeout=PATIENCE).brokers.values()
            self.address, self.what = f"{broker.host}:{broker.port}", f"librdkafka's mock cluster ({error})"
        else:
            self.address, self.what = self._broker.address, f"Apache Kafka {VERSION}"
        self.real = self._broker is not None
        (directory / "ran-against").write_text(self.what)
        self._peace = directory / "peace"

    @contextmanager
    def peace(self, *, alone: bool) -> Iterator[None]:
        """Whoever kills the broker is alone with it; the others may be several."""
        with self._peace.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def kill(self) -> None:
        assert self._broker is not None
        self._broker.kill()

    def start(self) -> None:
        assert self._broker is not None
        self._broker.start()

    def close(self) -> None:
        if self._broker is not None:
            self._broker.close()
        self._mock = None

    def topic(self, partitions: int = 4, name: str = "") -> str:
        """A new topic. The mock makes one when it is asked for, with as many partitions as it likes."""
        from confluent_kafka.admin import AdminClient, NewTopic

        name = name or f"t{os.getpid()}-{next(_numbers)}"
        if not self.real:
            until(lambda: self._mock.list_topics(name, timeout=PATIENCE).topics[name].partitions, PATIENCE, "there is a topic")
            return name
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(PATIENCE)
        return name

    def delete(self, topic: str) -> None:
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.address})
        admin.delete_topics([topic])[topic].result(PATIENCE)

    def fill(self, topic: str, numbers: Iterable[int], keys: int = 50) -> None:
        """A record for each number; those of one key are in the order of their numbers."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.address, "enable.idempotence": self.real, "linger.ms": 20})
        for n in numbers:
            producer.produce(topic, b"%d" % n, b"key %d" % (n % keys))
            if n % 100 == 0:
                producer.poll(0)
        assert producer.flush(PATIENCE) == 0

    @contextmanager
    def stream(self, topic: str, queue: segq.Queue, lead: int = 200) -> Iterator[list[int]]:
        """Records as long as this lasts, never many more than `lead` ahead of what is in the queue; their numbers afterwards."""
        over, numbers = threading.Event(), list[int]()

        def paced() -> Iterator[int]:
            for n in itertools.count():
                if n % 100 == 0:
                    until(lambda n=n: over.is_set() or queue.qsize() > n - lead, PATIENCE, "records come in")  # type: ignore[misc]
                    if over.is_set():
                        return
                numbers.append(n)
                yield n

        thread = threading.Thread(target=self.fill, args=(topic, paced()))
        thread.start()
        try:
            yield numbers
        finally:
            over.set()
            thread.join()

    def read(self, topic: str) -> list[Any]:
        """Every message of the topic, partition by partition."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "reader", "enable.auto.commit": False})
        found = []
        for number in consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions:
            end = _end(consumer, TopicPartition(topic, number))
            consumer.assign([TopicPartition(topic, number, 0)])
            offset = 0
            while offset < end:
                message = consumer.poll(PATIENCE)
                assert message is not None
                assert message.error() is None, message.error()
                found.append(message)
                offset = message.offset() + 1
        consumer.close()
        return found

    def committed(self, topic: str, group: str) -> int:
        """How many records the group has behind it, by what it committed."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        numbers = consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions
        answers = consumer.committed([TopicPartition(topic, n) for n in numbers], timeout=PATIENCE)
        consumer.close()
        return sum(max(0, answer.offset) for answer in answers)


def _end(consumer: Any, partition: Any) -> int:
    """How many records the partition has; asked again while its broker comes back."""
    from confluent_kafka import KafkaException

    found: list[int] = []

    def told() -> bool:
        with suppress(KafkaException):
            found.append(consumer.get_watermark_offsets(partition, timeout=PATIENCE)[1])
        return bool(found)

    until(told, PATIENCE, "the broker tells where the partition ends")
    return found[0]


class Hand:
    """A process that runs a source or a sink."""

    def __init__(self, what: str, queue: str, **settings: Any) -> None:
        command = [sys.executable, str(HANDS), what, queue, json.dumps(settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> str:
        """SIGTERM; it ends by itself, without a complaint. What it printed."""
        self._process.terminate()
        out, err = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0, err
        return out


@contextmanager
def hands() -> Iterator[Any]:
    """A function that starts hands; none of them outlives the test."""
    started: list[Hand] = []

    def start(what: str, queue: str, **settings: Any) -> Hand:
        started.append(Hand(what, queue, **settings))
        return started[-1]

    try:
        yield start
    finally:
        for hand in started:
            if not hand.ended:
                hand.send(signal.SIGCONT)
                hand.kill()


def number(value: bytes | None) -> int:
    assert value is not None
    return int(value.split()[0])


def records(queue: segq.Queue) -> list[Record]:
    """Everything that waits, taken."""
    found: list[Record] = []
    while True:
        try:
            found += map(Record.of, queue.get_many(5000, block=False))
        except segq.Empty:
            return found


def check_account(found: Iterable[Record], expected: Iterable[int], *, once: bool) -> None:
    """Every number is there, none was invented, and, if `once`, each came once, but for those that say they may be repeats."""
    found = list(found)
    counts = Counter(number(record.value) for record in found)
    expected = set(expected)
    assert counts.keys() == expected, (
        f"missing {sorted(expected - counts.keys())[:5]}, strange {sorted(counts.keys() - expected)[:5]}"
    )
    assert len({(record.partition, record.offset) for record in found}) == len(expected)
    if once:
        sure = Counter(number(record.value) for record in found if not record.doubtful)
        twice = [n for n, count in sure.items() if count > 1]
        assert not twice, f"{len(twice)} records came twice: {sorted(twice)[:5]}"


def check_order(values: Iterable[tuple[bytes, int]]) -> None:
    """Of pairs of key and number: the first time that each comes, those of a key come in order."""
    last: dict[bytes, int] = {}
    seen: set[int] = set()
    for key, n in values:
        if n not in seen:
            assert last.get(key, -1) < n, f"{n} of {key!r} came after {last[key]}"
            seen.add(n)
            last[key] = n
