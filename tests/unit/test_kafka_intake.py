"""What the Kafka source does with batches, without Kafka: positions on disk, repeats dropped, doubts marked, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import segq
from segq.connectors.kafka import KafkaConnectorError, KafkaSink, KafkaSource, Record, SourceCounts
from segq.connectors.kafka.intake import Intake, Waiting
from segq.connectors.kafka.positions import NOTHING, Positions
from segq.connectors.kafka.record import function, outgoing


class Topics:
    """A cluster whose topics have the ids that a test says."""

    def __init__(self, topic_id: str = "one") -> None:
        self.topic_id = topic_id

    def topic_ids(self, topics: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(topics, self.topic_id) if self.topic_id else {}


def batch(offsets: Sequence[int], partition: int = 0, topic: str = "t") -> list[Waiting]:
    records = [Record(topic=topic, partition=partition, offset=offset, value=b"%d" % offset) for offset in offsets]
    return [Waiting(record, record) for record in records]


class Source:
    """An intake with its queue; another of them on the same path is another process, as far as positions go."""

    def __init__(self, queue: segq.Queue) -> None:
        self.counts, self.topics = SourceCounts(), Topics()
        self.positions = Positions(queue.path, durable=False)
        self.intake = Intake(queue, self.positions, None, self.counts)

    def store(self, offsets: Sequence[int], partition: int = 0) -> bool:
        return self.intake.store(batch(offsets, partition), {("t", partition): max(offsets)}, self.topics)


def position(path: str, partition: int = 0) -> Path:
    return Path(path, "connectors", "kafka", "t", "one", str(partition))


def taken(queue: segq.Queue) -> list[tuple[int, bool]]:
    return [(record.offset, record.doubtful) for record in map(Record.of, queue.get_many(1000, block=False))]


def test_what_was_stored_is_dropped_by_whoever_comes_with_it(queue_path: str) -> None:
    with segq.Queue(queue_path) as queue:
        one, other = Source(queue), Source(queue)
        assert one.store(range(5))
        assert position(queue_path).read_text().strip() == '{"stored": 4, "storing": null}'
        assert other.store(range(3, 8))
        assert one.store(range(8))
        assert taken(queue) == [(n, False) for n in range(8)]
        assert (one.counts.stored, one.counts.repeats, other.counts.stored, other.counts.repeats) == (5, 8, 3, 2)


def test_offsets_may_have_gaps_and_partitions_know_nothing_of_each_other(queue_path: str) -> None:
    with segq.Queue(queue_path) as queue:
        source = Source(queue)
        assert source.store([3, 7, 20])
        assert source.store([2, 7, 21], partition=1)
        assert source.store([20, 40])
        assert [offset for offset, _ in taken(queue)] == [3, 7, 20, 2, 7, 21, 40]


def test_a_batch_that_found_no_room_is_not_noted_as_stored(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=5) as queue:
        source = Source(queue)
        assert source.store(range(4))
        assert not source.store(range(4, 6))
        assert position(queue_path).read_text().strip() == '{"stored": 3, "storing": null}'
        with pytest.raises(segq.ItemTooLarge):
            source.store(range(4, 100))
        assert position(queue_path).read_text().strip() == '{"stored": 3, "storing": null}'
        assert len(taken(queue)) == 4
        assert source.store(range(4, 6))
        assert taken(queue) == [(4, False), (5, False)]


@pytest.mark.parametrize("landed", [False, True])
def test_killed_while_it_stores_it_leaves_a_doubt_that_is_marked(queue_path: str, landed: bool) -> None:
    code = f"""
import os, signal, sys
import segq
from segq.connectors.kafka import Record, SourceCounts
from segq.connectors.kafka.intake import Intake, Waiting
from segq.connectors.kafka.positions import Positions

class Topics:
    def topic_ids(self, topics):
        return dict.fromkeys(topics, "one")

class Killed(segq.Queue):
    def put_many(self, items, **waiting):
        if {landed}:
            super().put_many(items)
        if items[-1].offset == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        super().put_many(items)

queue = Killed({queue_path!r})
intake = Intake(queue, Positions(queue.path, durable=False), None, SourceCounts())
intake.store([Waiting(r, r) for n in range(8) for r in [Record(topic="t", partition=0, offset=n)]], {{("t", 0): 7}}, Topics())
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert position(queue_path).read_text().strip() == '{"stored": null, "storing": 7}'
    with segq.Queue(queue_path) as queue:
        source = Source(queue)
        assert source.store(range(4))
        assert source.store(range(4, 12))
        assert source.store(range(12, 14))
        first = [(n, False) for n in range(8)] if landed else []
        assert sorted(taken(queue)) == sorted(first + [(n, n <= 7) for n in range(14)])
        assert source.counts.doubtful == 8
    assert position(queue_path).read_text().strip() == '{"stored": 13, "storing": null}'


def test_while_another_process_stores_of_a_partition_nobody_else_does(queue_path: str) -> None:
    with segq.Queue(queue_path) as queue:
        one, other = Source(queue), Source(queue)
        assert one.store(range(3))
        with one.positions.held([("t", 0)]) as held:
            assert held is not None
            assert not other.store(range(3, 6))
            assert other.store(range(3), partition=1)
        assert other.store(range(3, 6))


def test_until_the_topics_id_is_known_nothing_is_stored(queue_path: str) -> None:
    with segq.Queue(queue_path) as queue:
        source = Source(queue)
        source.topics.topic_id = ""
        assert not source.store(range(3))
        assert queue.qsize() == 0
        source.topics.topic_id = "one"
        assert source.store(range(3))


def test_a_topic_whose_offsets_begin_anew_is_asked_for_its_id_again(queue_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with segq.Queue(queue_path) as queue:
        source = Source(queue)
        assert source.store(range(10))
        source.topics.topic_id = "two"
        later = time.monotonic() + 60
        monkeypatch.setattr("segq.connectors.kafka.intake.time.monotonic", lambda: later)
        assert not source.store(range(5))
        assert source.store(range(5))
        assert [offset for offset, _ in taken(queue)] == [*range(10), *range(5)]


@pytest.mark.parametrize("said", [b"", b"\0" * 96, b"[]", b'{"stored": -5, "storing": null}', b'{"stored": "7"}', b"\xff"])
def test_a_damaged_position_repeats_rather_than_loses(queue_path: str, said: bytes) -> None:
    with segq.Queue(queue_path) as queue:
        assert Source(queue).store(range(5))
        position(queue_path).write_bytes(said)
        source = Source(queue)
        assert source.store(range(7))
        assert source.counts.stored == 7
        with source.positions.held([("t", 0)]) as held:
            assert held is not None
            assert (held["t", 0].stored, held["t", 0].storing) == (6, NOTHING)


def test_a_position_is_a_file_of_the_queue_that_others_cannot_read(queue_path: str) -> None:
    with segq.Queue(queue_path) as queue:
        assert Source(queue).store(range(5))
    assert position(queue_path).stat().st_mode & 0o777 == 0o600
    assert segq.check(queue_path).ok
    segq.remove(queue_path)
    assert not os.path.lexists(queue_path)


def test_a_position_that_is_a_link_is_refused(queue_path: str, tmp_path: Path) -> None:
    with segq.Queue(queue_path) as queue:
        position(queue_path).parent.mkdir(parents=True)
        position(queue_path).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(segq.StorageError, match="how far the topic is stored"):
            Source(queue).store(range(5))
    assert not (tmp_path / "elsewhere").exists()


# --- records and items --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["msgpack", "pickle"])
def test_a_record_comes_out_of_the_queue_as_it_went_in(queue_path: str, serializer: str) -> None:
    record = Record(topic="t", partition=3, offset=9, value=b"\xff", key=None, timestamp=5, headers=(("a", b"b"), ("a", None)))
    with segq.Queue(queue_path, serializer=serializer) as queue:
        queue.put(record)
        assert Record.of(queue.get()) == record


def test_what_is_no_record_is_refused_as_one() -> None:
    for item in ("text", {"value": "no bytes"}, 5, None):
        with pytest.raises(segq.SettingsError, match="no Kafka record"):
            Record.of(item)


def test_items_are_sent_as_what_they_are() -> None:
    assert outgoing(b"a") == outgoing("a") == outgoing(bytearray(b"a")) == Record(value=b"a")
    assert outgoing({"n": 1}).value == b'{"n":1}'
    assert outgoing({"topic": "t", "partition": 1, "offset": 2, "key": b"k"}) == Record(
        topic="t", partition=1, offset=2, key=b"k"
    )


def test_a_function_may_be_named() -> None:
    assert function("convert", "os.path:join") is os.path.join
    assert function("convert", None) is None
    for wrong in ("os.path", "os.path:", "no_such_module:f", "os:no_such_function", "os:sep"):
        with pytest.raises(segq.SettingsError, match="convert"):
            function("convert", wrong)


def test_without_the_client_library_the_remedy_is_named(queue_path: str) -> None:
    code = f"""
import sys
sys.modules["confluent_kafka"] = None
import segq
from segq.connectors.kafka import KafkaSource
KafkaSource(segq.Queue({queue_path!r}), "t", brokers="localhost:9092", group="g")
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "pip install 'segq[kafka]'" in ended.stderr.splitlines()[-1]
    assert issubclass(KafkaConnectorError, segq.QueueError)


def test_dedup_needs_a_directory(queue_path: str) -> None:
    pytest.importorskip("confluent_kafka")

    class Elsewhere(segq.Queue):
        """As a queue of another engine looks."""

        path = "nats://somewhere/orders"

    with segq.Queue(queue_path) as queue:
        settings = queue.settings
    elsewhere = Elsewhere.__new__(Elsewhere)
    elsewhere.settings = settings
    with pytest.raises(segq.SettingsError, match="dedup=False"):
        KafkaSource(elsewhere, "t", brokers="b:1", group="g")
    assert KafkaSource(elsewhere, "t", brokers="b:1", group="g", dedup=False).counts == SourceCounts()


def test_settings_that_cannot_work_are_named(queue_path: str) -> None:
    pytest.importorskip("confluent_kafka")
    good = {"topics": "t", "brokers": "b:1", "group": "g"}
    with segq.Queue(queue_path) as queue:
        for name, wrong in {
            "topics": [], "brokers": "", "group": "", "batch": 0, "dedup": "yes", "start": "now", "commit_interval": -1, "colour": 1,
        }.items():  # fmt: skip
            with pytest.raises(segq.SettingsError, match=name):
                KafkaSource.from_settings(queue, **good | {name: wrong})
        for name, wrong in {
            "topic": "",
            "brokers": " ",
            "in_flight": 1.5,
            "drain": 0,
            "convert": "nowhere",
            "shape": 1,
        }.items():
            with pytest.raises(segq.SettingsError, match=name):
                KafkaSink.from_settings(queue, **{"topic": "t", "brokers": "b:1"} | {name: wrong})
