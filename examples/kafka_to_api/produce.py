"""Produces orders into a Kafka topic.

python examples/kafka_to_api/produce.py --brokers 127.0.0.1:9092 --topic orders --count 5000
"""

from __future__ import annotations

import argparse
import json
import sys

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from orders import order


def make_topic(brokers: str, name: str) -> None:
    """Four partitions, for up to four processes that read; one that is there stays as it is."""
    admin = AdminClient({"bootstrap.servers": brokers})
    try:
        admin.create_topics([NewTopic(name, num_partitions=4)])[name].result(30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description="Produces orders.")
    parser.add_argument("--brokers", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="orders")
    parser.add_argument("--count", type=int, default=5_000)
    chosen = parser.parse_args()
    make_topic(chosen.brokers, chosen.topic)
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": chosen.brokers, "enable.idempotence": True})
    for number in range(chosen.count):
        value = json.dumps(order(number)).encode()
        while True:
            try:
                producer.produce(chosen.topic, value, key=str(number % 97), on_delivery=lambda error, _: failures.append(error))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    failed = [failure for failure in failures if failure is not None]
    print(f"{len(failures) - len(failed)} orders are in the topic {chosen.topic!r}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
