"""The hands of a stress run: `python hands.py produce|consume QUEUE REPORT SETTINGS SEED COUNT STOP SIZES`.

A producer puts COUNT items in all the ways there are and ends; SIZES is "mixed", or "large": all lie in a file of their own. A consumer takes items in all the ways there are, gives some
back, and ends when the file STOP exists and the queue is empty. Either may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import random
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from accounts import Report, item_id

import segq

MOST_AT_ONCE = 40
LARGE = 30_000  # bytes; a dozen at once go past the open batch
SMALL = 200  # bytes
HUGE = 150_000  # bytes; several times what an item may have in the batch


def produce(queue: segq.Queue, report: Report, chance: random.Random, count: int, sizes: str = "mixed") -> None:
    handle = os.path.basename(report.path).partition(".")[0]
    most = min(MOST_AT_ONCE if sizes == "mixed" else 4, (queue.settings.capacity or MOST_AT_ONCE * 4) // 4)
    done = 0
    while done < count:
        many = chance.random() < 0.3
        number = min(chance.randint(1, most), count - done) if many else 1
        lot = chance.random()
        if sizes == "large":
            size = chance.randint(HUGE // 3, 5 * HUGE)
        else:
            size = LARGE if lot < 0.004 else HUGE if lot < 0.005 else chance.randint(0, SMALL)
        number = min(number, max((queue.settings.max_bytes or sys.maxsize) // 4 // (size + SMALL), 1))
        ids = [item_id(handle, done + n, size) for n in range(number)]
        assert report.put(queue, *ids, many=many, timeout=60), "a put failed"
        done += number


def consume(queue: segq.Queue, report: Report, chance: random.Random, stop: str) -> None:
    while True:
        over = os.path.exists(stop)
        try:
            take(queue, report, chance)
        except segq.Empty:
            if over:
                return


def take(queue: segq.Queue, report: Report, chance: random.Random) -> None:
    way = chance.random()
    if way < 0.3:
        report.get(queue, timeout=0.2)
        return
    if way < 0.5:
        report.get(queue, chance.randint(2, MOST_AT_ONCE), timeout=0.2)
        return
    messages = report.receive(queue, 1 if way < 0.8 else chance.randint(2, MOST_AT_ONCE), timeout=0.2)
    for message in messages:
        if message.deliveries < 5 and chance.random() < 0.05:
            report.nack(message)
        else:
            report.ack(message)


def main(role: str, path: str, report_path: str, settings: str, seed: str, count: str, stop: str, sizes: str) -> None:
    given: dict[str, Any] = json.loads(settings)
    chance, report = random.Random(seed), Report(report_path)
    with segq.Queue(path, **given) as queue:
        if role == "produce":
            produce(queue, report, chance, int(count), sizes)
        else:
            consume(queue, report, chance, stop)
    report.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
