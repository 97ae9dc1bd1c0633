"""Kafka to a queue, workers on all cores, and back to Kafka, each a process of its own.

Run it with a broker (and `pip install 'segq[kafka]'`):

    python examples/kafka_roundtrip.py --brokers localhost:9092

In a checkout, `python -m benchmarks.kafka_broker run` is a broker to run it with. You will see how many orders went into a new
topic, what each worker did, and that every order came out at the other end, once. It makes two topics and deletes them.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time

import segq
from segq.connectors.kafka import KafkaSink, KafkaSource, Record

ORDERS = 20_000
WORKERS = 4


def read_topic(queue: segq.Queue, brokers: str, topic: str, stop: object) -> None:
    """Topic into queue. Any number of these share the topic's partitions."""
    with queue:
        KafkaSource(queue, topic, brokers=brokers, group=topic).run(stop)


def work(orders: segq.Queue, bills: segq.Queue) -> None:
    """A worker: knows the queues, and nothing of Kafka but what a record looks like."""
    with orders, bills:
        for message in orders.messages():  # until the queue is shut down and empty
            record = Record.of(message.value)
            order = json.loads(record.value or b"{}")
            bills.put({"order": order["n"], "due": order["price"] * 119 // 100, "worker": os.getpid()})


def write_topic(queue: segq.Queue, brokers: str, topic: str) -> None:
    """Queue into topic, until the queue is shut down and empty."""
    with queue:
        KafkaSink(queue, topic, brokers=brokers, key="order").run(threading.Event())


def main() -> int:
    """Fills a topic, runs the processes, reads the other topic, compares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--brokers", help='"host:port" of a Kafka broker')
    brokers = parser.parse_args().brokers
    if importlib.util.find_spec("confluent_kafka") is None:
        print("this example needs the Kafka client: pip install 'segq[kafka]'")
        return 0
    if brokers is None:
        print(
            "this example needs a broker: start one with `python -m benchmarks.kafka_broker run`,"
            " then give --brokers localhost:9092"
        )
        return 0

    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": brokers})
    source, target = (f"segq-example-{what}-{os.getpid()}" for what in ("orders", "bills"))
    for made in admin.create_topics([NewTopic(source, 4, 1), NewTopic(target, 4, 1)]).values():
        made.result(30)
    try:
        fill(brokers, source)
        run(brokers, source, target)
        return check(brokers, target)
    finally:
        for deleted in admin.delete_topics([source, target]).values():
            deleted.result(30)


def fill(brokers: str, topic: str) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers})
    for n in range(ORDERS):
        producer.produce(topic, json.dumps({"n": n, "price": 100 + n % 900}), str(n % 100))
        producer.poll(0)
    producer.flush(30)
    print(f"{ORDERS} orders are in the topic")


def run(brokers: str, source: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        orders = segq.Queue(os.path.join(directory, "orders"), capacity=100_000)
        bills = segq.Queue(os.path.join(directory, "bills"), capacity=100_000)
        stop = multiprocessing.Event()
        reader = multiprocessing.Process(target=read_topic, args=(orders, brokers, source, stop))
        writer = multiprocessing.Process(target=write_topic, args=(bills, brokers, target))
        workers = [multiprocessing.Process(target=work, args=(orders, bills)) for _ in range(WORKERS)]
        for process in (reader, writer, *workers):
            process.start()

        while stored(orders) < ORDERS:  # what its notes say; a real pipeline never ends, and never asks
            time.sleep(0.1)
        stop.set()
        reader.join()
        orders.shutdown()  # no more orders: workers end when those there are have been taken
        for process in workers:
            process.join()
        bills.shutdown()
        writer.join()
        orders.close()
        bills.close()


def stored(queue: segq.Queue) -> int:
    """How many records of its topic the queue has had, as the source notes it in the queue's directory."""
    total = 0
    for place, _, names in os.walk(os.path.join(queue.path, "connectors")):
        for name in names:
            with open(os.path.join(place, name), encoding="ascii") as note:
                said = json.loads(note.read() or "{}").get("stored")
                total += 0 if said is None else said + 1
    return total


def check(brokers: str, topic: str) -> int:
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    bills: list[dict[str, int]] = []
    silent_since = time.monotonic()
    while time.monotonic() - silent_since < (5 if len(bills) < ORDERS else 1):
        found = [json.loads(message.value()) for message in consumer.consume(1000, 0.5) if message.error() is None]
        if found:
            bills += found
            silent_since = time.monotonic()
    consumer.close()
    for worker, count in sorted(collections.Counter(bill["worker"] for bill in bills).items()):
        print(f"worker {worker} did {count} orders")
    different = len({bill["order"] for bill in bills})
    print(f"{len(bills)} bills came out, for {different} of {ORDERS} orders")
    return 0 if different == ORDERS else 1


if __name__ == "__main__":
    sys.exit(main())
