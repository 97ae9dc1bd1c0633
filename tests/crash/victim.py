"""What the processes do that are to be killed: `python victim.py WORKLOAD QUEUE REPORT [SETTINGS as JSON]`.

Each workload does a little of everything that leads through one part of the engine, several times, and says to its report
what it begins and what it has done. It ends by itself if nobody kills it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from accounts import Report, identity_of, item_id, origin

import segq

LARGE = 20_000  # bytes; thirteen of them fill a half of the open batch
BLOCK = 16  # of those are more than the batch takes, so they go to RocksDB at once
HUGE = 200_000  # bytes; several times what an item may have in the batch
MEBIBYTE = 1 << 20


class Victim:
    """One process and its queue. Every handle has a name of its own, since order is promised for each."""

    def __init__(self, path: str, report: str, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.report = Report(report)
        self.name = os.path.basename(report).partition(".")[0]
        self._handles = self._number = 0
        self.queue = self.open()

    def open(self) -> segq.Queue:
        self._handles += 1
        self.queue = segq.Queue(self.path, **self.settings)
        return self.queue

    def close(self) -> None:
        """What the disk says on closing is no reason to stop: the items are safe, and others seal what is left."""
        try:
            self.queue.close()
        except (segq.QueueError, OSError) as error:
            print(f"close failed: {error!r}", flush=True)

    def next_id(self, size: int = 0) -> str:
        self._number += 1
        return item_id(f"{self.name}.{self._handles}", self._number, size)

    def put(self, count: int = 1, size: int = 0) -> None:
        for _ in range(count):
            self.report.put(self.queue, self.next_id(size))

    def put_many(self, count: int, size: int = 0) -> None:
        self.report.put(self.queue, *(self.next_id(size) for _ in range(count)), many=True)


def puts(victim: Victim) -> None:
    """Single puts and small put_manys, which gather in the open batch."""
    for _ in range(6):
        victim.put(4)
        victim.put_many(3, 100)


def turns(victim: Victim) -> None:
    """Enough for the halves of the open batch to be reused."""
    victim.put(70, LARGE)
    for _ in range(4):
        victim.put_many(10, LARGE)


def blocks(victim: Victim) -> None:
    """put_manys that do not fit the batch, with and without something in it."""
    for _ in range(3):
        victim.put_many(BLOCK, LARGE)
        victim.put_many(BLOCK, LARGE)
        victim.put(3)
        victim.put_many(BLOCK, LARGE)
        victim.put(2, LARGE)


def blobs(victim: Victim) -> None:
    """Items so large that their bytes lie in a file of their own, singly, together, and among small ones."""
    for _ in range(3):
        victim.put(2)
        victim.put(2, HUGE)
        victim.put_many(3, HUGE)
        victim.put_many(BLOCK, LARGE)
        victim.put(1, HUGE)


def reuses(victim: Victim) -> None:
    """Large items that are got soon, so that the next are written over them, while one or two of the lap before still wait."""
    victim.put(5, MEBIBYTE)
    for _ in range(3):
        for _ in range(4):
            victim.report.get(victim.queue, timeout=5)
        victim.put(2, MEBIBYTE)
        victim.put_many(2, MEBIBYTE)
        victim.put(1)


def rolls(victim: Victim) -> None:
    """One segment after the other (they are small), filled by puts, by put_manys, and by one put_many larger than a segment."""
    for _ in range(3):
        victim.put(15)
        victim.put_many(7)
        victim.put_many(25)


def opens(victim: Victim) -> None:
    """Handles opened and closed, each resuming what the last one left, with single puts and with large blocks."""
    for round_ in range(6):
        victim.put(2)
        if round_ % 2:
            victim.put_many(BLOCK, LARGE)
            victim.put(1)
        victim.close()
        victim.open()


def gets(victim: Victim) -> None:
    """Takes what is there, singly and in numbers."""
    try:
        while True:
            victim.report.get(victim.queue, timeout=1)
            victim.report.get(victim.queue, 3, timeout=1)
    except segq.Empty:
        pass


def receives(victim: Victim) -> None:
    """Receives, and acknowledges two of three; the third is given back."""
    count = 0
    try:
        while True:
            for message in victim.report.receive(victim.queue, 1 + count % 3, timeout=1):
                count += 1
                if count % 3 or message.deliveries > 2:
                    victim.report.ack(message)
                else:
                    victim.report.nack(message)
    except segq.Empty:
        pass


def delays(victim: Victim) -> None:
    """Receives, and puts every third off for a moment, once."""
    count = 0
    try:
        while True:
            for message in victim.report.receive(victim.queue, 1 + count % 3, timeout=1):
                count += 1
                if count % 3 or message.deliveries > 1:
                    victim.report.ack(message)
                else:
                    victim.report.nack(message, delay=0.002 * (1 + count % 5))
    except segq.Empty:
        pass


def rejects(victim: Victim) -> None:
    """Receives, and gives every third up."""
    count = 0
    try:
        while True:
            for message in victim.report.receive(victim.queue, 1 + count % 3, timeout=1):
                count += 1
                if count % 3:
                    victim.report.ack(message)
                else:
                    victim.report.reject(message)
    except segq.Empty:
        pass


def spends(victim: Victim) -> None:
    """Receives, and gives every third back until the queue gives it up."""
    try:
        while True:
            for message in victim.report.receive(victim.queue, 3, timeout=1):
                if origin(identity_of(message.value))[1] % 3:
                    victim.report.ack(message)
                elif message.deliveries < victim.settings["max_deliveries"]:
                    victim.report.nack(message)
                else:
                    victim.report.last_nack(message)
    except segq.Empty:
        pass


def mixed(victim: Victim) -> None:
    """Puts and takes its own, so that segments become complete while they are loading and after."""
    for _ in range(4):
        victim.put(7)
        victim.put_many(5, 50)
        victim.report.get(victim.queue, 4, timeout=5)
        for message in victim.report.receive(victim.queue, 6, timeout=5):
            victim.report.ack(message)
    gets(victim)


def keeps_up(victim: Victim) -> None:
    """Takes each item as it comes, so that none is claimed first."""
    for _ in range(30):
        victim.put()
        victim.report.get(victim.queue, timeout=5)
    victim.put(3)


def holds(victim: Victim) -> None:
    """Puts some, receives some, and waits for its death with all that in hand, and for items."""
    hold(victim)
    waits(victim)


def sleeps(victim: Victim) -> None:
    """Puts some, receives some, and does nothing more: it takes no item and rescues nobody."""
    hold(victim)
    victim.report.say("ready")
    signal.pause()


def hold(victim: Victim) -> None:
    victim.put(6)
    victim.put_many(BLOCK, LARGE)
    victim.put(3)
    for message in victim.report.receive(victim.queue, 4, timeout=5)[:1]:
        victim.report.ack(message)


def grasps(victim: Victim) -> None:
    """Receives all that is there, and waits for its death with it in hand."""
    victim.report.receive(victim.queue, 10, timeout=5)
    victim.report.say("ready")
    signal.pause()


def waits(victim: Victim) -> None:
    """Sits in a blocking get, as a worker without work does, and so looks after the dead now and then."""
    victim.report.say("ready")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            victim.report.get(victim.queue, timeout=30)
        except segq.Empty:
            pass


WORKLOADS: dict[str, Callable[[Victim], None]] = {
    each.__name__: each
    for each in (
        puts,
        turns,
        blocks,
        blobs,
        reuses,
        rolls,
        opens,
        gets,
        receives,
        delays,
        rejects,
        spends,
        mixed,
        keeps_up,
        holds,
        sleeps,
        grasps,
        waits,
    )
}


def main(workload: str, path: str, report: str, settings: str = "{}") -> None:
    victim = Victim(path, report, json.loads(settings))
    WORKLOADS[workload](victim)
    victim.close()
    victim.report.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
