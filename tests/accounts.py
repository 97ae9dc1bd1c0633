"""The account of what went into a queue and what came out, kept by processes that may be killed at any instruction.

Each process reports to a file of its own: one `os.write` to an O_APPEND descriptor for each event, which survives its SIGKILL.
What is about to happen is reported before (`begun`, `getting`, `acking`, `nacking`, `rejecting`), what has happened after
(`stored`, `got`, `received`, `acked`, `rejected`), so that what a kill leaves open is known exactly. A report without a last `ended` is that of a
process that was killed. `close_account` drains the queue with the real code and holds it against the reports.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import segq

ROOT = Path(segq.__file__).resolve().parent.parent
SEGMENT_STATES = ("loading_", "ready_", "chosen_", "removed_")


# --- items that can prove what they are -------------------------------------------------------------------------------


def item_id(handle: str, number: int, size: int = 0) -> str:
    """`handle` names the producer handle; its items are numbered in the order put."""
    return f"{handle}/{number}/{size}"


def item(identity: str) -> list[Any]:
    """What is put for that id; its padding follows from the id, so that a mixed-up payload shows."""
    size = int(identity.rpartition("/")[2])
    text = identity.encode()
    return [identity, (text * (size // len(text) + 1))[:size]]


def identity_of(value: Any) -> str:
    """The id of an item that came out; fails for one that nobody could have put."""
    assert isinstance(value, list), f"this is no item: {value!r:.200}"
    assert value == item(value[0]), f"an item came out damaged: {value!r:.200}"
    return str(value[0])


def origin(identity: str) -> tuple[str, int]:
    handle, number, _ = identity.rsplit("/", 2)
    return handle, int(number)


# --- reporting, in the process that may die ---------------------------------------------------------------------------


class Report:
    """Where one process says what it does."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def say(self, what: str, *ids: object) -> None:
        os.write(self._descriptor, " ".join([what, str(time.monotonic_ns()), *map(str, ids)]).encode() + b"\n")

    def put(self, queue: segq.Queue, *ids: str, many: bool = False, **waiting: Any) -> bool:
        """Puts the items of these ids (as one write if `many`); False if the queue refused them."""
        self.say("begun", *ids)
        try:
            if many:
                queue.put_many([item(i) for i in ids], **waiting)
            else:
                queue.put(item(ids[0]), **waiting)
        except (segq.QueueError, OSError) as error:  # a fault point raises a bare OSError where no disk is asked anything
            self.say("failed", *ids)
            print(f"put of {ids[0]} failed: {error!r}", flush=True)
            return False
        self.say("stored", *ids)
        return True

    def get(self, queue: segq.Queue, most: int = 1, **waiting: Any) -> list[str]:
        """Gets up to `most` items; raises as the queue does."""
        self.say("getting", most)
        try:
            values = queue.get_many(most, **waiting) if most > 1 else [queue.get(**waiting)]
        except segq.QueueError:
            self.say("got")
            raise
        ids = [identity_of(value) for value in values]
        self.say("got", *ids)
        return ids

    def receive(self, queue: segq.Queue, most: int = 1, **waiting: Any) -> list[segq.Message]:
        messages = queue.receive_many(most, **waiting) if most > 1 else [queue.receive(**waiting)]
        self.say("received", *(f"{identity_of(m.value)}#{m.deliveries}" for m in messages))
        return messages

    def ack(self, message: segq.Message) -> None:
        self.say("acking", identity_of(message.value))
        message.ack()
        self.say("acked", identity_of(message.value))

    def nack(self, message: segq.Message, **later: float) -> None:
        self.say("nacking", identity_of(message.value))
        message.nack(**later)

    def reject(self, message: segq.Message) -> None:
        """It has to be found among the dead letters afterwards."""
        self.say("rejecting", identity_of(message.value))
        message.reject("on purpose")
        self.say("rejected", identity_of(message.value))

    def last_nack(self, message: segq.Message) -> None:
        """The one after which the queue gives the item up."""
        self.say("rejecting", identity_of(message.value))
        message.nack()
        self.say("rejected", identity_of(message.value))

    def end(self) -> None:
        """The last word of a process that was not killed."""
        self.say("ended")
        os.close(self._descriptor)


# --- reading the reports ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    what: str
    when: int
    ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Writing:
    """One put or put_many, and whether it returned (`stored`), raised (`failed`), or neither (killed in it)."""

    ids: tuple[str, ...]
    end: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """One time that an item was handed out. `again`: whether it had to be, may be, or must not be handed out after it."""

    identity: str
    number: int | None
    again: str


def events(path: str | os.PathLike[str]) -> list[Event]:
    """A line cut short by a kill says nothing: what it was to report is as if the kill had come a moment before."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        return []
    lines = [line.split() for line in text.split("\n")[:-1]]
    return [Event(words[0], int(words[1]), tuple(words[2:])) for words in lines]


class Ledger:
    """What all reports say together."""

    def __init__(self, reports: Iterable[str | os.PathLike[str]], letters: Iterable[str] = ()) -> None:
        """`letters`: the ids of what is among the dead letters now."""
        self.letters = list(letters)
        self.writings: list[Writing] = []
        self.deliveries: list[Delivery] = []
        self.taken_unseen = 0  # items that killed consumers may have got without being able to say so
        self.kills = 0
        self.rejected: set[str] = set()
        self.rejecting: set[str] = set()  # when their holder died
        for report in reports:
            self._read(events(report))

    def _read(self, said: list[Event]) -> None:
        killed = not said or said[-1].what != "ended"
        self.kills += killed
        begun: tuple[str, ...] | None = None
        getting = 0
        hands: dict[str, tuple[int, str]] = {}
        for event in said:
            match event.what:
                case "begun":
                    begun = event.ids
                case "stored" | "failed":
                    self.writings.append(Writing(event.ids, event.what))
                    begun = None
                case "getting":
                    getting = int(event.ids[0])
                case "got":
                    self.deliveries += [Delivery(identity, None, "never") for identity in event.ids]
                    getting = 0
                case "received":
                    for text in event.ids:
                        identity, _, number = text.rpartition("#")
                        hands[identity] = (int(number), "must")  # neither acked nor given back yet: it has to come again
                case "acking" | "rejecting":
                    hands[event.ids[0]] = (hands[event.ids[0]][0], "may")
                    self.rejecting |= set(event.ids) if event.what == "rejecting" else set()
                case "rejected":
                    number, _ = hands.pop(event.ids[0])
                    self.deliveries.append(Delivery(event.ids[0], number, "never"))
                    self.rejected.add(event.ids[0])
                    self.rejecting.discard(event.ids[0])
                case "acked" | "nacking":
                    number, _ = hands.pop(event.ids[0])
                    self.deliveries.append(Delivery(event.ids[0], number, "never" if event.what == "acked" else "must"))
        self.deliveries += [Delivery(identity, number, again) for identity, (number, again) in hands.items()]
        if killed:
            self.taken_unseen += getting
            if begun is not None:
                self.writings.append(Writing(begun, None))

    def stored(self) -> set[str]:
        return {identity for writing in self.writings if writing.end == "stored" for identity in writing.ids}

    def possible(self) -> set[str]:
        return {identity for writing in self.writings if writing.end != "failed" for identity in writing.ids}

    def settled(self) -> set[str]:
        """What was delivered in a way after which it does not have to come again."""
        return {delivery.identity for delivery in self.deliveries if delivery.again != "must"}

    def missing(self) -> set[str]:
        return self.stored() - self.settled() - set(self.letters)

    def check(self) -> None:
        """Fails unless the account closes."""
        seen: defaultdict[str, list[Delivery]] = defaultdict(list)
        for delivery in self.deliveries:
            seen[delivery.identity].append(delivery)
        wrong = list(self._lost()) + list(self._invented(set(seen))) + list(self._torn(set(seen)))
        for identity, handed in seen.items():
            wrong += self._twice(identity, handed)
        wrong += list(self._given_up())
        assert not wrong, f"{len(wrong)} entries are wrong:\n" + "\n".join(wrong[:20])

    def _lost(self) -> Iterator[str]:
        missing = self.missing()
        if len(missing) > self.taken_unseen:
            yield f"lost, though acknowledged (of which {self.taken_unseen} may be excused): {sorted(missing)[:20]}"

    def _invented(self, seen: set[str]) -> Iterator[str]:
        gone = sorted(seen - self.possible())
        yield from (f"came out and was never put (or its put failed): {identity}" for identity in gone)

    def _torn(self, seen: set[str]) -> Iterator[str]:
        for writing in self.writings:
            there = [identity for identity in writing.ids if identity in seen]
            if writing.end is None and there and len(writing.ids) - len(there) > self.taken_unseen:
                yield f"half a put_many came out: {len(there)} of {len(writing.ids)}, {there[:3]}…"

    def _given_up(self) -> Iterator[str]:
        there = set(self.letters)
        acknowledged = {d.identity for d in self.deliveries if d.again == "never"} - self.rejected
        yield from (f"a dead letter twice: {each}" for each in sorted(there) if self.letters.count(each) > 1)
        yield from (f"rejected, and no dead letter: {each}" for each in sorted(self.rejected - there))
        yield from (f"lost on its way to the dead letters: {each}" for each in sorted(self.rejecting - there - acknowledged))
        yield from (f"acknowledged, and a dead letter as well: {each}" for each in sorted(there & acknowledged))
        yield from (f"a dead letter of what was never put: {each}" for each in sorted(there - self.possible()))

    def _twice(self, identity: str, handed: list[Delivery]) -> Iterator[str]:
        excused = sum(delivery.again != "never" for delivery in handed)
        if len(handed) > excused + 1:
            yield f"delivered {len(handed)} times, of which {excused} explain another: {handed}"
        for delivery in handed:
            if delivery.number is not None and not 1 <= delivery.number <= 1 + excused + self.kills:
                yield f"called delivery {delivery.number}: {handed}"


# --- closing it -------------------------------------------------------------------------------------------------------


def drain(queue: segq.Queue, report: Report, **waiting: Any) -> list[str]:
    """Everything there is, acknowledged; returns the ids delivered for the first time, in order."""
    first: list[str] = []
    while True:
        try:
            messages = report.receive(queue, 500, **(waiting or {"block": False}))
        except segq.Empty:
            if not queue.stats().delayed:
                return first
            waiting = {"timeout": 1}
            continue
        for message in messages:
            if message.deliveries == 1:
                first.append(identity_of(message.value))
            report.ack(message)


def letters(queue: segq.Queue) -> list[str]:
    """The ids of the dead letters of a queue."""
    return [identity_of(letter.value) for letter in queue.dead]


def check_order(ids: Iterable[str]) -> None:
    """Items of one producer handle come in the order put (guarantee G4)."""
    last: dict[str, tuple[int, str]] = {}
    for identity in ids:
        handle, number = origin(identity)
        before = last.get(handle)
        assert before is None or before[0] < number, f"{identity} came after {before[1] if before else None}"
        last[handle] = (number, identity)


def segments(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if name.startswith(SEGMENT_STATES))


def quarantined(path: Path) -> dict[str, str]:
    """What lies in quarantine, with the reason."""
    place = path / "quarantine"
    reasons = sorted(place.glob("*.reason")) if place.is_dir() else []
    return {reason.stem: reason.read_text() for reason in reasons}


def check_clean(path: Path) -> None:
    """Nothing is in quarantine, and `check` finds nothing wrong."""
    assert quarantined(path) == {}
    report = segq.check(path)
    assert all(problem.kind == "leftover" for problem in report.problems), report.problems  # that harms nobody, and goes:
    assert not report.problems or segq.check(path, fix=True).ok, report.problems


def close_account(path: Path, reports: Iterable[str | os.PathLike[str]], *, queue: segq.Queue | None = None) -> Ledger:
    """Drains the queue, closes it, and fails unless the account closes and the queue is empty, clean and works.

    `queue`: a handle that is open already; otherwise the queue is opened anew, everybody who used it being dead.
    """
    closing = Report(Path(path).parent / f"closing-{time.monotonic_ns()}.report")
    with queue or segq.Queue(path, create=False) as q:
        check_clean(path)
        check_order(drain(q, closing))
        assert q.qsize() == 0, q.stats()
        closing.end()
        ledger = Ledger([*reports, closing.path], letters(q))
        ledger.check()
        check_clean(path)
        q.put("the queue goes on")
        assert q.get(timeout=5) == "the queue goes on"
    check_clean(path)
    assert segments(path) == [], "segments are left though everything was acknowledged"
    with segq.Queue(path, create=False) as q:
        q.put_many(["again", "and again"])
        assert q.get_many(2, timeout=5) == ["again", "and again"]
    assert segments(path) == []
    return ledger


def until(condition: Callable[[], Any], seconds: float, what: str) -> float:
    """Returns after how many seconds the condition held; fails if it does not in time. Bounded polling, 5 ms apart."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.005)
    return time.monotonic() - begun
