"""Produces orders into a Kafka topic.

python examples/kafka_to_api/produce.py --brokers 127.0.0.1:9092 --topic orders --count 5000
"""

from __future__ import annotations

import argparse
import json
import sys

from confluent_kafka import Producer
from orders import order


def main() -> None:
    parser = argparse.ArgumentParser(description="Produces orders.")
    parser.add_argument("--brokers", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="orders")
    parser.add_argument("--count", type=int, default=5_000)
    chosen = parser.parse_args()
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
