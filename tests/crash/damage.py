"""Damages a queue's or a topic's directory in one way after the other: `python damage.py TEMPLATE PLACE KIND SEED [CASE…]`.

A *case* is `state:target:how:number`: which segment (or `queue` for what belongs to none), which of its files, what is done to
it, and the number that, with the seed, decides where. The template is made once by `build`, which leaves two segments in each
state a segment can be found in: `ready`, `chosen` (half consumed, some in the hands of a process that was killed), `loading` (its
producer was killed). Of two, one is damaged. Each case works on a copy, and prints what is not as it should be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from accounts import ROOT, identity_of, item, item_id, origin, segments

import segq

HANG = 90  # seconds after which a case hangs, on a machine however busy
MEMORY = 3 << 30  # bytes of address space that a case may take beyond what the process has
SETTINGS: dict[str, Any] = {"segment_items": 40}
LABELS = ("one", "two")
OWN = "own"  # what the process that looks puts itself
IDS = {
    name: [item_id(name, n, size) for n, size in enumerate([30_000] * 9 + [0] * 6 + [40_000] * 2 + [30_000] * 9 + [10] * 4)]
    for name in ("chosen0", "chosen1", "ready0", "ready1", "loading0", "loading1")
}
ACKED, HELD = 8, 3  # of each chosen segment (for the first label)


# --- the template -----------------------------------------------------------------------------------------------------


def opened(path: Path, kind: str) -> Any:
    return segq.Topic(path, **SETTINGS) if kind == "topic" else segq.Queue(path, **SETTINGS)


def put_all(handle: Any, name: str) -> None:
    """A segment with two blocks, items in the blob, and something in the open batch."""
    values = [item(identity) for identity in IDS[name]]
    handle.put_many(values[:9])
    for value in values[9:17]:
        handle.put(value)
    handle.put_many(values[17:26])
    for value in values[26:]:
        handle.put(value)


def take_some(taker: Any, acked: int, held: int) -> list[segq.Message]:
    messages = taker.receive_many(1000, timeout=5)
    hands = []
    for message in messages:
        _, number = origin(identity_of(message.value))
        if number < acked:
            message.ack()
        elif number < acked + held:
            hands.append(message)
        else:
            message.nack()
    return hands


def actor(path: str, kind: str, part: str) -> None:
    """A process that is to be killed: says when it has done its part."""
    if part.startswith("loading"):
        keep = opened(Path(path), kind)
        put_all(keep, part)
    elif kind == "queue":
        queue = segq.Queue(path)
        keep = [queue, take_some(queue, ACKED, HELD)]
    else:
        takers = [segq.Subscription(path, label) for label in LABELS]
        keep = [takers, take_some(takers[0], ACKED, HELD), take_some(takers[1], 2, 0)]
    print("ready", flush=True)
    signal.pause()
    del keep


def build(path: Path, kind: str) -> None:
    with opened(path, kind):
        for label in LABELS if kind == "topic" else ():
            segq.Subscription(path, label).close()
    actors = []

    def begin(part: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, "actor", str(path), kind, part]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        actors.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    try:
        for name in ("chosen0", "chosen1"):
            with opened(path, kind) as handle:
                put_all(handle, name)
        begin("taker")
        for name in ("ready0", "ready1"):
            with opened(path, kind) as handle:
                put_all(handle, name)
        begin("loading0")
        begin("loading1")
    finally:
        for process in actors:
            process.kill()
            process.communicate()
    assert [name.partition("_")[0] for name in segments(path)] == ["chosen"] * 2 + ["loading"] * 2 + ["ready"] * 2


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    state: str  # chosen, ready, loading: damaged while nobody has it open; live: while a producer appends to it; queue
    target: str
    how: str
    number: int

    def __str__(self) -> str:
        return f"{self.state}:{self.target}:{self.how}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Case:
        state, target, how, number = text.split(":")
        return cls(state, target, how, int(number))


IN_PLACE = ("flip", "flips", "zeros", "noise", "pages", "nul", "random")  # the file keeps its size
SIZES = ("cut", "empty", "longer")
REPLACED = ("gone", "directory", "link", "dangling", "fifo", "socket", "device", "other")
HOWS = IN_PLACE + SIZES + REPLACED
OF_DIRECTORY = ("gone", "emptied", "file", "linked")
ROCKSDB = ("log", "MANIFEST", "CURRENT", "OPTIONS", "IDENTITY", "LOCK", "rocksdict-config.json")
SEGMENT = ("ledger", "blob", *ROCKSDB)


def every_case(kind: str, numbers: int) -> list[Case]:
    """`numbers` offsets for each kind of damage that depends on one."""
    places = [(state, target) for state in ("chosen", "ready", "loading") for target in SEGMENT]
    places += [("loading", "batch"), ("queue", "index"), ("queue", "queue.json"), ("queue", "queue.lock"), ("queue", "owner")]
    places += [("live", target) for target in ("ledger", "batch", "blob", "log", "index", "CURRENT", "owner")]
    if kind == "topic":
        places += [("chosen", "label-ledger"), ("queue", "label")]
    found = []
    for state, target in places:
        for how in HOWS:
            if state == "live" and how in SIZES:
                continue
            found += [Case(state, target, how, number) for number in range(numbers if how in (*IN_PLACE[:5], "cut") else 1)]
    found += [Case(state, "directory", how, 0) for state in ("chosen", "ready", "loading") for how in OF_DIRECTORY]
    directories = ("owners", "quarantine", *(("labels",) if kind == "topic" else ()))
    found += [Case("queue", directory, how, 0) for directory in directories for how in OF_DIRECTORY]
    return found


def place_of(path: Path, case: Case) -> Path:
    """What is damaged; the directory for `directory`."""
    if case.state == "queue" or case.target in ("index", "owner"):
        if case.target == "owner":
            return min((path / "owners").glob("[0-9][0-9][0-9][0-9]"))
        if case.target == "label":
            return path / "labels" / LABELS[0]
        return path / case.target
    # the own live producer's is the youngest
    of_state = [path / name for name in segments(path) if name.startswith(case.state.replace("live", "loading"))]
    place = of_state[-1 if case.state == "live" else 0]
    if case.target == "directory":
        return place
    if case.target == "label-ledger":
        return min(place.glob("ledger.*"))
    pattern = {"log": "*.log", "MANIFEST": "MANIFEST-*", "OPTIONS": "OPTIONS-*"}.get(case.target, case.target)
    found = sorted(place.glob(pattern))
    return found[-1] if found else place / case.target


def inflict(place: Path, case: Case, outside: Path, rng: random.Random) -> None:
    """Does it. What the queue's files lead to outside of its directory is in `outside` afterwards."""
    how, is_directory = case.how, place.is_dir() or case.how in OF_DIRECTORY
    if how in IN_PLACE:
        scribble(place, how, rng)
        return
    data = place.read_bytes() if place.is_file() else b""
    if how in SIZES:
        os.truncate(place, {"cut": rng.randrange(len(data) + 1), "empty": 0, "longer": len(data) + rng.randrange(1, 9999)}[how])
        return
    aside = outside / place.name
    if place.exists():
        place.rename(aside)
    match how:
        case "gone":
            shutil.rmtree(aside, ignore_errors=True)
            aside.unlink(missing_ok=True) if not is_directory else None
        case "emptied" | "directory":
            place.mkdir()
        case "file":
            place.write_bytes(b"nonsense")
        case "link" | "linked":
            place.symlink_to(aside)
        case "dangling":
            place.symlink_to(outside / "nothing")
        case "fifo":
            os.mkfifo(place)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(place.parent):
                server.bind(place.name)
        case "device":
            place.symlink_to("/dev/zero")  # making a node takes privileges; led to one is as bad
        case "other":
            place.write_bytes((outside.parent / "template" / "queue.json").read_bytes() * 50)
        case _:
            raise AssertionError(how)


def scribble(place: Path, how: str, rng: random.Random) -> None:
    size = place.stat().st_size if place.exists() else 0
    with place.open("r+b" if place.exists() else "w+b") as file:
        if how in ("nul", "random"):
            file.write(rng.randbytes(size) if how == "random" else bytes(size))
            return
        spots = {"flip": 1, "flips": 30}.get(how, 1)
        for _ in range(spots):
            # half of them in the beginning, where headers are
            begin = rng.randrange(max(1, min(size, 512) if rng.random() < 0.5 else size))
            length = {"zeros": rng.randrange(1, 600), "noise": rng.randrange(1, 600), "pages": 4096}.get(how, 1)
            if how == "pages":
                begin -= begin % 4096
            length = min(length, size - begin)
            file.seek(begin)
            before = file.read(length)
            file.seek(begin)
            match how:
                case "flip" | "flips":
                    file.write(bytes(byte ^ (1 << rng.randrange(8)) for byte in before))
                case "zeros" | "pages":
                    file.write(bytes(length))
                case "noise":
                    file.write(rng.randbytes(length))


# --- what has to be true afterwards -----------------------------------------------------------------------------------

UNCHECKED = {("loading", "batch"), ("loading", "blob"), ("live", "batch"), ("live", "blob")}
"""What has no checksum yet: the open batch, and large items that nothing but the open batch refers to."""


class Wrong(AssertionError):
    """Something is not as it should be after a damage."""


def demand(condition: object, what: str) -> None:
    if not condition:
        raise Wrong(what)


class Survey:
    """What comes out of a damaged directory."""

    def __init__(self, path: Path, kind: str, case: Case) -> None:
        self.path, self.kind, self.case = path, kind, case
        self.altered = self.missing = 0
        self.damaged = f"{case.state}0" if case.state in ("chosen", "ready", "loading") else ""

    def drain(self, taker: Any, found: list[str], *, once: bool = True) -> None:
        """Takes all there is; what it got is in `found` also if it raises."""
        while True:
            try:
                messages = taker.receive_many(500, timeout=0.02)
            except segq.Empty:
                return
            for message in messages:
                try:
                    found.append(identity_of(message.value))
                except (AssertionError, TypeError, ValueError, IndexError):
                    self.altered += 1
                    demand((self.case.state, self.case.target) in UNCHECKED, f"handed out altered: {message.value!r:.200}")
                message.ack()
            if once:
                demand(len(found) == len(set(found)), f"delivered twice: {sorted(i for i in found if found.count(i) > 1)[:5]}")

    def judge(self, found: list[str], begun: int) -> None:
        """`begun`: how many of each chosen segment were acknowledged before."""
        everything = {identity for ids in IDS.values() for identity in ids}
        invented = [identity for identity in found if identity not in everything and not identity.startswith(OWN)]
        demand(not invented, f"nobody put {invented[:5]}")
        missing: dict[str, list[str]] = {}
        for name, ids in IDS.items():
            expected = ids[begun:] if name.startswith("chosen") else ids
            lost = sorted(set(expected) - set(found))
            if lost:
                missing[name] = lost
            if (
                name != self.damaged
                and name.startswith("chosen")
                and self.case.target not in ("label", "labels", "label-ledger")
            ):
                demand(not set(ids[:begun]) & set(found), f"items of {name} were delivered again")
        demand(set(missing) <= {self.damaged}, f"lost of other segments: { {n: len(m) for n, m in missing.items()} }")
        if self.whole_again():
            demand(not missing, f"a lost ledger is no reason to lose items: {missing}")
        self.missing = len(missing.get(self.damaged, ()))

    def find_trace(self) -> None:
        """When all labels are done: what did not come out was set aside, unless it went with what was done to the directory."""
        if self.missing and not self.excused():
            place = self.path / "quarantine"
            set_aside = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else []
            gone = self.case.target == "directory" or self.missing == self.altered
            demand(gone or set_aside, f"{self.missing} items are gone without a trace")

    def excused(self) -> bool:
        """A state byte that was changed says what it says: `done`, for example."""
        return "ledger" in self.case.target and self.case.how in IN_PLACE[:5]

    def whole_again(self) -> bool:
        """Whether the file is one that can be made anew without losing an item."""
        case = self.case
        if case.how in IN_PLACE[:5]:
            return case.target in ("index", "owner", "queue.lock", "queue.json", "label")
        if case.target == "ledger":
            return case.state in ("chosen", "ready") and case.how != "longer"
        return case.target in (
            "index",
            "owner",
            "owners",
            "label",
            "labels",
            "label-ledger",
            "queue.lock",
            "queue.json",
            "quarantine",
        )


def contents(path: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for root, directories, files in os.walk(path):
        for name in directories + files:
            place = Path(root, name)
            status = place.lstat()
            data = place.read_bytes() if place.is_file() and not place.is_symlink() else b""
            found[str(place.relative_to(path))] = (status.st_mode, data)
    return found


def takers_of(path: Path, kind: str) -> list[Callable[[], Any]]:
    if kind == "queue":
        return [lambda: segq.Queue(path, create=False)]
    return [lambda label=label: segq.Subscription(path, label) for label in LABELS]


def survive(path: Path, kind: str, case: Case, before: dict[str, tuple[int, bytes]]) -> None:
    """Everything that has to be true of a directory that was damaged while nobody had it open."""
    try:
        with contextlib.suppress(segq.QueueError):
            segq.check(path)  # a look must not fail in another way
        with opened(path, kind):
            pass
    except segq.QueueError as error:
        demand(case.state == "queue", f"cannot be opened: {error!r}")
        demand(case.target in ("queue.json", "queue.lock", "owners", "labels", "quarantine"), f"cannot be opened: {error!r}")
        demand(str(path) in str(error), f"does not say where: {error!r}")
        after = contents(path)
        changed = {name for name in before | after if before.get(name) != after.get(name)} - {"queue.lock"}
        demand(not changed, f"refused ({error}), and yet changed: {sorted(changed)}")
        return
    surveys = []
    with contextlib.ExitStack() as stack:
        consumers = [stack.enter_context(taker()) for taker in takers_of(path, kind)]  # a label that is lost begins here
        for consumer, begun in zip(consumers, (ACKED, 2), strict=False):
            surveys.append(survey := Survey(path, kind, case))
            found: list[str] = []
            survey.drain(consumer, found)
            survey.judge(found, begun)
            demand(consumer.qsize() == 0, f"{consumer.qsize()} are said to wait")
    goes_on(path, kind)
    for survey in surveys:
        survey.find_trace()
    report = segq.check(path, fix=True)
    problems = [problem for problem in segq.check(path).problems if problem.kind != "foreign"]
    demand(not problems, f"still wrong: {problems}; before: {report.problems}")
    goes_on(path, kind)
    left = segments(path)
    demand(not left, f"left: {left}")


def goes_on(path: Path, kind: str) -> None:
    with opened(path, kind) as handle, contextlib.ExitStack() as stack:
        takers = [stack.enter_context(taker()) for taker in takers_of(path, kind)]
        handle.put("one more")
        for taker in takers:
            demand((value := taker.get(timeout=20)) == "one more", f"came out in the place of what was put: {value!r:.100}")
        handle.put_many([b"x" * 30_000] * 10)
        for taker in takers:
            demand(taker.get_many(10, timeout=20) == [b"x" * 30_000] * 10, "what was put now came out otherwise")


def survive_live(path: Path, kind: str, case: Case, outside: Path, rng: random.Random) -> None:
    """A producer and consumers are at work while it happens: what they raise is segq's, and what others hold comes out."""
    survey = Survey(path, kind, case)
    handle = opened(path, kind)
    takers = [taker() for taker in takers_of(path, kind)]
    found: list[list[str]] = [[] for _ in takers]
    number = 0

    def put(count: int, size: int, *, many: bool = False) -> None:
        nonlocal number
        ids = [item_id(OWN, number + n, size) for n in range(count)]
        number += count
        with contextlib.suppress(segq.QueueError):
            if many:
                handle.put_many([item(identity) for identity in ids])
            else:
                for identity in ids:
                    handle.put(item(identity))

    put(9, 30_000, many=True)
    put(5, 10)
    put(1, 40_000)
    for taker, ids in zip(takers, found, strict=True):
        for message in taker.receive_many(20, timeout=5):
            ids.append(identity_of(message.value))
            message.ack()
    inflict(place_of(path, case), case, outside, rng)
    for _ in range(3):
        put(4, 10)
        put(1, 40_000)
        put(9, 30_000, many=True)
        for taker, ids in zip(takers, found, strict=True):
            for _attempt in range(3):
                try:
                    survey.drain(taker, ids, once=False)
                    break
                except segq.QueueError:
                    continue
    for each in (handle, *takers):
        with contextlib.suppress(segq.QueueError):
            each.close()
    for taker, ids, begun in zip(takers_of(path, kind), found, (ACKED, 2), strict=False):
        with taker() as consumer:
            survey.drain(consumer, ids, once=False)
        survey.judge(ids, begun)
    goes_on(path, kind)


def run(template: Path, place: Path, kind: str, seed: int, case: Case) -> None:
    """Raises if something is not as it should be."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    outside = place / "outside"
    outside.mkdir()
    path = place / "queue"
    shutil.copytree(template, path)
    (place / "template").symlink_to(template)
    rng = random.Random(f"{seed} {kind} {case}")
    if case.state == "live":
        survive_live(path, kind, case, outside, rng)
        return
    inflict(place_of(path, case), case, outside, rng)
    theirs = contents(outside)
    survive(path, kind, case, contents(path))
    demand(contents(outside) == theirs, "something outside of the directory was written to")


def main(template: str, place: str, kind: str, seed: str, *cases: str) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    wrong = 0
    for text in cases:
        print(f"case {text}", flush=True)
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            run(Path(template), Path(place), kind, int(seed), Case.parse(text))
        except BaseException:
            wrong += 1
            print(f"WRONG {text}\n{traceback.format_exc()}", flush=True)
        faulthandler.cancel_dump_traceback_later()
    print(f"done {len(cases)}", flush=True)
    sys.exit(wrong != 0)


def ordeal(template: Path, place: Path, kind: str, seed: int, cases: list[Case]) -> list[str]:
    """Lets a child go through the cases; what went wrong, the cases that it did not survive included."""
    wrong: list[str] = []
    left = [str(case) for case in cases]
    while left:
        command = [sys.executable, "-X", "faulthandler", __file__, str(template), str(place), kind, str(seed), *left]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        child = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, timeout=HANG * len(left)
        )
        begun = [line.removeprefix("case ") for line in child.stdout.splitlines() if line.startswith("case ")]
        wrong += [f"{kind} {seed} {part}" for part in child.stdout.split("WRONG ")[1:]]
        if f"done {len(left)}" in child.stdout:
            break
        wrong.append(f"{kind} {seed} {begun[-1:]} ended the interpreter ({child.returncode}):\n{child.stderr[-6000:]}")
        left = left[len(begun) :] if begun else []
    return wrong


if __name__ == "__main__":
    if sys.argv[1] == "actor":
        actor(*sys.argv[2:])
    elif sys.argv[1] == "build":
        build(Path(sys.argv[2]), sys.argv[3])
    else:
        main(*sys.argv[1:])
