"""The Kafka source and sink against a cluster, with processes killed, stopped, and brokers that go away: the account closes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from accounts import until
from cli_command import ROOT, environment

import segq

pytest.importorskip("confluent_kafka", reason="needs the extra `kafka`")

from kafka_ground import PATIENCE, Cluster, check_account, check_order, hands, number, records

from segq.connectors.kafka import KafkaSink, KafkaSource, Record

pytestmark = pytest.mark.external


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kafka"
    directory.mkdir(exist_ok=True)
    cluster = Cluster(directory)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    with shared_cluster.peace(alone=False):
        yield shared_cluster


@pytest.fixture
def real(cluster: Cluster) -> Cluster:
    if not cluster.real:
        pytest.skip(f"ran against {cluster.what}, which cannot do this")
    return cluster


@pytest.fixture
def mortal(shared_cluster: Cluster) -> Iterator[Cluster]:
    """A broker that may be killed."""
    if not shared_cluster.real:
        pytest.skip(f"ran against {shared_cluster.what}, which cannot be killed")
    with shared_cluster.peace(alone=True):
        yield shared_cluster


@pytest.fixture
def start() -> Iterator[Any]:
    with hands() as starting:
        yield starting


@contextlib.contextmanager
def running(connector: KafkaSource | KafkaSink) -> Iterator[None]:
    """In a thread of this process; what it raises fails the test."""
    stop, raised = threading.Event(), []

    def run() -> None:
        try:
            connector.run(stop)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not raised, raised


def reading(cluster: Cluster, topic: str, **more: Any) -> dict[str, Any]:
    """A source's settings; small batches, so that a kill finds it in the middle."""
    dedup: Any = True if cluster.real else "by-name"
    session = 2000 if cluster.real else 6000  # the mock lets a group wait for three seconds before it begins
    options = {"session.timeout.ms": session, "heartbeat.interval.ms": 300, "fetch.wait.max.ms": 50, **more.pop("options", {})}
    return {
        "topics": topic,
        "brokers": cluster.address,
        "group": f"g-{topic}",
        "batch": 20,
        "dedup": dedup,
        **more,
        "options": options,
    }


def test_all_of_a_record_travels_with_it_into_the_queue_and_out_again(cluster: Cluster, queue_path: str) -> None:
    from confluent_kafka import Producer

    topic, out = cluster.topic(1), cluster.topic(3)
    producer = Producer({"bootstrap.servers": cluster.address})
    headers = [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", None)]
    producer.produce(topic, b"\xfe value", b"key \xfe", 0, timestamp=1_700_000_000_123, headers=headers)
    producer.produce(topic, None, b"a tombstone", 0, timestamp=1_700_000_000_124)
    assert producer.flush(PATIENCE) == 0
    with segq.Queue(queue_path) as queue:
        source = KafkaSource(queue, **reading(cluster, topic))
        with running(source):
            until(lambda: source.counts.stored == 2, PATIENCE, "both are in")
        assert queue.peek(1) == [
            {
                "topic": topic, "partition": 0, "offset": 0, "value": b"\xfe value", "key": b"key \xfe",
                "timestamp": 1_700_000_000_123, "headers": [["trace", b"\x00\xff"], ["trace", b"again"], ["empty", None]],
            }
        ]  # fmt: skip
        assert Record.of(queue.peek(2)[1]) == Record(
            topic=topic, partition=0, offset=1, key=b"a tombstone", timestamp=1_700_000_000_124
        )
        sink = KafkaSink(queue, out, brokers=cluster.address, id_header="id")
        with running(sink):
            until(lambda: sink.counts.sent == 2, PATIENCE, "both are out")
        assert queue.stats().items == 0
    sent = sorted(cluster.read(out), key=lambda message: message.timestamp()[1])
    assert [(m.key(), m.value(), m.timestamp()[1]) for m in sent] == [
        (b"key \xfe", b"\xfe value", 1_700_000_000_123),
        (b"a tombstone", None, 1_700_000_000_124),
    ]
    assert sent[0].headers()[:3] == headers
    assert [name for name, _ in sent[1].headers()] == ["id"]


def test_a_source_killed_again_and_again_stores_every_record_once(cluster: Cluster, queue_path: str, start: Any) -> None:
    topic, count = cluster.topic(), 30_000
    cluster.fill(topic, range(count))
    with segq.Queue(queue_path) as queue:
        for seen in (1, 7_000, 14_000, 21_000):
            source = start("source", queue_path, **reading(cluster, topic))
            until(lambda seen=seen: queue.qsize() >= seen, PATIENCE, f"{seen} records are in")
            source.kill()
        source = start("source", queue_path, **reading(cluster, topic))
        until(lambda: queue.qsize() >= count, PATIENCE, "the rest is in")
        source.stop()
        found = records(queue)
    check_account(found, range(count), once=True)


def test_without_dedup_a_killed_source_repeats_and_loses_nothing(cluster: Cluster, queue_path: str, start: Any) -> None:
    topic, count = cluster.topic(), 10_000
    cluster.fill(topic, range(count))
    settings = reading(cluster, topic, dedup=False, commit_interval=60)
    with segq.Queue(queue_path) as queue:
        source = start("source", queue_path, **settings)
        until(lambda: queue.qsize() >= 2_000, PATIENCE, "some records are in")
        source.kill()
        stored = queue.qsize()
        source = start("source", queue_path, **settings)
        until(lambda: queue.qsize() == stored + count, PATIENCE, "all is in, what the first stored a second time")
        source.stop()
        found = records(queue)
    check_account(found, range(count), once=False)
    assert len(found) > count
    assert not (Path(queue_path) / "connectors").exists()


def test_sigterm_commits_what_is_stored_and_no_more(cluster: Cluster, queue_path: str, start: Any) -> None:
    topic = cluster.topic()
    settings = reading(cluster, topic, dedup=False, commit_interval=60)
    cluster.fill(topic, range(20_000))
    with segq.Queue(queue_path) as queue:
        source = start("source", queue_path, **settings)
        until(lambda: queue.qsize() >= 1_000, PATIENCE, "some records are in")
        source.stop()
        stored = queue.qsize()
        assert stored < 20_000
        assert cluster.committed(topic, settings["group"]) == stored
        source = start("source", queue_path, **settings)
        until(lambda: queue.qsize() >= 20_000, PATIENCE, "the rest is in")
        source.stop()
        found = records(queue)
    assert len(found) == 20_000
    check_account(found, range(20_000), once=True)


def test_partitions_that_move_between_sources_bring_every_record_once(cluster: Cluster, queue_path: str, start: Any) -> None:
    topic = cluster.topic(6)
    settings = reading(cluster, topic)
    with segq.Queue(queue_path) as queue:
        with cluster.stream(topic, queue) as numbers:
            first = start("source", queue_path, **settings)
            until(lambda: _putting(queue) == 1, PATIENCE, "the first has begun")
            second = start("source", queue_path, **settings)
            until(lambda: _putting(queue) == 2, PATIENCE, "the second has its share")
            third = start("source", queue_path, **settings)
            until(lambda: _putting(queue) == 3, PATIENCE, "the third has its share")
            first.stop()
            second.kill()
            seen = queue.qsize()
            until(lambda: queue.qsize() >= seen + 2_000, PATIENCE, "the third goes on alone")
        until(lambda: queue.qsize() >= len(numbers), PATIENCE, "all is in")
        third.stop()
        found = records(queue)
    check_account(found, numbers, once=True)


def _putting(queue: segq.Queue) -> int:
    """How many handles have put something."""
    return sum(owner.puts > 0 for owner in queue.stats().owners)


def test_a_source_that_slept_through_its_eviction_stores_nothing_twice(cluster: Cluster, queue_path: str, start: Any) -> None:
    topic, count = cluster.topic(2), 30_000
    cluster.fill(topic, range(count))
    settings = reading(cluster, topic, batch=10)
    with segq.Queue(queue_path) as queue:
        sleeper = start("source", queue_path, **settings)
        until(lambda: queue.qsize() >= 1_000, PATIENCE, "it has begun")
        _stop_between_puts(sleeper, queue_path)
        other = start("source", queue_path, **settings)
        until(lambda: queue.qsize() >= count - 10, PATIENCE, "the other has taken over")
        sleeper.send(signal.SIGCONT)
        until(lambda: queue.qsize() >= count, PATIENCE, "all is in")
        cluster.fill(topic, range(count, count + 100))
        until(lambda: queue.qsize() >= count + 100, PATIENCE, "what comes later is, too")
        other.stop()
        sleeper.stop()
        found = records(queue)
    check_account(found, range(count + 100), once=True)


def _stop_between_puts(hand: Any, queue_path: str) -> None:
    """Stopped in the middle of a put, it would keep its partitions (until it goes on, or dies)."""

    def stopped() -> bool:
        hand.send(signal.SIGSTOP)
        if all(map(_free, Path(queue_path, "connectors").glob("kafka/*/*/*"))):
            return True
        hand.send(signal.SIGCONT)
        return False

    until(stopped, PATIENCE, "it is stopped between two puts")


def _free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_full_queue_pauses_the_source_which_stays_in_its_group(cluster: Cluster, queue_path: str) -> None:
    topic, count = cluster.topic(2), 3_000
    cluster.fill(topic, range(count))
    found: list[Record] = []
    with segq.Queue(queue_path, capacity=500) as queue:
        patience = 2.5 if cluster.real else 6.5  # a source that waited for longer without polling would be put out of the group
        options = {"max.poll.interval.ms": round(patience * 1000)}
        source = KafkaSource(queue, **reading(cluster, topic, batch=100, options=options))
        with running(source):
            until(lambda: source.counts.pauses == 1, PATIENCE, "it pauses")
            assert 400 < queue.qsize() <= 500
            begun = time.monotonic()
            until(lambda: time.monotonic() - begun > patience + 0.5, PATIENCE, "the group would have lost its patience")
            while len(found) < count:
                found += map(Record.of, queue.get_many(100, timeout=PATIENCE))
            until(lambda: source.counts.stored == count, PATIENCE, "all is in")
        assert source.counts.repeats == 0
        found += records(queue)
    assert len(found) == count
    check_account(found, range(count), once=True)


def test_rewinding_the_group_puts_nothing_again_unless_told_to(cluster: Cluster, queue_path: str) -> None:
    topic = cluster.topic(2)
    cluster.fill(topic, range(500))
    with segq.Queue(queue_path) as queue:
        source = KafkaSource(queue, **reading(cluster, topic))
        with running(source):
            until(lambda: source.counts.stored == 500, PATIENCE, "all is in")
        again = KafkaSource(queue, **reading(cluster, topic, group="another"))
        with running(again):
            until(lambda: again.counts.repeats == 500, PATIENCE, "all came again")
        assert again.counts.stored == 0
        assert queue.qsize() == 500
        on_purpose = KafkaSource(queue, **reading(cluster, topic, group="a third", dedup=False))
        with running(on_purpose):
            until(lambda: on_purpose.counts.stored == 500, PATIENCE, "all was put again")


def test_a_topic_made_anew_under_the_same_name_is_another(real: Cluster, queue_path: str) -> None:
    topic = real.topic(1)
    real.fill(topic, range(300))
    with segq.Queue(queue_path) as queue:
        source = KafkaSource(queue, **reading(real, topic))
        with running(source):
            until(lambda: source.counts.stored == 300, PATIENCE, "all is in")
        real.delete(topic)
        until(lambda: _made(real, topic), PATIENCE, "the old one is gone")
        real.fill(topic, range(300, 400))
        source = KafkaSource(queue, **reading(real, topic))
        with running(source):
            until(lambda: source.counts.stored == 100, PATIENCE, "the new one's are in")
        assert sorted(number(record.value) for record in records(queue)) == list(range(400))


def _made(cluster: Cluster, topic: str) -> bool:
    from confluent_kafka import KafkaException

    try:
        cluster.topic(1, topic)
    except KafkaException:  # it is still being deleted
        return False
    return True


def test_convert_makes_the_items_and_leaves_records_out(cluster: Cluster, queue_path: str) -> None:
    topic = cluster.topic(2)
    cluster.fill(topic, range(100))
    with segq.Queue(queue_path, serializer="raw") as queue:
        with pytest.raises(segq.SettingsError, match="convert="):
            KafkaSource(queue, **reading(cluster, topic))
        source = KafkaSource(queue, **reading(cluster, topic, convert=_even))
        with running(source):
            until(lambda: source.counts.stored == 50, PATIENCE, "the even ones are in")
            until(lambda: source.counts.left_out == 50, PATIENCE, "the others are not")
        assert sorted(map(number, queue.get_many(100))) == list(range(0, 100, 2))


def _even(record: Record) -> bytes | None:
    return record.value if number(record.value) % 2 == 0 else None


def test_a_broker_killed_in_mid_stream_costs_neither_source_nor_sink_anything(
    mortal: Cluster, queue_path: str, start: Any
) -> None:
    topic, out, count = mortal.topic(), mortal.topic(), 30_000
    mortal.fill(topic, range(count // 2))
    with segq.Queue(queue_path) as queue:
        source = start("source", queue_path, **reading(mortal, topic))
        sink = start("sink", queue_path, topic=out, brokers=mortal.address)
        until(lambda: queue.stats().gets >= 2_000, PATIENCE, "both have begun")
        mortal.kill()
        mortal.start()
        mortal.fill(topic, range(count // 2, count))
        until(lambda: _end(mortal, out) >= count, PATIENCE, "all went through")
        source.stop()
        until(lambda: queue.stats().items == 0, PATIENCE, "all is acknowledged")
        sink.stop()
    sent = mortal.read(out)
    assert len(sent) == count  # an idempotent producer's retries double nothing
    assert {number(message.value()) for message in sent} == set(range(count))
    check_order((message.key(), number(message.value())) for message in sent)


def _end(cluster: Cluster, topic: str) -> int:
    """How many records the topic has."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    consumer = Consumer({"bootstrap.servers": cluster.address, "group.id": "reader"})
    try:
        numbers = consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=PATIENCE)[1] for n in numbers)
    except KafkaException:
        return 0
    finally:
        consumer.close()


def test_a_sink_killed_again_and_again_sends_every_item_in_the_order_of_its_key(
    cluster: Cluster, queue_path: str, start: Any
) -> None:
    out, count = cluster.topic(), 30_000
    settings = {"topic": out, "brokers": cluster.address, "key": "key", "in_flight": 500, "options": {"linger.ms": 1}}
    with segq.Queue(queue_path) as queue:
        for begin in range(0, count, 1000):
            queue.put_many({"key": f"key {n % 50}", "n": n} for n in range(begin, begin + 1000))
        for left in (25_000, 20_000, 10_000):
            sink = start("sink", queue_path, **settings)
            until(lambda left=left: queue.stats().items <= left, PATIENCE, f"{left} are left")
            sink.kill()
        sink = start("sink", queue_path, **settings)
        until(lambda: queue.stats().items == 0, PATIENCE, "the rest is sent")
        assert "given_back=0" in sink.stop()
    sent = cluster.read(out)
    values = [(message.key(), json.loads(message.value())["n"]) for message in sent]
    assert {n for _, n in values} == set(range(count))
    check_order(values)


def test_an_item_that_no_broker_would_take_stops_nobody(cluster: Cluster, queue_path: str) -> None:
    out = cluster.topic(1)
    with segq.Queue(queue_path) as queue:
        queue.put_many([b"a", b"x" * 2_000_000, b"b"])  # above message.max.bytes, the client's limit
        sink = KafkaSink(queue, out, brokers=cluster.address)
        with running(sink):
            until(lambda: sink.counts.sent == 2, PATIENCE, "the others are sent")
            until(lambda: sink.counts.rejected == 1, PATIENCE, "that one is refused")
        (letter,) = queue.dead.peek(1)
        assert letter.value == b"x" * 2_000_000
        assert "too large" in letter.reason
    assert sorted(message.value() for message in cluster.read(out)) == [b"a", b"b"]


def test_a_sink_that_cannot_reach_the_broker_gives_back_what_it_holds(queue_path: str) -> None:
    with segq.Queue(queue_path) as queue:
        queue.put_many(["a", "b"])
        sink = KafkaSink(queue, "nowhere", brokers="127.0.0.1:1", drain=0.2)
        with running(sink):
            until(lambda: queue.stats().claimed == 2, PATIENCE, "it holds both")
        assert sink.counts.given_back == 2
        assert queue.get_many(2, timeout=PATIENCE) == ["a", "b"]


def test_stopped_while_the_broker_is_down_it_ends_soon(mortal: Cluster, queue_path: str) -> None:
    topic = mortal.topic(1)
    mortal.fill(topic, range(100))
    with segq.Queue(queue_path) as queue:
        source = KafkaSource(queue, **reading(mortal, topic, commit_interval=60, options={"session.timeout.ms": 45_000}))
        with running(source):
            until(lambda: source.counts.stored == 100, PATIENCE, "all is in")
            mortal.kill()
            begun = time.monotonic()
        took = time.monotonic() - begun
        mortal.start()
        assert took < 30, "the client alone would try for as long as the group waits"
        assert queue.qsize() == 100


def test_a_shut_down_queue_ends_its_source_and_its_sink(cluster: Cluster, queue_path: str) -> None:
    topic = cluster.topic(1)
    with segq.Queue(queue_path) as queue:
        queue.put("the last")
        queue.shutdown()
        sink = KafkaSink(queue, topic, brokers=cluster.address)
        sink.run(threading.Event())
        assert sink.counts.sent == 1
        KafkaSource(queue, **reading(cluster, topic)).run(threading.Event())


def test_the_example_runs(real: Cluster) -> None:
    command = [sys.executable, str(ROOT / "examples" / "kafka_roundtrip.py"), "--brokers", real.address]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment())
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "20000 bills came out, for 20000 of 20000 orders"


def test_segq_run_takes_a_topic_through_workers_into_another_and_drains(real: Cluster, tmp_path: Path) -> None:
    topic, out, count = real.topic(4), real.topic(4), 20_000
    real.fill(topic, range(count // 2))
    (tmp_path / "work.py").write_text("def double(record):\n    return {'n': int(record['value']) * 2}\n")
    place = tmp_path / "pipeline.toml"
    place.write_text(f"""
        [queues.orders]
        capacity = 5_000
        [queues.answers]
        [sources.orders]
        kind = "kafka"
        to = "orders"
        processes = 2
        brokers = "{real.address}"
        topics = "{topic}"
        group = "{topic}"
        batch = 100
        options = {{"session.timeout.ms" = 2000}}
        [workers.double]
        from = "orders"
        to = "answers"
        function = "work:double"
        processes = 2
        [sinks.answers]
        kind = "kafka"
        from = "answers"
        brokers = "{real.address}"
        topic = "{out}"
        key = "n"
        """)
    with (tmp_path / "said").open("wb") as said:
        running = subprocess.Popen(
            [sys.executable, "-m", "segq", "run", str(place)],
            stdout=said,
            stderr=said,
            env=environment(PYTHONPATH=f"{ROOT}:{tmp_path}"),
        )
    try:
        until(lambda: _end(real, out) >= 1_000, PATIENCE, "results come out")
        victims = [child.pid for child in psutil.Process(running.pid).children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        real.fill(topic, range(count // 2, count))
        until(lambda: _end(real, out) >= count, PATIENCE, "all is out, though every process was killed")
        running.terminate()
        assert running.wait(PATIENCE) == 0, (tmp_path / "said").read_text()
    finally:
        running.kill()
        running.wait()
    found = [json.loads(message.value())["n"] for message in real.read(out)]
    assert set(found) == {2 * n for n in range(count)}
