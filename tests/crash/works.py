"""A little of everything that a process does with a queue or a topic, in steps, for those who let the kernel strike.

Each step is a turn of a generator, so that a test may do something in between (fill the disk, make room again). A step that
the disk refuses is noted and the work goes on, as a patient user's would; reports are written with `writev`, a call that no
sweep lets fail. What is to be killed, or to fail, is one process: the work itself starts none.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import psutil  # noqa: F401  # which segq loads when a queue is opened: here calls are to fail that are segq's
from accounts import Report, close_account, events, item, item_id, until
from topic_victim import TopicScene, taken_by

import segq

CAPACITY = 160  # more than a work ever has in stock
SETTINGS: dict[str, Any] = {"segment_items": 12, "capacity": CAPACITY, "max_bytes": 1 << 26}
LARGE, HUGE = 20_000, 70_000  # bytes; fourteen large ones go to RocksDB at once, a huge one goes to the blob
LABELS = ("mail", "log")
PASSING = "passing"  # a label that is removed again
MOST_ERRORS = 3  # that one call that fails once may cause, here and there; then all is well again


def home(place: Path, kind: str) -> Path:
    """Where the queue lies: beside the reports, or on a disk of its own, if there is a link to one."""
    return place / "disk" / kind if (place / "disk").is_dir() else place / kind


class Quiet(Report):
    """A report whose writing is none of the calls that are let fail."""

    def say(self, what: str, *ids: object) -> None:
        os.writev(self._descriptor, [" ".join([what, str(time.monotonic_ns()), *map(str, ids)]).encode() + b"\n"])


class Work:
    """A user who goes on after every error of the queue, and notes it."""

    def __init__(self, place: Path, settings: dict[str, Any], *, trouble_lasts: bool = False) -> None:
        """`trouble_lasts`: what is refused may be refused again, so nothing is said about how often."""
        self.place, self.settings = place, SETTINGS | settings
        self.path = str(home(place, self.kind))
        self.report = Quiet(place / "work.report")
        self.handles = self.number = 0
        self.errors: list[segq.QueueError] = []
        self.trouble_lasts = trouble_lasts
        self.refused = 0  # puts
        self.queue = self.open()

    kind = "queue"

    def opened(self) -> Any:
        return segq.Queue(self.path, **self.settings)

    def open(self) -> Any:
        """A handle with a name of its own, since order is promised for each."""
        self.handles += 1
        self.queue = self.surely(self.opened)
        return self.queue

    def trying(self, what: Callable[[], Any]) -> Any:
        """None if it raises an error of ours; any other is not caught, and ends the work."""
        try:
            return what()
        except segq.Empty:
            return None
        except segq.QueueError as error:
            self.errors.append(error)
            assert self.trouble_lasts or len(self.errors) <= MOST_ERRORS, "what failed once goes on failing"
            os.writev(1, [f"raised: {error!r}\n".encode()])
            return None

    def surely(self, what: Callable[[], Any]) -> Any:
        """What can be done again is done again; one call that fails does not fail it twice."""
        for _ in range(100 if self.trouble_lasts else 1):
            found = self.trying(what)
            if found is not None:
                return found
        return what()

    def put(self, count: int = 1, size: int = 0, *, many: bool = False, **options: Any) -> None:
        for some in [count] if many else [1] * count:
            if not self.put_once(some, size, many=many, **options) and not self.trouble_lasts:
                assert self.put_once(some, size, many=many, **options), "what failed once fails again in the same handle"

    def put_once(self, count: int, size: int, *, many: bool, **options: Any) -> bool:
        ids = [item_id(f"w.{self.handles}", self.number + n, size) for n in range(count)]
        self.number += count
        self.report.say("begun", *ids)
        stored = self.stored(ids, many=many, **options)
        self.report.say("stored" if stored else "failed", *ids)
        self.refused += not stored
        return stored

    def stored(self, ids: list[str], *, many: bool, **options: Any) -> bool:
        before = len(self.errors)
        items = [item(identity) for identity in ids]
        self.trying(lambda: self.queue.put_many(items, **options) if many else self.queue.put(items[0], **options))
        return len(self.errors) == before

    def pass_by(self, count: int) -> None:
        """Puts items that expire before anybody can have them; they are in no account, and must never come out."""
        if self.stored([item_id("expired", n) for n in range(count)], many=True, ttl=0.001):
            gone = time.time() + 0.003
            until(lambda: time.time() > gone, 5, "their time is over")

    def get(self, most: int = 1, *, source: Any = None, report: Report | None = None) -> None:
        self.trying(lambda: (report or self.report).get(source or self.queue, most, block=False))

    def settle(self, most: int, *, source: Any = None, report: Report | None = None) -> None:
        """Receives, gives the second back, acknowledges the others."""
        into = report or self.report
        messages = self.trying(lambda: into.receive(source or self.queue, most, block=False)) or ()
        before = len(self.errors)
        for n, message in enumerate(messages):
            self.trying(lambda m=message, n=n: into.nack(m) if n == 1 else into.ack(m))
        assert not self.trouble_lasts or len(self.errors) == before, f"an acknowledgement is refused: {self.errors}"

    def forsake(self, queue: Any) -> None:
        """Uses another handle and forgets it: it is as good as one whose process died."""
        kept, self.queue, self.handles = self.queue, queue, self.handles + 1
        report = Quiet(self.place / "forsaken.report")  # never ended: what it holds in the end has to come again
        self.put(2)
        self.put(14, LARGE, many=True)
        self.settle(3, source=queue, report=report)
        self.trying(lambda: report.receive(queue, 2, block=False))
        self.queue = kept

    def takes_on_a_full_disk(self) -> None:
        """What waits is handed out and acknowledged whatever the disk says."""
        before = len(self.errors)
        if self.queue.qsize():  # a dead handle may have them until it is rescued
            assert self.trying(lambda: self.report.get(self.queue, timeout=10)), "items wait and none comes"
        assert len(self.errors) == before, f"a full disk stops a consumer: {self.errors[before:]}"

    def close(self) -> None:
        self.trying(self.queue.close)

    def end(self) -> None:
        self.close()
        self.report.end()


class TopicWork(Work):
    """The same with a topic: what is taken is noted for each label."""

    kind = "topic"

    def __init__(self, place: Path, settings: dict[str, Any], *, trouble_lasts: bool = False) -> None:
        self.takes = {label: Quiet(taken_by(place / "work.report", label)) for label in LABELS}
        self.labels: dict[str, Any] = {}
        super().__init__(place, settings, trouble_lasts=trouble_lasts)

    def opened(self) -> Any:
        return segq.Topic(self.path, **self.settings)

    def subscribe(self, label: str, start: str = "oldest") -> bool:
        """False if the label cannot begin because the disk is full."""
        self.labels.pop(label, None)
        while label not in self.labels:
            subscription = self.trying(lambda: segq.Subscription(self.path, label, start))
            if subscription is not None:
                self.labels[label] = subscription
            elif self.trouble_lasts:
                return False
        return True

    def takes_on_a_full_disk(self) -> None:
        """A label that comes to a segment needs a ledger there, so its `get` may be refused; what is acknowledged stays so."""

    def begun(self) -> bool:
        """Whether both labels are there: before, nobody may take anything, since what is done with is not kept for the other."""
        return all(label in self.labels or self.subscribe(label) for label in LABELS)

    def get_for(self, label: str, most: int = 1) -> None:
        if self.begun():
            self.get(most, source=self.labels[label], report=self.takes[label])

    def settle_for(self, label: str, most: int) -> None:
        if self.begun():
            self.settle(most, source=self.labels[label], report=self.takes[label])

    def close(self) -> None:
        for subscription in self.labels.values():
            self.trying(subscription.close)
        super().close()

    def end(self) -> None:
        super().end()
        for report in self.takes.values():
            report.end()


# --- what was there before: somebody who was killed -------------------------------------------------------------------


def died_before(place: Path, kind: str, settings: dict[str, Any]) -> None:
    """In a process of its own: leaves sealed segments, a loading one with items in all places, and claims."""
    report = Quiet(place / "before.report")
    name = iter(range(1000))

    def put(queue: Any, handle: str, count: int, size: int = 0) -> None:
        report.put(queue, *(item_id(handle, next(name), size) for _ in range(count)), many=True)

    first: Any = (segq.Queue if kind == "queue" else segq.Topic)(str(home(place, kind)), **SETTINGS | settings)
    put(first, "before.1", 8)
    first.close()
    queue: Any = (segq.Queue if kind == "queue" else segq.Topic)(str(home(place, kind)), **SETTINGS | settings)
    put(queue, "before.2", 3)
    put(queue, "before.2", 4, HUGE)
    put(queue, "before.2", 4)
    if kind == "queue":
        report.receive(queue, 3)
    os.kill(os.getpid(), signal.SIGKILL)


# --- the works --------------------------------------------------------------------------------------------------------


def queue_steps(work: Work) -> Iterator[None]:
    """Puts of all kinds through several segments, then everything a consumer does, twice, by several handles."""
    work.put(3)
    yield
    work.put(3, many=True)
    yield
    work.put(1, HUGE)
    yield
    work.put(4, HUGE, many=True)
    yield
    work.get()
    work.settle(3)
    yield
    work.put(14, LARGE, many=True)
    yield
    work.put(2)
    work.put(2, many=True, ttl=3600)
    yield
    work.pass_by(2)
    yield
    work.get(9)
    yield
    work.forsake(work.surely(work.opened))
    gc.collect()
    yield
    work.close()
    work.open()
    yield
    work.put(2)
    yield
    work.close()
    work.open()
    yield
    work.put(2)
    work.put(13, many=True)
    yield
    work.trying(lambda: work.queue.peek(3))
    work.settle(5)
    yield
    for _ in range(8):
        work.get(12)
        yield
    work.put(3)
    work.put(1, HUGE)
    yield
    work.settle(3)
    work.get()
    yield


def topic_steps(work: TopicWork) -> Iterator[None]:
    """Labels that begin, take, give back, and one that is removed; items of all kinds in between."""
    work.put(2)
    yield
    for label in LABELS:
        work.subscribe(label)
        yield
    work.put(3, many=True)
    work.get_for("mail", 5)
    yield
    work.put(14, LARGE, many=True)
    yield
    if work.begun():
        work.subscribe(PASSING, "next")
    yield
    work.put(2, HUGE)
    yield
    work.put(6)
    yield
    work.settle_for("log", 4)
    work.get_for("mail", 9)
    yield
    if PASSING in work.labels:
        work.trying(lambda: work.labels[PASSING].get_many(4, block=False))
    yield
    work.put(2, many=True, ttl=3600)
    yield
    work.get_for("log", 20)
    work.settle_for("mail", 3)
    yield
    if PASSING in work.labels:
        work.trying(work.labels.pop(PASSING).close)
    work.surely(lambda: removed(work.queue))
    yield
    work.close()
    work.open()
    for label in LABELS:
        work.subscribe(label)
    yield
    work.put(2)
    work.put(13, many=True)
    yield
    for _ in range(5):
        for label in LABELS:
            work.get_for(label, 14)
            yield
    work.put(2)
    yield


def removed(topic: Any) -> bool:
    if PASSING in topic.labels():
        topic.remove_label(PASSING)
    return True


WORKS: dict[str, tuple[type[Work], Callable[[Any], Iterator[None]]]] = {
    "queue": (Work, queue_steps),
    "topic": (TopicWork, topic_steps),
}


# --- the account ------------------------------------------------------------------------------------------------------


def close_accounts(place: Path, kind: str, settings: dict[str, Any]) -> None:
    """With the real code, in a process that had nothing to do with it: fails unless every account closes."""
    reports = [place / f"{name}.report" for name in ("before", "work", "forsaken")]
    reports = [report for report in reports if report.exists()]
    if kind == "queue":
        close_queue(place, SETTINGS | settings, reports)
    else:
        close_topic(place, SETTINGS | settings, reports)


def close_queue(place: Path, settings: dict[str, Any], reports: list[Path]) -> None:
    """Filled to its capacity, so that a number that is wrong by one shows; then everything that is there comes out."""
    path = home(place, "queue")
    queue = segq.Queue(path, **settings)
    filling = fill_up(queue, place)
    ledger = close_account(path, [*reports, filling], queue=queue)
    (closing,) = path.parent.glob("closing-*.report")
    there = {said.partition("#")[0] for event in events(closing) if event.what == "received" for said in event.ids}
    assert len(there) == CAPACITY, f"{len(there)} items were in a full queue of {CAPACITY}; {len(ledger.missing())} missing"


def close_topic(place: Path, settings: dict[str, Any], reports: list[Path]) -> None:
    scene = TopicScene(place, LABELS, **settings)
    scene.path = home(place, "topic")
    scene.reports += reports
    for label in LABELS:
        scene.taken[label].append(taken_by(place / "work.report", label))
    with scene.open() as topic:
        removed(topic)
        for label in LABELS:  # where it was not begun before the kill
            scene.subscribe(label).close()
        scene.reports.append(fill_up(topic, place))
        assert topic.qsize() == CAPACITY, topic.stats()
        scene.close_accounts(topic)


def fill_up(queue: Any, place: Path) -> Path:
    """Puts until not one item more has room; returns the report."""
    report = Report(place / "filling.report")
    number = 0
    for size in (64, 16, 4, 1):
        ids = [item_id("filling", number + n) for n in range(size)]
        while report.put(queue, *ids, many=True, block=False):
            number += size
            ids = [item_id("filling", number + n) for n in range(size)]
    report.end()
    return Path(report.path)


__all__ = ["WORKS", "TopicWork", "Work", "close_accounts", "died_before", "home"]
