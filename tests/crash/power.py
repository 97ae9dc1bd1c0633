"""Loss of power at any moment: `python power.py PLACE WORKLOAD SETTINGS POINTS STATES SEED [FIRST]`.

A workload runs under `tracing`. Around each of its system calls that bear on files, the queue's directory is looked at: names,
and the bytes of every file, which for mapped ones are those that the kernel would write. What each `fsync` and `fdatasync`
covers is noted when it is entered. From that, for any moment, states are made that the directory may be in after a loss of power:

* a file: what was synced last, or what it held since, or any mixture of both by pages or sectors (512 bytes), of the old length,
  the new one, or between; where the length was written and the data not, NULs. A file never synced may be empty.
* names of a directory: as they were at its last fsync, as they are, or as at any moment between (one directory's changes are kept
  in their order, those of two directories independently of each other; a rename is one change).
* an fsync covers the whole file, mapped pages included, and nothing else: not its name, not its directory. `msync` alone,
  `sync_file_range`, and syncing that the file system does for reasons of its own count for nothing.

What it does not cover: disks that lie about having written, sectors that are half written, changes of mapped pages between two
system calls that are undone before the second, and the order of the changes of one directory among each other.

Each state is then opened by a process that believes the machine was started anew; nothing that was acknowledged before that moment
may be missing, nothing may be there that was never put, and the queue has to go on. Prints the states that this is not true of.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import random
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from accounts import Ledger, check_order, identity_of, quarantined
from any_line import in_child
from topic_victim import TopicVictim, taken_by
from tracing import Tracer
from victim import Victim

import segq
import segq._core.directory.owners
import segq._core.put.producer

PAGE, SECTOR = 4096, 512
PATIENCE = 60  # seconds for one recovery
LABELS = ("mail", "log")
LOOKED_AT = {
    "write", "pwrite64", "writev", "pwritev", "flock", "fsync", "fdatasync", "truncate", "ftruncate", "rename", "renameat",
    "renameat2", "mkdir", "mkdirat", "rmdir", "link", "unlink", "unlinkat", "fallocate", "open", "openat",
}  # fmt: skip


# --- what a disk holds, and may hold after the power was lost ---------------------------------------------------------


class Bytes(NamedTuple):
    """A file's contents, in pages that are kept once however often they occur."""

    size: int
    pages: tuple[bytes, ...]


EMPTY = Bytes(0, ())


@dataclasses.dataclass(slots=True)
class History:
    """A file's contents or a directory's entries: as they were at the last fsync, and what they have been since."""

    synced: Any
    since: list[Any]

    def now(self) -> Any:
        return self.since[-1] if self.since else self.synced

    def became(self, what: Any) -> None:
        if what != self.now():
            self.since = [*self.since, what]

    def was_synced(self, what: Any) -> None:
        """`what` it was when the fsync began: what came meanwhile may not be covered."""
        now = self.now()
        self.synced, self.since = what, []
        self.became(now)

    def copy(self) -> History:
        return History(self.synced, self.since)


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """All that is known of the disk at one point, and how much had been reported by then."""

    number: int
    call: str
    root: int
    files: dict[int, History]
    directories: dict[int, History]
    said: dict[str, int]


class Recorder(Tracer):
    """Keeps the history of everything below `root`. `reports`: where the victim's reports are."""

    def __init__(self, root: Path, reports: Path, *, unread: frozenset[str] = frozenset()) -> None:
        """`unread`: names of files that nobody reads, and that are left out."""
        self.root, self.reports, self.unread = root, reports, unread
        self.moments: list[Moment] = []
        self.calls: Counter[str] = Counter()
        self._pages: dict[bytes, bytes] = {}
        self._last: dict[int, bytes] = {}
        self._files: dict[int, History] = {}
        self._directories: dict[int, History] = {}
        self._held: dict[int, int] = {}  # each inode is held open, so that its number is not given to another
        self._syncing: dict[int, tuple[int, Any]] = {}
        self._about: dict[int, str] = {}
        self._look()
        for history in (*self._files.values(), *self._directories.values()):
            history.was_synced(history.now())  # what was there before

    def entered(self, thread: int, call: str, args: list[int]) -> None:
        self._about[thread] = call
        if call in ("fsync", "fdatasync"):
            try:
                number = os.stat(f"/proc/{thread}/fd/{args[0]}").st_ino
            except OSError:
                return
            self._look()
            history = self._files.get(number) or self._directories.get(number)
            if history is not None:
                self._syncing[thread] = (number, history.now())

    def left(self, thread: int, call: str, result: int) -> None:
        synced = self._syncing.pop(thread, None)
        if result < 0 or call not in LOOKED_AT:
            return
        if synced is not None:
            (self._files.get(synced[0]) or self._directories[synced[0]]).was_synced(synced[1])
            self.calls["fsync"] += 1
        changed = self._look()
        if changed or synced is not None:
            self.calls[call] += 1
            self._note(call)

    def _note(self, call: str) -> None:
        self.moments.append(
            Moment(
                number=len(self.moments),
                call=call,
                root=self.root.stat().st_ino,
                files={number: history.copy() for number, history in self._files.items()},
                directories={number: history.copy() for number, history in self._directories.items()},
                said={path.name: path.stat().st_size for path in self.reports.glob("*.report")},
            )
        )

    def _look(self) -> bool:
        """Takes in what has changed; whether anything (or what was reported) has."""
        before = sum(len(history.since) for history in (*self._files.values(), *self._directories.values()))
        said = sum(path.stat().st_size for path in self.reports.glob("*.report"))
        self._look_into(str(self.root))
        after = sum(len(history.since) for history in (*self._files.values(), *self._directories.values()))
        changed = before != after or said != getattr(self, "_said", -1)
        self._said = said
        return changed

    def _look_into(self, path: str) -> None:
        try:
            number = self._hold(path)
            entries: dict[str, int] = {}
            for name in sorted(set(os.listdir(path)) - self.unread):
                place = os.path.join(path, name)
                status = os.lstat(place)
                entries[name] = status.st_ino
                if stat.S_ISDIR(status.st_mode):
                    self._look_into(place)
                elif stat.S_ISREG(status.st_mode):
                    self._hold(place, os.O_RDONLY)
                    contents = self._contents(status.st_ino, status.st_size)
                    if contents is not None:
                        self._files.setdefault(status.st_ino, History(EMPTY, [])).became(contents)
        except FileNotFoundError:  # another thread is quicker than we are; we look again at its next call
            return
        self._directories.setdefault(number, History({}, [])).became(entries)

    def _hold(self, path: str, access: int = os.O_PATH) -> int:
        number = os.lstat(path).st_ino
        if number not in self._held:
            self._held[number] = os.open(path, access | os.O_NOFOLLOW)
        return number

    def _contents(self, number: int, size: int) -> Bytes | None:
        """None if nothing has changed since the last look."""
        data = os.pread(self._held[number], size, 0)
        if data == self._last.get(number):
            return None
        self._last[number] = data
        pages = (data[at : at + PAGE] for at in range(0, len(data), PAGE))
        return Bytes(len(data), tuple(self._pages.setdefault(page, page) for page in pages))


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """How what was not synced fares: `names` and `data` are each "old", "new" or "mixed"; data also "nul"."""

    names: str
    data: str

    def __str__(self) -> str:
        return f"names {self.names}, data {self.data}"


LOSSES = [
    Loss("old", "old"), Loss("new", "old"), Loss("new", "nul"), Loss("new", "mixed"), Loss("mixed", "mixed"),
    Loss("old", "new"), Loss("new", "new"), Loss("mixed", "nul"), Loss("mixed", "new"), Loss("old", "mixed"),
]  # fmt: skip


class Disk:
    """One state that the disk may be in after the loss."""

    def __init__(self, moment: Moment, loss: Loss, seed: str) -> None:
        self._moment, self._loss, self._chance = moment, loss, random.Random(seed)

    def make(self, place: Path) -> None:
        place.mkdir()
        self._make(self._moment.root, str(place), set())

    def _make(self, directory: int, path: str, placed: set[int]) -> None:
        for name, number in self._entries(self._moment.directories[directory]).items():
            place = os.path.join(path, name)
            if number in self._moment.directories:
                if number not in placed:  # moved between two directories, of which both may have it: a file system keeps one
                    placed.add(number)
                    os.mkdir(place, 0o700)
                    self._make(number, place, placed)
            elif number in self._moment.files:
                write(place, self._data(self._moment.files[number]))

    def _entries(self, history: History) -> dict[str, int]:
        match self._loss.names:
            case "old":
                return history.synced
            case "new":
                return history.now()
        return self._chance.choice([history.synced, *history.since])

    def _data(self, history: History) -> bytes:
        if not history.since or self._loss.data == "new":
            return b"".join(history.now().pages)
        old = b"".join(history.synced.pages)
        match self._loss.data:
            case "old":
                return old
            case "nul":
                return old.ljust(history.now().size, b"\0")[: history.now().size]
        return self._mixed(history)

    def _mixed(self, history: History) -> bytes:
        held = [history.synced, *history.since]
        versions = [b"".join(each.pages) for each in (held if len(held) <= 4 else [held[0], *self._chance.sample(held, 3)])]
        sizes = [len(version) for version in versions]
        size = self._chance.choice([*sizes, self._chance.randint(min(sizes), max(sizes))])
        unit, stays = self._chance.choice([SECTOR, PAGE]), self._chance.choice([0.1, 0.5, 0.9])
        versions = [version.ljust(size, b"\0")[:size] for version in versions]
        data = bytearray(versions[0])
        for at in range(0, size, unit):
            if self._chance.random() > stays:
                data[at : at + unit] = self._chance.choice(versions)[at : at + unit]
        return bytes(data)


def write(path: str, data: bytes) -> None:
    """With holes where there is nothing, so that large empty files cost nothing."""
    with open(path, "wb") as file:
        for at in range(0, len(data), PAGE):
            page = data[at : at + PAGE]
            if page.strip(b"\0"):
                file.seek(at)
                file.write(page)
        file.truncate(len(data))
    os.chmod(path, 0o600)


# --- what runs while the power fails ----------------------------------------------------------------------------------


def producing(victim: Victim) -> None:
    """Puts of all kinds into small segments; handles opened and closed, which resume each other's segments."""
    for round_ in range(3):
        victim.put(5)
        victim.put_many(4, 300)
        victim.put(1, 50_000)
        victim.put_many(9)
        victim.put(3)
        if round_ < 2:
            victim.close()
            victim.open()


def working(victim: Victim) -> None:
    """Puts, and takes some of it in all ways, so that segments are begun, finished and removed."""
    for _ in range(3):
        victim.put(6)
        victim.put_many(5, 200)
        victim.report.get(victim.queue, timeout=5)
        messages = victim.report.receive(victim.queue, 5, timeout=5)
        for message in messages[:3]:
            victim.report.ack(message)
        victim.report.nack(messages[3])
        victim.put(4)
        victim.report.ack(messages[4])
    for message in victim.report.receive(victim.queue, 6, timeout=5)[2:]:
        victim.report.ack(message)


def returning(victim: Victim) -> None:
    """After a loss of power: has found what a dead process left, takes some of it and puts more."""
    for message in victim.report.receive(victim.queue, 4, timeout=5)[:2]:
        victim.report.ack(message)
    victim.put(3)
    victim.put_many(5)
    victim.report.get(victim.queue, timeout=5)


def spreading(victim: Victim) -> None:
    """A topic: puts before there is a label and after; the labels are at different places."""
    assert isinstance(victim, TopicVictim)
    victim.put(4)
    for label in LABELS:
        victim.subscribe(label)
        victim.put(3)
        victim.put_many(4, 100)
    for _ in range(2):
        for subscription, report in victim.each():
            report.get(subscription, timeout=5)
            for message in report.receive(subscription, 6, timeout=5)[:4]:
                report.ack(message)
        victim.put_many(7)
        victim.put(2)
    subscription, report = next(victim.each())
    for message in report.receive(subscription, 14, timeout=5):
        report.ack(message)


WORKLOADS: dict[str, Callable[[Victim], None]] = {f.__name__: f for f in (producing, working, returning, spreading)}
SETTINGS: dict[str, dict[str, Any]] = {
    "power": {"durability": "power", "segment_items": 16},
    "power-limited": {"durability": "power", "segment_items": 16, "capacity": 500, "max_bytes": 4_000_000, "lease": 3600.0},
    "process": {"segment_items": 16},
    "process-large": {},
    "power-expiring": {"durability": "power", "segment_items": 16, "ttl": 3600.0},
}


# --- the time after ---------------------------------------------------------------------------------------------------


def start_anew(boot: int) -> None:
    """This process believes that the machine was started again."""
    for module in (segq._core.directory.owners, segq._core.put.producer):
        module.boot_epoch = lambda: boot  # type: ignore[attr-defined]


class Told(logging.Handler):
    """What segq said by its log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        logging.getLogger("segq").addHandler(self)
        logging.getLogger("segq").propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Aftermath:
    """One state of the disk, opened with the real code.

    `strict`: nothing acknowledged may be missing. That is so with durability="power", and, if the kernel had written all (an
    orderly end of the machine with the processes killed), with "process" as well; else what is left has to be what was put.
    """

    def __init__(self, place: Path, settings: dict[str, Any], kind: str, loss: Loss) -> None:
        self.path, self.reports, self.settings, self.kind = place / "disk" / "queue", place / "reports", settings, kind
        self.strict = settings.get("durability") == "power" or loss == Loss("new", "new")
        self.told = Told()
        self.bytes = 0  # of what came out

    def check(self) -> None:
        """Raises if something acknowledged is missing, or anything else is not as it should be."""
        start_anew(7)
        put = [path for path in self.reports.glob("*.report") if "@" not in path.name]
        if self.kind == "topic":
            self._topic(put)
        else:
            with segq.Queue(self.path, **self.settings) as queue:
                stored = queue.stats().bytes
                self._account(Ledger(put), list(self._drained(queue)))
                assert stored is None or stored == self.bytes, f"{stored} bytes were counted, {self.bytes} came out"
                queue.put("on it goes")
                assert queue.get(timeout=5) == "on it goes"
                assert queue.qsize() == 0, queue.stats()
        report = segq.check(self.path)
        assert report.ok, report.problems
        with segq.Queue(self.path) if self.kind == "queue" else segq.Topic(self.path) as queue:
            queue.put_many(["again", "and again"])

    def _topic(self, put: list[Path]) -> None:
        made = {label: taken_by(self.reports / "victim.report", label) for label in LABELS}
        with segq.Topic(self.path, **self.settings) as topic, contextlib.ExitStack() as stack:
            if self.strict:  # a label that got something was there, so it has to be there
                gone = {label for label in LABELS if made[label].exists() and made[label].stat().st_size} - set(topic.labels())
                assert not gone, f"labels are gone: {gone}"
            subscriptions = [stack.enter_context(segq.Subscription(self.path, label)) for label in LABELS]
            for subscription in subscriptions:
                taken = [path for path in [made[subscription.label]] if path.exists()]
                try:
                    self._account(Ledger([*put, *taken]), list(self._drained(subscription)))
                except AssertionError as error:
                    error.add_note(f"label {subscription.label!r}: {subscription.stats()}")
                    raise
            topic.put("on it goes")
            for subscription in subscriptions:
                assert subscription.get(timeout=5) == "on it goes"
            assert topic.qsize() == 0, topic.stats()

    def _drained(self, queue: Any) -> Iterator[str]:
        """Everything there is, acknowledged."""
        while True:
            try:
                messages = queue.receive_many(500, timeout=0.02)
            except segq.Empty:
                return
            for message in messages:
                message.ack()
                self.bytes += len(msgspec.msgpack.encode(message.value))
                try:
                    yield identity_of(message.value)
                except (AssertionError, TypeError, IndexError, ValueError):
                    if self.strict:
                        raise
                    # With "process", what is in the open batch has no checksum: an item of which pages were written and others not.

    def _account(self, ledger: Ledger, found: list[str]) -> None:
        possible = {identity for writing in ledger.writings for identity in writing.ids if writing.end != "failed"}
        invented = set(found) - possible
        assert not invented, f"never put: {sorted(invented)}"
        missing = ledger.missing() - set(found)
        if self.strict:
            assert len(missing) <= ledger.taken_unseen, f"lost: {sorted(missing)}"
            check_order(found)
            assert len(found) == len(set(found)), f"handed out twice: {sorted(k for k, n in Counter(found).items() if n > 1)}"
            had = {delivery.identity for delivery in ledger.deliveries} | set(found)
            for writing in ledger.writings:
                there = [identity for identity in writing.ids if identity in had]
                half = there and len(writing.ids) - len(there) > ledger.taken_unseen
                assert not half, f"half a put_many: {there} of {writing.ids}"


# --- all of it --------------------------------------------------------------------------------------------------------


class Experiment:
    """One workload, recorded, and the states that follow from it."""

    def __init__(self, place: Path, workload: str, settings: str, seed: int) -> None:
        self.place, self.workload, self.settings, self.seed = place, workload, SETTINGS[settings], seed
        self.kind = "topic" if workload == "spreading" else "queue"
        self.disk, self.reports = place / "disk", place / "reports"
        for directory in (self.disk, self.reports):
            directory.mkdir(parents=True)
        self.recorder: Recorder | None = None

    def record(self) -> list[Moment]:
        if self.workload == "returning":
            code = in_child(self._before)
            assert code == -signal.SIGKILL, f"what comes before ended with {code}"
        self.recorder = recorder = Recorder(self.disk, self.reports)
        code = recorder.run(self._work)
        assert code == 0, f"the workload ended with {code}"
        return recorder.moments

    def _victim(self, name: str) -> Victim:
        path, report = str(self.disk / "queue"), str(self.reports / f"{name}.report")
        if self.kind == "topic":
            return TopicVictim(path, report, {"topic": self.settings})
        return Victim(path, report, self.settings)

    def _before(self) -> None:
        start_anew(5)
        victim = self._victim("before")
        working(victim)
        os.kill(os.getpid(), signal.SIGKILL)

    def _work(self) -> None:
        start_anew(6)
        victim = self._victim("victim")
        WORKLOADS[self.workload](victim)
        victim.close()
        # no `end`: whatever was reported, the process was not there any more when the power was back

    def failures(self, moments: Iterable[Moment], losses: int) -> Iterator[str]:
        """The states that were not survived, with what was wrong."""
        for moment in moments:
            for n in range(losses):
                loss = LOSSES[(moment.number + n) % len(LOSSES)]
                place = self.place / f"{moment.number}-{n}"
                wrong = self._try(moment, loss, place)
                if wrong:
                    yield f"power lost after {moment.number} ({moment.call}), {loss}: {place}\n{wrong}"
                else:
                    shutil.rmtree(place)

    def _try(self, moment: Moment, loss: Loss, place: Path) -> str:
        place.mkdir()
        Disk(moment, loss, f"{self.seed}/{moment.number}/{loss}").make(place / "disk")
        reports = place / "reports"
        reports.mkdir()
        for name in os.listdir(self.reports):
            said = (self.reports / name).read_bytes()
            (reports / name).write_bytes(said[: moment.said.get(name, 0)])
        note = place / "wrong"
        code = in_child(lambda: self._check(place, loss, note))
        if code == 0:
            return ""
        text = note.read_text() if note.exists() else ""
        return f"{text}(recovery ended with {code})"

    def _check(self, place: Path, loss: Loss, note: Path) -> None:
        signal.alarm(PATIENCE)
        aftermath = Aftermath(place, self.settings, self.kind, loss)
        try:
            aftermath.check()
        except BaseException:
            note.write_text(f"{traceback.format_exc()}{aftermath.told.lines}\n{quarantined(aftermath.path)}\n")
            os._exit(1)


def sample(moments: list[Moment], points: int, seed: int) -> list[Moment]:
    """All of them, or so many, of which no two neighbours are far apart."""
    if not points or points >= len(moments):
        return moments
    chance = random.Random(seed)
    step = len(moments) / points
    return [moments[min(len(moments) - 1, int(step * (n + chance.random())))] for n in range(points)]


def main(place: str, workload: str, settings: str, points: str, states: str, seed: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    begun = time.monotonic()
    experiment = Experiment(Path(place), workload, settings, int(seed))
    moments = experiment.record()
    recorded = time.monotonic() - begun
    assert experiment.recorder is not None
    found = tried = 0
    chosen = sample(moments, int(points), int(seed))
    for text in experiment.failures(chosen, int(states)):
        found += 1
        print(text, flush=True)
        if found >= 30:
            break
    tried = len(chosen) * int(states)
    calls = dict(experiment.recorder.calls)
    facts = {"moments": len(moments), "chosen": len(chosen), "states": tried, "calls": calls, "recorded": round(recorded, 2)}
    print(json.dumps(facts | {"seconds": round(time.monotonic() - begun, 1)}), flush=True)
    sys.exit(f"{found} states were not survived (seed {seed})" if found else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
