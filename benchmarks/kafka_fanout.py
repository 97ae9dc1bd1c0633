"""``python -m benchmarks.kafka_fanout``: a topic, a reader, eight workers, a writer, a topic; messages per second, cores used.

What joins the reader and the workers, and the workers and the writer:

* ``segq``: `KafkaSource`, two queues, `KafkaSink`; every record once in the queue, every item acknowledged after its effect;
* ``mp``: plain loops over confluent-kafka's clients and two `multiprocessing.Queue`; what is under way is lost in a crash;
* ``turbo``: turbo-queue's `KafkaEnqueue`, `Enqueue`, `Dequeue` and `KafkaDequeue`, in files of a thousand.

All read the same topic of JSON records (about 120 bytes); a worker parses a record and hashes its text, and the result goes to
a new topic. The clock runs from the moment all processes are up (and not yet in the group) until the last result is in the
topic; a run counts if every record's result is there. Cores are CPU seconds of all processes but the broker (which has a share
of the same cores) per second. Rounds are interleaved; ratios are of runs of the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.kafka_broker import VERSION, Broker, UnavailableError
from benchmarks.usage import cpu_of

CONTEXT = get_context("spawn")
WORKERS = 8
PARTITIONS = 4
PATIENCE = 300.0
_groups = itertools.count()


def record(n: int) -> bytes:
    return json.dumps({"n": n, "text": f"{n:>90}"}).encode()


def answer(value: bytes | str) -> dict[str, Any]:
    """What a worker does."""
    order = json.loads(value)
    return {"n": order["n"], "digest": hashlib.sha256(order["text"].encode()).hexdigest()[:16]}


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a run takes place."""

    brokers: str
    source: str
    target: str
    group: str
    directory: str
    go: Any
    up: Any

    def start(self) -> None:
        """A process is up; returns when all are."""
        self.up.release()
        self.go.wait()


# --- segq -------------------------------------------------------------------------------------------------------------


def segq_reader(ground: Ground) -> None:
    import threading

    import segq
    from segq.connectors.kafka import KafkaSource

    with segq.Queue(os.path.join(ground.directory, "in")) as queue:
        source = KafkaSource(queue, ground.source, brokers=ground.brokers, group=ground.group)
        ground.start()
        source.run(threading.Event())


def segq_worker(ground: Ground) -> None:
    import segq

    with segq.Queue(os.path.join(ground.directory, "in")) as orders, segq.Queue(os.path.join(ground.directory, "out")) as bills:
        ground.start()
        while True:
            messages = orders.receive_many(200)
            bills.put_many([answer(message.value["value"]) for message in messages])
            for message in messages:
                message.ack()


def segq_writer(ground: Ground) -> None:
    import threading

    import segq
    from segq.connectors.kafka import KafkaSink

    with segq.Queue(os.path.join(ground.directory, "out")) as queue:
        sink = KafkaSink(queue, ground.target, brokers=ground.brokers)
        ground.start()
        sink.run(threading.Event())


# --- multiprocessing --------------------------------------------------------------------------------------------------


def mp_reader(ground: Ground, orders: Any) -> None:
    from confluent_kafka import Consumer

    settings = {"bootstrap.servers": ground.brokers, "group.id": ground.group, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    ground.start()
    consumer.subscribe([ground.source])
    while True:
        for message in consumer.consume(1000, 0.1):
            if message.error() is None:
                orders.put(message.value())


def mp_worker(ground: Ground, orders: Any, bills: Any) -> None:
    ground.start()
    while True:
        bills.put(answer(orders.get()))


def mp_writer(ground: Ground, bills: Any) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": ground.brokers, "enable.idempotence": True})
    ground.start()
    while True:
        value = json.dumps(bills.get())
        while True:
            try:
                producer.produce(ground.target, value)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)


# --- turbo-queue ------------------------------------------------------------------------------------------------------

TURBO_BATCH = 1000


def turbo_reader(ground: Ground) -> None:
    os.chdir(ground.directory)  # it logs to files where it is
    from turbo_queue import KafkaEnqueue  # type: ignore[import-not-found, unused-ignore]

    reader = KafkaEnqueue()
    reader._turbo_queue_root_path, reader._turbo_queue_queue_name = ground.directory, "in"
    reader._kafka_brokers, reader._kafka_client_id = ground.brokers, "benchmark"
    reader.kafka_group_id, reader.kafka_auto_offset_reset = ground.group, "earliest"
    reader.turbo_queue_max_ready_files, reader.turbo_queue_max_events_per_file = 1 << 30, TURBO_BATCH
    reader.kafka_subscribe(ground.source)
    ground.start()
    reader.start()


def turbo_worker(ground: Ground) -> None:
    os.chdir(ground.directory)
    from turbo_queue import Dequeue, Enqueue

    orders, bills = Dequeue(), Enqueue()
    for end, name in ((orders, "in"), (bills, "out")):
        end.root_path, end.queue_name = ground.directory, name
        end.max_ready_files, end.max_events_per_file = 1 << 30, TURBO_BATCH
    bills.start()
    ground.start()
    while True:
        for order in orders.get():
            if order is None:
                time.sleep(0.01)
                break
            bills.add(answer(json.dumps(order)))


def turbo_writer(ground: Ground) -> None:
    os.chdir(ground.directory)
    from turbo_queue import KafkaDequeue

    writer = KafkaDequeue()
    writer._turbo_queue_root_path, writer._turbo_queue_queue_name = ground.directory, "out"
    writer._kafka_brokers, writer._kafka_producer_topic = ground.brokers, ground.target
    ground.start()
    writer.start()


# --- a run ------------------------------------------------------------------------------------------------------------

Work = Callable[..., None]


def crew(entrant: str) -> list[tuple[Work, tuple[Any, ...]]]:
    """The processes of an entrant, each with what it needs besides the ground."""
    if entrant == "segq":
        return [(segq_reader, ()), (segq_writer, ()), *[(segq_worker, ())] * WORKERS]
    if entrant == "turbo":
        return [(turbo_reader, ()), (turbo_writer, ()), *[(turbo_worker, ())] * WORKERS]
    orders, bills = CONTEXT.Queue(), CONTEXT.Queue()
    return [(mp_reader, (orders,)), (mp_writer, (bills,)), *[(mp_worker, (orders, bills))] * WORKERS]


def run(entrant: str, brokers: str, source: str, count: int) -> tuple[float, float]:
    """Messages per second, and cores used. Raises RuntimeError if something is missing at the end."""
    target, group = f"out-{next(_groups)}", f"group-{next(_groups)}"
    make_topic(brokers, target)
    with tempfile.TemporaryDirectory() as directory:
        ground = Ground(brokers, source, target, group, directory, CONTEXT.Event(), CONTEXT.Semaphore(0))
        work = crew(entrant)
        processes = [CONTEXT.Process(target=_quietly, args=(what, ground, *more), daemon=True) for what, more in work]
        try:
            for process in processes:
                process.start()
            for _ in processes:
                if not ground.up.acquire(timeout=PATIENCE):
                    raise RuntimeError(f"{entrant}: a process did not come up")
            before = [cpu_of(process.pid) for process in processes if process.pid]
            begun = time.perf_counter()
            ground.go.set()
            await_count(entrant, brokers, target, count, processes)
            took = time.perf_counter() - begun
            used = sum(cpu_of(process.pid) for process in processes if process.pid) - sum(before)
        finally:
            for process in processes:
                process.kill()
                process.join()
        missing = set(range(count)) - set(numbers(brokers, target, count))
        if missing:
            raise RuntimeError(f"{entrant}: {len(missing)} of {count} records have no result")
    return count / took, used / took


def _quietly(work: Work, *arguments: Any) -> None:
    """turbo-queue prints and logs as it goes."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        work(*arguments)


def make_topic(brokers: str, name: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(PATIENCE)


def fill(brokers: str, topic: str, count: int) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers})
    for n in range(count):
        producer.produce(topic, record(n), str(n))
        if n % 1000 == 0:
            producer.flush()
    producer.flush()


def await_count(entrant: str, brokers: str, topic: str, count: int, processes: Sequence[Any]) -> None:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "watch"})
    deadline = time.monotonic() + PATIENCE
    partitions = [TopicPartition(topic, n) for n in range(PARTITIONS)]
    try:
        while _length(consumer, partitions) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{entrant}: not all through within {PATIENCE:g} s")
            dead = [process.exitcode for process in processes if not process.is_alive()]
            if dead:
                raise RuntimeError(f"{entrant}: a process ended with exit code {dead[0]}")
            time.sleep(0.02)
    finally:
        consumer.close()


def _length(consumer: Any, partitions: Sequence[Any]) -> int:
    from confluent_kafka import KafkaException

    try:
        return sum(consumer.get_watermark_offsets(partition, timeout=30)[1] for partition in partitions)
    except KafkaException:  # the broker of a busy machine takes itself for dead now and then
        return 0


def numbers(brokers: str, topic: str, count: int) -> list[int]:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "count"})
    consumer.assign([TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
    found: list[int] = []
    while len(found) < count:
        messages = consumer.consume(10_000, 5)
        if not messages:
            break
        found += [json.loads(message.value())["n"] for message in messages if message.error() is None]
    consumer.close()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kafka_fanout", description="Kafka to queue to workers to Kafka."
    )
    parser.add_argument("--count", type=int, default=200_000, help="records (default: %(default)s; a multiple of 1,000)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=("segq", "mp", "turbo"), help="this one; may be repeated")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    entrants = options.only or ["segq", "mp", "turbo"]
    speeds: dict[str, list[float]] = {entrant: [] for entrant in entrants}
    cores: dict[str, list[float]] = {entrant: [] for entrant in entrants}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        try:
            broker = Broker(Path(directory))
            broker.start()
        except UnavailableError as error:
            print(f"no Kafka broker: {error}", file=sys.stderr)
            return 1
        try:
            make_topic(broker.address, "orders")
            fill(broker.address, "orders", options.count)
            for number in range(options.rounds):
                for entrant in entrants:
                    if entrant in failed:
                        continue
                    try:
                        speed, used = run(entrant, broker.address, "orders", options.count)
                    except RuntimeError as error:
                        failed[entrant] = str(error)
                        continue
                    speeds[entrant].append(speed)
                    cores[entrant].append(used)
                    console.print(f"round {number + 1}: {entrant:6} {speed:>9,.0f} /s, {used:.2f} cores", highlight=False)
        finally:
            broker.kill()
    show(console, speeds, cores)
    for reason in failed.values():
        console.print(f"[red]{reason}[/red]")
    return bool(failed)


def show(console: Console, speeds: dict[str, list[float]], cores: dict[str, list[float]]) -> None:
    table = Table(title=f"Kafka {VERSION} → queue → {WORKERS} workers → Kafka, {os.cpu_count()} cores, broker included")
    for heading in ("", "messages/s", "lowest, highest", "cores used", "messages/s per core", "segq to this", "per core"):
        table.add_column(heading, justify="right" if heading else "left")
    for entrant, runs in speeds.items():
        if not runs:
            continue
        per_core = [speed / used for speed, used in zip(runs, cores[entrant], strict=True)]
        own = speeds.get("segq", [])
        own_per_core = [speed / used for speed, used in zip(own, cores.get("segq", []), strict=True)]
        table.add_row(
            entrant,
            f"{statistics.median(runs):,.0f}",
            f"{min(runs):,.0f}, {max(runs):,.0f}",
            f"{statistics.median(cores[entrant]):.2f}",
            f"{statistics.median(per_core):,.0f}",
            *("" if entrant == "segq" else _ratio(mine, theirs) for mine, theirs in ((own, runs), (own_per_core, per_core))),
        )
    console.print(table)


def _ratio(mine: Sequence[float], theirs: Sequence[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(mine, theirs, strict=False)):.2f}" if mine else ""


if __name__ == "__main__":
    sys.exit(main())
