"""What the processes do that work on a topic and may be killed: `python topic_victim.py WORKLOAD TOPIC REPORT EXTRA as JSON`.

Like `victim.py`, and most of its producing workloads serve here as they are. A process says what it puts to REPORT, and what
it takes for a label to a report beside it, `taken_by(REPORT, label)`, so that the account can be closed for each label.

EXTRA: `topic`: settings; `labels`: those it works for; `start`; and what single workloads ask for (`stop` and `go` are files).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "stress"))

from accounts import ROOT, Ledger, Report, check_clean, check_order, drain, identity_of, segments, until
from hands import consume, produce
from scene import RESCUED_WITHIN, Actor, Scene
from victim import MEBIBYTE, Victim, blobs, blocks, opens, puts, rolls, turns

import segq

PATIENCE = 60.0
LABELS = ("mail", "log", "späte Leser/3")


def taken_by(report: str | os.PathLike[str], label: str) -> Path:
    """The report of what the process of that report took for a label."""
    path = Path(report)
    return path.with_name(f"{path.stem}@{quote(label, safe='')}.report")


class TopicVictim(Victim):
    """One process, its topic, and its subscriptions."""

    def __init__(self, path: str, report: str, extra: dict[str, Any]) -> None:
        self.extra = extra
        self.takes: dict[str, Report] = {}
        self.labels: dict[str, Any] = {}
        super().__init__(path, report, extra.get("topic", {}))
        for label in extra.get("labels", ()) if not extra.get("go") else ():
            self.subscribe(label)

    def open(self) -> Any:
        self._handles += 1
        self.queue: Any = segq.Topic(self.path, **self.settings)
        return self.queue

    def subscribe(self, label: str) -> Any:
        self.takes[label] = Report(taken_by(self.report.path, label))
        self.labels[label] = segq.Subscription(self.path, label, self.extra.get("start", "oldest"))
        return self.labels[label]

    def each(self) -> Iterator[tuple[Any, Report]]:
        for label, subscription in self.labels.items():
            yield subscription, self.takes[label]

    def end(self) -> None:
        for subscription in self.labels.values():
            try:
                subscription.close()
            except (segq.QueueError, OSError) as error:
                print(f"close failed: {error!r}", flush=True)
        self.close()
        for report in (*self.takes.values(), self.report):
            report.end()


def takes(victim: TopicVictim) -> None:
    """Gets what there is for each label in turn, singly and in numbers."""
    going = True
    while going:
        going = False
        for subscription, report in victim.each():
            try:
                report.get(subscription, timeout=0.5)
                report.get(subscription, 7, timeout=0.5)
                going = True
            except segq.Empty:
                continue


def settles(victim: TopicVictim) -> None:
    """Receives for each label in turn and acknowledges two of three; the third is given back."""
    going, count = True, 0
    while going:
        going = False
        for subscription, report in victim.each():
            try:
                messages = report.receive(subscription, 1 + count % 9, timeout=0.5)
            except segq.Empty:
                continue
            going = True
            for message in messages:
                count += 1
                if count % 3 or message.deliveries > 2:
                    report.ack(message)
                else:
                    report.nack(message)


def defers(victim: TopicVictim) -> None:
    """Receives for each label in turn, and puts every third off for a moment, once."""
    settle_each(victim, lambda report, message: report.nack(message, delay=0.005), once=True)


def renounces(victim: TopicVictim) -> None:
    """Receives for each label in turn, and gives every third up."""
    settle_each(victim, lambda report, message: report.reject(message), once=False)


def settle_each(victim: TopicVictim, third: Callable[[Report, segq.Message], None], *, once: bool) -> None:
    going, count = True, 0
    while going:
        going = False
        for subscription, report in victim.each():
            try:
                messages = report.receive(subscription, 1 + count % 9, timeout=0.5)
            except segq.Empty:
                continue
            going = True
            for message in messages:
                count += 1
                if count % 3 or (once and message.deliveries > 1):
                    report.ack(message)
                else:
                    third(report, message)


def mingles(victim: TopicVictim) -> None:
    """Puts, and takes its own for each label, so that segments become complete while they are loading and after."""
    for _ in range(4):
        victim.put(7)
        victim.put_many(5, 50)
        for subscription, report in victim.each():
            report.get(subscription, 4, timeout=5)
            for message in report.receive(subscription, 6, timeout=5):
                report.ack(message)
    takes(victim)


def reuses(victim: TopicVictim) -> None:
    """Large items that every label gets soon, so that the next are written over them."""
    victim.put(5, MEBIBYTE)
    for _ in range(3):
        for subscription, report in victim.each():
            report.get(subscription, 4, timeout=5)
        victim.put(2, MEBIBYTE)
        victim.put_many(2, MEBIBYTE)
        victim.put(1)


def holds(victim: TopicVictim) -> None:
    """Puts some, receives some for each label, and waits for its death with that in hand."""
    victim.put(6)
    victim.put_many(4, 100)
    for subscription, report in victim.each():
        for message in report.receive(subscription, 4, timeout=5)[:1]:
            report.ack(message)
    victim.report.say("ready")
    signal.pause()


def waits(victim: TopicVictim) -> None:
    """Sits in a blocking get of its one label, and so looks after the dead; ends when the label is removed."""
    ((subscription, report),) = victim.each()
    victim.report.say("ready")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            report.get(subscription, timeout=30)
        except segq.Empty:
            continue
        except segq.LabelRemoved:
            victim.report.say("removed")
            return


def streams(victim: TopicVictim) -> None:
    """Puts until the file `stop` is there: singly, and now and then some at once."""
    stop, many = victim.extra["stop"], int(victim.extra.get("many", 3))
    victim.report.say("ready")
    while not os.path.exists(stop):
        victim.put(5)
        if many > 1:
            victim.put_many(many)


def shares(victim: TopicVictim) -> None:
    """Comes to its labels when the file `go` appears, with others; takes until `stop` is there and nothing is left."""
    victim.report.say("ready")
    until(lambda: os.path.exists(victim.extra["go"]), PATIENCE, "the start is given")
    for label in victim.extra["labels"]:
        subscription = victim.subscribe(label)
        if len(victim.extra["labels"]) == 1:
            collect(victim, subscription, victim.takes[label])
            return
    collect_all(victim)


def collect(victim: TopicVictim, subscription: Any, report: Report) -> None:
    while True:
        over = os.path.exists(victim.extra["stop"])
        try:
            report.get(subscription, 10, timeout=0.05)
        except segq.Empty:
            if over:
                return


def collect_all(victim: TopicVictim) -> None:
    while True:
        over, found = os.path.exists(victim.extra["stop"]), False
        for subscription, report in victim.each():
            try:
                report.get(subscription, 200, block=False)
                found = True
            except segq.Empty:
                continue
        if over and not found:
            return
        if not found:
            time.sleep(0.005)


def collects(victim: TopicVictim) -> None:
    """Takes for all its labels until the file `stop` is there and nothing is left."""
    victim.report.say("ready")
    collect_all(victim)


def produces(victim: TopicVictim) -> None:
    """`count` items in all the ways there are."""
    produce(victim.queue, victim.report, random.Random(victim.extra["seed"]), int(victim.extra["count"]))


def consumes(victim: TopicVictim) -> None:
    """Takes for its one label in all the ways there are until `stop` is there and nothing is left."""
    ((subscription, report),) = victim.each()
    consume(subscription, report, random.Random(victim.extra["seed"]), victim.extra["stop"])


def leaves(victim: TopicVictim) -> None:
    """Puts some in one go, and is gone: in order, or (`kill`) not."""
    victim.put_many(int(victim.extra["count"]))
    if victim.extra.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)


def wades(victim: TopicVictim) -> None:
    """Takes all there is for its one label, and says the most descriptors it had open, and how its memory has grown."""
    ((subscription, report),) = victim.each()
    before, most = memory(), 0
    while True:
        try:
            report.get(subscription, 3, timeout=1)
        except segq.Empty:
            break
        most = max(most, descriptors())
    victim.report.say("used", most, memory() - before)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def memory() -> int:
    """Resident bytes that are this process's own: mapped files not counted."""
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


OWN = (
    takes,
    settles,
    defers,
    renounces,
    mingles,
    reuses,
    holds,
    waits,
    streams,
    shares,
    collects,
    produces,
    consumes,
    leaves,
    wades,
)
WORKLOADS: dict[str, Callable[[TopicVictim], None]] = {
    **{each.__name__: each for each in (puts, turns, blocks, blobs, rolls, opens)},
    **{each.__name__: each for each in OWN},
}


# --- the scene they are in --------------------------------------------------------------------------------------------


class TopicScene(Scene):
    """A topic, the processes that work on it, and their reports: what was put, and what was taken for each label."""

    def __init__(self, place: Path, labels: Sequence[str] = LABELS, **settings: Any) -> None:
        super().__init__(place, **settings)
        self.path = place / "topic"
        self.labels = tuple(labels)
        self.taken: dict[str, list[Path]] = {label: [] for label in labels}

    def open(self) -> Any:
        return segq.Topic(self.path, **self.settings)

    def subscribe(self, label: str, start: str = "oldest") -> Any:
        return segq.Subscription(self.path, label, start)

    def begin(self) -> None:
        """The labels are there from now on; nobody reads them."""
        with self.open():
            for label in self.labels:
                self.subscribe(label).close()

    def taking(self, label: str, name: str) -> Report:
        """A report for what this process takes."""
        path = taken_by(self.place / f"{name}{len(self.taken[label])}.report", label)
        self.taken[label].append(path)
        return Report(path)

    def start(self, workload: str, *, faults: str = "", labels: Sequence[str] = (), **extra: Any) -> Actor:
        name = f"{workload}{len(self.actors)}"
        report, output = self.place / f"{name}.report", self.place / f"{name}.out"
        given = json.dumps({"topic": self.settings, "labels": list(labels), **extra})
        command = [sys.executable, __file__, workload, str(self.path), str(report), given]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "SEGQ_FAILPOINTS": faults, "PYTHONFAULTHANDLER": "1"}
        with output.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        actor = Actor(process, report, output)
        self.actors.append(actor)
        self.reports.append(report)
        for label in labels:
            self.taken[label].append(taken_by(report, label))
        return actor

    def account(self, label: str) -> Ledger:
        """What was put, and what was taken for this label."""
        letters: list[str] = []
        if (self.path / "dead").is_dir():
            with self.open() as topic:
                letters = [identity_of(letter.value) for letter in topic.dead if letter.label == label]
        return Ledger([*self.reports, *(path for path in self.taken[label] if path.exists())], letters)

    def recover_label(self, subscription: Any) -> float:
        """This process has been there all along: it gets all there is for a label without opening anything anew."""
        label = subscription.label
        report = self.taking(label, "live")

        def nothing_is_missing() -> bool:
            try:
                messages = report.receive(subscription, 100, timeout=0.05)
            except segq.Empty:
                account = self.account(label)
                return len(account.missing()) <= account.taken_unseen and segq.check(self.path).ok
            for message in messages:
                report.ack(message)
            return False

        try:
            return until(nothing_is_missing, RESCUED_WITHIN, f"a live consumer of {label!r} has everything")
        except AssertionError as error:
            error.add_note(f"missing: {sorted(self.account(label).missing())[:20]}; {subscription.stats()}\n{self.said()}")
            raise
        finally:
            report.end()

    def close_label(self, label: str) -> Ledger:
        """Takes what is left, fails unless the account of this label closes; to the item, what it counts included."""
        with self.subscribe(label, "next") as subscription:  # where it begins has been decided
            report = self.taking(label, "closing")
            check_order(drain(subscription, report))
            report.end()
            account, counted = self.account(label), subscription.stats()
            account.check()
            assert (counted.lag, counted.waiting, counted.claimed, counted.position) == (0, 0, 0, None), counted
            assert counted.missed == 0, counted
            had = len({delivery.identity for delivery in account.deliveries} | set(account.letters))
            assert had <= counted.acknowledged <= had + account.taken_unseen, f"{had} items were had: {counted}"
        return account

    def close_accounts(self, topic: Any = None) -> None:
        """Fails unless the account of every label closes, and the topic is empty, clean and works."""
        try:
            with topic or self.open() as here:
                check_clean(self.path)
                for label in self.labels:
                    self.close_label(label)
                    with self.subscribe(label) as again:
                        assert again.stats().lag == 0
                assert here.qsize() == 0, here.stats()
                assert here.labels() == sorted(self.labels)
                self.goes_on(here)
            check_clean(self.path)
            assert segments(self.path) == [], "segments are left though every label has acknowledged everything"
            with self.open() as here:
                counted = {label.label: label for label in here.stats().labels}
                for label in self.labels:
                    account, stats = self.account(label), counted[label]
                    had = len({delivery.identity for delivery in account.deliveries} | set(account.letters))
                    assert had + 1 <= stats.acknowledged <= had + 1 + account.taken_unseen, f"{had} items were had: {stats}"
                    assert (stats.missed, stats.lag) == (0, 0), stats
                self.goes_on(here)
            assert segments(self.path) == []
        except BaseException as error:
            error.add_note(self.said())
            raise

    def goes_on(self, topic: Any) -> None:
        topic.put("the topic goes on")
        for label in self.labels:
            with self.subscribe(label) as subscription:
                assert subscription.get(timeout=5) == "the topic goes on"


def main(workload: str, path: str, report: str, extra: str = "{}") -> None:
    victim = TopicVictim(path, report, json.loads(extra))
    WORKLOADS[workload](victim)
    victim.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
