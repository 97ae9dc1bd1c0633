"""A process of its own that runs a source or a sink until SIGTERM: `python kafka_hands.py source|sink QUEUE SETTINGS-AS-JSON`."""

from __future__ import annotations

import json
import signal
import sys
import threading

import segq
from segq.connectors.kafka import KafkaSink, KafkaSource


def main() -> None:
    what, path, settings = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with segq.Queue(path) as queue:
        connector = (KafkaSource if what == "source" else KafkaSink).from_settings(queue, **json.loads(settings))
        connector.run(stop)
        print(connector.counts, flush=True)


if __name__ == "__main__":
    main()
