"""`check`: finds what is wrong, says how bad it is, changes nothing unless asked to, and loses nothing when it mends."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accounts import ROOT, until
from actors import Child, segments

import segq
from segq._core.directory.index import Index
from segq._core.directory.label import Label
from segq._core.format import format as fmt
from segq._core.format.format import LabelWord, LedgerWord
from segq._core.segment.ledger import Ledger
from segq._core.system import locks

# What each process of the storm does until it is killed; no step of it waits for another process.
STORM = (
    "q = segq.Queue(sys.argv[1])\nn = 0\nwhile True:\n"
    "    n += 1\n"
    "    q.put_many([[os.getpid(), n, k] for k in range(10 + n % 40)]); q.put('single')\n"
    "    q.put(b'x' * 40_000)\n"
    "    if n % 9 == 0: q.put_many(range(5000)); q.get_many(4000)\n"
    "    for m in q.receive_many(8): m.ack() if n % 3 else m.nack()\n"
    "    q.get_many(4)\n"
    "    if n == 5: say('working')\n"
    "    if q.qsize() > 3000: q.get_many(3000)\n"
)
TOPIC_STORM = (
    "t = segq.Topic(sys.argv[1]); labels = [t.subscribe(label) for label in 'ab']\nn = 0\nwhile True:\n"
    "    n += 1\n"
    "    t.put_many([[n, k] for k in range(10 + n % 40)]); t.put('single')\n"
    "    if n % 11 == 0: t.put(b'x' * 50_000)\n"
    "    for s in labels:\n"
    "        try:\n"
    "            for m in s.receive_many(25, block=False): m.ack() if n % 7 else m.nack()\n"
    "            s.get_many(40, block=False)\n"
    "        except segq.Empty: pass\n"
    "    if n == 5: say('working')\n"
)


def everything_on_disk(path: str) -> dict[str, tuple[int, int, str]]:
    """Size, time of change and contents of every entry, directories too."""
    found = {}
    for place, _, files in os.walk(path):
        for entry in [place, *(os.path.join(place, file) for file in files)]:
            status = os.lstat(entry)
            contents = hashlib.sha256(Path(entry).read_bytes()).hexdigest() if os.path.isfile(entry) else ""
            found[entry] = (status.st_size, status.st_mtime_ns, contents)
    return found


def kinds(report: segq.Report) -> list[tuple[str, str]]:
    return [(problem.kind, problem.severity) for problem in report.problems]


def sealed(path: str, items: list[Any], **settings: Any) -> Path:
    """A queue with one sealed segment of `items`; the segment's directory."""
    with segq.Queue(path, **settings) as q:
        q.put_many(items)
    (name,) = segments(path)
    return Path(path, name)


def ledger_of(segment: Path, name: str = "ledger", source: Ledger | None = None) -> Ledger:
    return Ledger.open(str(segment / name), source)


def everything(path: str) -> list[Any]:
    found: list[Any] = []
    with segq.Queue(path) as q:
        while True:
            try:
                found += q.get_many(1000, block=False)
            except segq.Empty:
                return found


# --- looking changes nothing ------------------------------------------------------------------------------------------


@pytest.fixture
def wreck(tmp_path: Path) -> str:
    """A queue whose processes were killed, with something of everything that a check looks at."""
    path = str(tmp_path / "wreck")
    with segq.Queue(path, capacity=50_000, segment_items=500, lease=60) as q:
        q.put_many(range(500))
        q.put(b"large" * 20_000)
        q.put_many(range(400))
        q.get_many(20)
    with Child("q.put_many(range(100)); q.receive_many(7); q.get_many(3); say('done'); wait()\n", path) as child:
        child.hear()
        child.kill()
    with Child("q.put('half'); say('put'); q.put_many(['x'] * 600)\n", path, failpoints="create.named=kill:2") as child:
        child.ends(-9)
    first = segments(path)[0]
    Path(path, "removed_0000000000000000001_0123456789ab").mkdir()
    Path(path, "owners", "0009.scratch").mkdir()
    Path(path, "holiday.jpg").touch()
    (log,) = Path(path, first).glob("*.log")
    log.write_bytes(log.read_bytes()[:-100])
    return path


def test_a_check_changes_nothing_on_the_disk(wreck: str) -> None:
    before = everything_on_disk(wreck)
    reports = [segq.check(wreck) for _ in range(3)]
    assert everything_on_disk(wreck) == before
    assert {"owner", "deletion", "scratch", "foreign"} <= {problem.kind for problem in reports[0].problems}
    assert {problem.kind for problem in reports[0].problems} & {"items", "segment"}
    assert reports[0] == reports[1] == reports[2]
    for missing in ("index", "queue.lock"):  # nor does it make what is missing
        os.unlink(os.path.join(wreck, missing))
        before = everything_on_disk(wreck)
        assert not segq.check(wreck).ok
        assert everything_on_disk(wreck) == before


def test_nor_in_a_topic_whose_items_have_expired(tmp_path: Path) -> None:
    path = str(tmp_path / "topic")
    with segq.Topic(path, ttl=3600) as topic, topic.subscribe("a") as a:
        topic.put_many(range(10))
        topic.put_many(range(5), ttl=0.001)
        assert a.get() == 0
    with Child(
        "s = segq.Subscription(sys.argv[1], 'a'); s.receive_many(3); s.receive(); say('has'); wait()\n", path, opens=False
    ) as child:
        child.hear()
        child.kill()
    before = everything_on_disk(path)
    report = segq.check(path)
    assert everything_on_disk(path) == before
    assert kinds(report) == [("owner", "note")]
    assert segq.check(path, fix=True).ok


def test_it_looks_at_a_queue_it_may_only_read(queue_path: str) -> None:
    sealed(queue_path, list(range(20)))
    with segq.Queue(queue_path) as q:
        places = [place for place, _, _ in os.walk(queue_path)]
        for place in places:
            os.chmod(place, 0o500)
        try:
            assert segq.check(queue_path).ok
        finally:
            for place in places:
                os.chmod(place, 0o700)
        assert q.qsize() == 20


# --- what it finds, how bad it is, and what mends it ------------------------------------------------------------------


def claimed_by_nobody(segment: Path) -> None:
    ledger = ledger_of(segment)
    with segq.Queue(segment.parent) as q:
        q.get_many(5)
    segment = segment.parent / segments(str(segment.parent))[0]
    ledger = ledger_of(segment)
    assert ledger.claim(3, 77) is not None


def given_back_and_not_counted(segment: Path) -> None:
    with segq.Queue(segment.parent) as q:
        q.receive_many(5)
    ledger = ledger_of(segment.parent / segments(str(segment.parent))[0])
    assert ledger.words[LedgerWord.RETURNED] == 5
    ledger.words[LedgerWord.RETURNED] = 0


def sealed_by_name_only(segment: Path) -> None:
    ledger_of(segment).words[LedgerWord.SEALED] = 0


def sealed_by_name_and_behind(segment: Path) -> None:
    ledger = ledger_of(segment)
    ledger.words[LedgerWord.SEALED], ledger.words[LedgerWord.PUBLISHED] = 0, 5


def room_nobody_can_use(segment: Path) -> None:
    ledger_of(segment).words[LedgerWord.LIMIT] = 1000


def ready_and_touched(segment: Path) -> None:
    with segq.Queue(segment.parent) as q:
        q.get_many(2)
    found = segment.parent / segments(str(segment.parent))[0]
    found.rename(segment)


def without_ledger(segment: Path) -> None:
    (segment / "ledger").unlink()


def without_owners(segment: Path) -> None:
    (segment.parent / "owners").rmdir()


@pytest.mark.parametrize(
    ("damage", "kind", "got"),
    [
        (claimed_by_nobody, "claims", 5),
        (given_back_and_not_counted, "counters", 0),
        (sealed_by_name_only, "ledger", 0),
        (sealed_by_name_and_behind, "ledger", 0),
        (room_nobody_can_use, "counters", 0),
        (ready_and_touched, "names", 2),
        (without_ledger, "ledger", 0),
        (without_owners, "owners", 0),
    ],
)
def test_an_error_is_found_and_mended_and_every_item_comes(
    queue_path: str, damage: Callable[[Path], None], kind: str, got: int
) -> None:
    damage(sealed(queue_path, list(range(20)), capacity=30))
    before = everything_on_disk(queue_path)
    assert kinds(segq.check(queue_path)) == [(kind, "error")]
    assert everything_on_disk(queue_path) == before
    mended = segq.check(queue_path, fix=True)
    assert mended.ok
    assert [problem.fixed for problem in mended.problems] == [True]
    assert segq.check(queue_path).problems == ()
    assert sorted(everything(queue_path)) == list(range(got, 20))
    with segq.Queue(queue_path) as q:
        q.put_many(range(30))  # all of the capacity can be had
        assert q.get_many(30) == list(range(30))


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ("queue.json.123.new", "leftover"),
        ("owners/0007.new", "leftover"),
        ("quarantine/x.item.99.new", "leftover"),
        ("owners/0007.scratch/1/LOG", "scratch"),
        ("owners/0007.scratchk2x/1/LOG", "scratch"),
        ("removed_0000000000000000001_0123456789ab/ledger", "deletion"),
    ],
)
def test_what_is_left_over_is_a_note_and_fix_removes_it(queue_path: str, entry: str, kind: str) -> None:
    sealed(queue_path, [1, 2, 3])
    file = Path(queue_path, entry)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert kinds(segq.check(queue_path)) == [(kind, "note")]
    assert segq.check(queue_path, fix=True).ok
    assert not file.exists()
    assert everything(queue_path) == [1, 2, 3]


@pytest.mark.parametrize("name", ["ready_12", "chosen_0000000000000000001_0123456789AB", "loading_", "holiday.jpg"])
def test_an_entry_with_a_name_that_is_none_is_an_error_and_nobody_touches_it(queue_path: str, name: str) -> None:
    sealed(queue_path, [1])
    Path(queue_path, name).mkdir()
    report = segq.check(queue_path, fix=True)
    assert [(problem.where, problem.severity, problem.fixed) for problem in report.problems] == [(name, "error", False)]
    assert not report.ok
    Path(queue_path, name).rmdir()


def test_a_segment_that_is_a_file_or_there_twice_is_an_error(queue_path: str) -> None:
    place = sealed(queue_path, [1])
    copy = place.with_name(place.name.replace("ready", "chosen"))
    shutil.copytree(place, copy)
    file = Path(queue_path, "ready_0000000000000000001_0123456789ab")
    file.touch()
    found = {problem.where: problem.what for problem in segq.check(queue_path).problems if problem.kind == "names"}
    assert "no directory" in found.pop(file.name)
    assert ["several names" in what for what in found.values()] == [True]
    file.unlink()
    shutil.rmtree(copy)


def test_items_that_cannot_be_read_are_counted_and_the_others_are_delivered(queue_path: str) -> None:
    with segq.Queue(queue_path, serializer="raw", segment_items=30_000) as q:
        for n in range(9000):  # three blocks, of 4,080 items and less
            q.put(b"%d" % n)
    (name,) = segments(queue_path)
    (log,) = Path(queue_path, name).glob("*.log")
    data = bytearray(log.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = b"#" * 50
    log.write_bytes(data)
    (problem,) = segq.check(queue_path).problems
    assert (problem.kind, problem.severity) == ("items", "error")
    assert "4920 of its 9000 items cannot be read, from item 4080 on" in problem.what
    mended = segq.check(queue_path, fix=True)
    assert mended.ok
    assert everything(queue_path) == [b"%d" % n for n in range(4080)]
    (set_aside,) = segq.check(queue_path).quarantine
    assert set_aside.name.endswith(name.partition("_")[2])
    assert "4920 of its 9000 items" in set_aside.reason
    assert set_aside.bytes > len(data)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_large_item_whose_bytes_are_damaged_is_found(queue_path: str, damage: str) -> None:
    place = sealed(queue_path, ["small", b"x" * 50_000, "small too", b"y" * 50_000])
    blob = place / "blob"
    data = bytearray(blob.read_bytes())
    match damage:
        case "flipped":
            data[-5] ^= 1
            blob.write_bytes(data)
        case "cut":
            blob.write_bytes(data[:-1])
        case "gone":
            blob.unlink()
    (problem,) = segq.check(queue_path).problems
    lost = 2 if damage == "gone" else 1
    assert f"{lost} of its 4 items cannot be read, from item {4 - lost if lost == 1 else 1} on" in problem.what
    assert segq.check(queue_path, fix=True).ok
    assert len(everything(queue_path)) == 4 - lost
    assert len(segq.check(queue_path).quarantine) == 1


def test_more_items_than_the_capacity_are_noted(queue_path: str) -> None:
    place = sealed(queue_path, list(range(8)), capacity=8)
    shutil.copytree(place, place.with_name("ready_0000000000000000001_0123456789ab"))
    assert kinds(segq.check(queue_path)) == [("capacity", "note")]
    assert len(everything(queue_path)) == 16


def test_an_index_that_was_taken_from_under_living_processes_is_an_error(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put(1)
        os.unlink(os.path.join(queue_path, "index"))
        assert kinds(segq.check(queue_path)) == [("index", "error")]
        assert not segq.check(queue_path, fix=True).ok
        assert not os.path.exists(os.path.join(queue_path, "index"))
    assert kinds(segq.check(queue_path)) == [("index", "note")]
    assert segq.check(queue_path, fix=True).ok


def test_a_death_while_a_ledger_is_rebuilt_loses_nothing(queue_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new ledger had its name before it knew of any item: a segment of no items, which the next would have removed."""
    place = sealed(queue_path, list(range(20)))
    (place / "ledger").unlink()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "allocate", dies)
        with pytest.raises(KeyboardInterrupt):
            segq.check(queue_path, fix=True)
    assert everything(queue_path) == list(range(20))


# --- topics -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def topic(tmp_path: Path) -> Path:
    """With labels a and b, of which a has read 5 of 20 items in a sealed segment; the segment's directory."""
    path = tmp_path / "topic"
    with segq.Topic(path) as topic, topic.subscribe("a") as a, topic.subscribe("b"):
        topic.put_many(range(20))
        a.get_many(5)
    (name,) = segments(str(path))
    return path / name


def test_a_ledger_of_a_label_that_is_gone_is_left_over(topic: Path) -> None:
    stray = topic / fmt.label_ledger("01234567")
    shutil.copy(next(topic.glob("ledger.*")), stray)
    assert kinds(segq.check(topic.parent)) == [("leftover", "note")]
    assert segq.check(topic.parent, fix=True).ok
    assert not stray.exists()


def test_a_damaged_ledger_of_a_label_is_noted_and_the_label_gets_the_items_again(topic: Path) -> None:
    next(topic.glob("ledger.*")).write_bytes(b"nonsense")
    assert kinds(segq.check(topic.parent)) == [("ledger", "note")]
    assert segq.check(topic.parent, fix=True).ok
    with segq.Subscription(topic.parent, "a") as a:
        assert a.get_many(100) == list(range(20))


def test_a_damaged_label_goes_to_quarantine(topic: Path) -> None:
    (topic.parent / "labels" / "b").write_bytes(b"nonsense" * 1000)
    found = kinds(segq.check(topic.parent))
    assert ("label", "error") in found
    assert segq.check(topic.parent, fix=True).ok
    assert [entry.name for entry in segq.check(topic.parent).quarantine] == ["b"]
    with segq.Subscription(topic.parent, "a") as a:
        assert a.get_many(100) == list(range(5, 20))


def test_a_label_that_has_items_that_cannot_be_read_is_told_and_goes_on(topic: Path) -> None:
    (log,) = topic.glob("*.log")
    log.unlink()
    assert [kind for kind, _ in kinds(segq.check(topic.parent))] == ["segment"]
    assert segq.check(topic.parent, fix=True).ok
    with segq.Topic(topic.parent) as t, t.subscribe("a") as a:
        t.put("later")
        assert a.get(timeout=5) == "later"
        assert a.missed == 15


def test_a_booking_that_was_interrupted_is_noted_and_finished(topic: Path) -> None:
    index = Index.open(str(topic.parent))
    label = Label.open(str(topic.parent / "labels" / "a"), index)
    label.words[LabelWord.DONE_AFTER], label.words[LabelWord.MISSED_AFTER] = 100, 7
    label.words[LabelWord.JOURNAL] = 5
    assert kinds(segq.check(topic.parent)) == [("booking", "note")]
    assert segq.check(topic.parent, fix=True).ok
    assert label.settled == (100, 7)


def test_a_death_between_the_new_sums_and_their_stamp_does_not_double_them(topic: Path) -> None:
    """The journal still named the segment before; the sums of the next, not booked yet, were taken for that one's."""

    class Dying:
        def __init__(self, words: Any) -> None:
            self.words = words

        def __getitem__(self, word: int) -> int:
            return int(self.words[word])

        def __setitem__(self, word: int, value: int) -> None:
            if word == LabelWord.JOURNAL and value == 20:
                raise KeyboardInterrupt
            self.words[word] = value

    index = Index.open(str(topic.parent))
    label = Label.open(str(topic.parent / "labels" / "a"), index)
    label.book(10, 100, 1)
    kept, label.words = label.words, Dying(label.words)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        label.book(20, 50, 2)
    label.words = kept
    assert not label.booked(20)
    label.book(20, 50, 2)
    assert label.settled == (150, 3)


# --- beside living processes ------------------------------------------------------------------------------------------


def test_fix_beside_living_processes_takes_nothing_from_them(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=100) as q:
        q.put_many(range(10))
        held = q.receive_many(3)
        with Child("q.put('theirs'); m = q.receive_many(2); say('has'); wait()\n", queue_path) as child:
            child.hear()
            assert segq.check(queue_path, fix=True).problems == ()
            child.kill()
        (problem,) = segq.check(queue_path, fix=True).problems
        assert problem.kind == "owner"
        assert problem.fixed
        for message in held:
            message.ack()
        q.put("goes on")
        found = [q.get(timeout=5) for _ in range(9)]
        assert sorted(map(str, found)) == sorted(["goes on", "theirs", *"3456789"])


class Hand:
    """A process of the storm."""

    def __init__(self, path: str, code: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", Child.PRELUDE + code, path], env=environment, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._working = False

    @property
    def working(self) -> bool:
        """Whether it has put and got some by now."""
        assert self.process.poll() is None, "a process of the storm ended by itself"
        assert self.process.stdout is not None
        self._working = self._working or bool(self.process.stdout.read())
        return self._working

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def errors(problems: tuple[segq.Problem, ...]) -> list[segq.Problem]:
    return [problem for problem in problems if problem.severity == "error"]


def storm(path: str, hands: int, kills: int, code: str = STORM) -> tuple[int, int]:
    """Checks again and again while processes put, get, give back, and `kills` of them are killed; (checks, notes)."""
    chance = random.Random(7)
    running = [Hand(path, code) for _ in range(hands)]
    checks = notes = 0
    try:
        while kills:
            report = segq.check(path)
            checks += 1
            notes += len(report.problems)
            assert not errors(report.problems)
            assert not report.quarantine
            if checks % 7 == 0:
                assert not errors(segq.check(path, fix=True).problems)
            working = [hand for hand in running if hand.working]
            if working and checks % 5 == 0:
                victim = chance.choice(working)
                victim.kill()
                running[running.index(victim)] = Hand(path, code)
                kills -= 1
    finally:
        for hand in running:
            hand.kill()
    assert not errors(segq.check(path).problems)
    assert segq.check(path, fix=True).ok
    assert segq.check(path).problems == ()
    return checks, notes


def test_it_raises_no_false_alarm_while_processes_work_and_are_killed(queue_path: str) -> None:
    segq.Queue(queue_path, segment_items=400, capacity=20_000).close()
    checks, notes = storm(queue_path, 2, 3)
    assert checks >= 15
    assert notes


@pytest.mark.torture
@pytest.mark.parametrize("hands", [2, 5])
def test_it_raises_no_false_alarm_for_long(queue_path: str, hands: int) -> None:
    segq.Queue(queue_path, segment_items=400, capacity=20_000).close()
    checks, notes = storm(queue_path, hands, 40)
    print(f"{checks} checks, 40 kills, {notes} notes")
    assert checks >= 200
    assert notes


@pytest.mark.torture
@pytest.mark.parametrize("settings", [{}, {"ttl": 1.0}, {"capacity": 2000, "on_full": "drop_oldest"}])
def test_nor_in_a_topic(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = str(tmp_path / "topic")
    segq.Topic(path, segment_items=300, **settings).close()
    checks, notes = storm(path, 3, 15, TOPIC_STORM)
    print(f"{checks} checks, 15 kills, {notes} notes")
    assert checks >= 75
    assert notes


def test_a_lock_that_a_stopped_process_holds_is_said_so(queue_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.05)
    sealed(queue_path, [1])
    with locks.StructureLock(queue_path), pytest.raises(segq.QueueError, match="stopped"):
        segq.check(queue_path)


def test_the_dead_are_found_until_somebody_alive_has_settled_them(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        with Child("q.put('theirs'); say('put'); wait()\n", queue_path) as child:
            child.hear()
            child.kill()
        assert kinds(segq.check(queue_path)) == [("owner", "note")]

        def settled() -> bool:
            q.peek(1)
            with pytest.raises(segq.Empty):
                while True:
                    q.get(timeout=0.05)
            return segq.check(queue_path).ok

        until(settled, 20, "a waiting consumer has settled what the dead one held")
