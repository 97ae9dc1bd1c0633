"""Topics with many processes at work: killed at random and started again, begun in the middle of a storm, full, and far behind."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from accounts import ROOT, check_clean, events, origin, segments, until

sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))

from levels import stored_at_most
from test_random_kills import ROUNDS, Hand, Run, seed_from
from topic_victim import PATIENCE, TopicScene, descriptors, memory, taken_by

import segq

VICTIM = Path(__file__).parent.parent / "crash" / "topic_victim.py"
THREE = ("a", "b", "c")


# --- killed at random -------------------------------------------------------------------------------------------------


class TopicRun(Run):
    """Producers of a topic and consumers of its labels, killed and replaced; who is dead has a successor for the same label."""

    def __init__(self, place: Path, seed: int, producers: int, consumers: int, items: int, **settings: Any) -> None:
        self.scene = TopicScene(place, THREE, **settings)
        self.scene.begin()
        self.place, self.settings, self.path, self.stop = place, settings, self.scene.path, place / "stop"
        self.chance = random.Random(seed)
        self.reports = self.scene.reports
        self.kills = 0
        self.hands: list[Hand] = []
        self.label_of: dict[Path, str] = {}
        self.hands += [self.start("produce", items) for _ in range(producers)]
        for _ in range(consumers * len(THREE)):
            self.hands.append(self.start("consume", 0))

    def start(self, role: str, count: int) -> Hand:
        name = f"{role}{len(self.reports)}"
        report, output = self.place / f"{name}.report", self.place / f"{name}.out"
        extra: dict[str, Any] = {"topic": self.settings, "seed": str(self.chance.random()), "stop": str(self.stop)}
        if role == "consume":
            label = self.label_of[report] = min(THREE, key=self._readers)
            self.scene.taken[label].append(taken_by(report, label))
            extra["labels"] = [label]
        command = [sys.executable, str(VICTIM), f"{role}s", str(self.path), str(report), json.dumps({**extra, "count": count})]
        with output.open("wb") as out:
            environment = os.environ | {"PYTHONPATH": str(ROOT), "SEGQ_FAILPOINTS": "", "PYTHONFAULTHANDLER": "1"}
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        self.reports.append(report)
        at_work = report if role == "produce" else taken_by(report, label)
        return Hand(role, process, at_work, output, count)

    def _readers(self, label: str) -> int:
        return sum(label == self.label_of.get(hand.output.with_suffix(".report")) for hand in self.hands)


def stress(place: Path, seed: int, producers: int, consumers: int, items: int, pause: float, **settings: Any) -> None:
    print(f"seed {seed}: {producers} producers of {items} items, {consumers} consumers for each label, {settings}")
    run = TopicRun(place, seed, producers, consumers, items, **settings)
    try:
        run.kill_now_and_then(0.01, pause)
        run.finish()
        run.scene.close_accounts()
    except BaseException as error:
        error.add_note(f"seed {seed}, {run.kills} kills\n{run.said()}")
        raise
    finally:
        run.end()
    assert run.kills, "nobody was killed"
    capacity = settings.get("capacity")
    for label in THREE:
        most, counts = stored_at_most([*run.scene.reports, *(path for path in run.scene.taken[label] if path.exists())])
        print(f"{run.kills} kills; {label}: {dict(counts)}")
        assert capacity is None or most <= capacity, f"{most} items were stored at one moment for {label}, capacity {capacity}"


def test_random_kills_lose_nothing_for_any_label(tmp_path: Path) -> None:
    stress(tmp_path, seed_from(0), 2, 1, 1_000, 0.3, segment_items=200)


LONG: list[dict[str, Any]] = [
    {"segment_items": 500},
    {},
    {"segment_items": 50},
    {"segment_items": 300, "capacity": 40},
    {"segment_items": 300, "capacity": 2000, "max_bytes": 3_000_000},
    {"segment_items": 200, "lease": 120.0},
    {"segment_items": 200, "durability": "power"},
    {"segment_items": 200, "ttl": 3600.0},
]


@pytest.mark.torture
@pytest.mark.parametrize("settings", LONG, ids=lambda settings: "-".join(settings) or "plain")
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_random_kills_for_minutes_lose_nothing_for_any_label(tmp_path: Path, settings: dict[str, Any], round_: int) -> None:
    slow = "durability" in settings or settings.get("capacity", 1000) < 1000 or settings.get("segment_items", 1000) < 100
    stress(tmp_path, seed_from(round_), 3, 2, 3_000 if slow else 15_000, 0.8, **settings)


# --- begun in the middle ----------------------------------------------------------------------------------------------


def got(reports: Iterable[Path]) -> list[str]:
    return [identity for report in reports for event in events(report) if event.what == "got" for identity in event.ids]


@pytest.mark.parametrize(
    ("start", "beside_an_idle_label"),
    [
        ("oldest", False),
        ("next", True),
        *(
            pytest.param(*way, marks=pytest.mark.torture)
            for way in (("oldest", True), ("newest", False), ("newest", True), ("next", False))
        ),
    ],
)
def test_processes_that_begin_a_label_at_once_in_a_storm_share_one_position(
    tmp_path: Path, start: str, beside_an_idle_label: bool
) -> None:
    scene = TopicScene(tmp_path, ("new", "idle"), segment_items=100)
    stop, over, go = tmp_path / "stop", tmp_path / "over", tmp_path / "go"
    idle = None
    if beside_an_idle_label:
        with scene.open():
            idle = scene.subscribe("idle")
    scene.open().close()
    try:
        readers = [scene.start("shares", labels=["new"], start=start, stop=str(over), go=str(go)) for _ in range(3)]
        producers = [scene.start("streams", stop=str(stop)) for _ in range(2)]
        for actor in (*readers, *producers):
            actor.until_ready()
        until(lambda: len(scene.account("new").stored()) > 300, PATIENCE, "the storm is blowing")
        go.touch()
        until(lambda: len(got(scene.taken["new"])) > 50, PATIENCE, "the new label is being read")
        for file, actors in ((stop, producers), (over, readers)):
            file.touch()
            for actor in actors:
                actor.must_end_well()
    finally:
        scene.end()
    stored, found = scene.account("new").stored(), got(scene.taken["new"])
    assert len(found) == len(set(found)), "seen twice"
    assert set(found) <= stored
    if start == "oldest":
        assert set(found) == stored
    check_suffixes(stored, found)
    with scene.open() as topic:
        (label,) = (each for each in topic.stats().labels if each.label == "new")
        assert (label.acknowledged, label.missed, label.lag) == (len(found), 0, 0)
        if idle is not None:
            report = scene.taking("idle", "here")
            for _ in stored:
                report.get(idle, timeout=5)
            report.end()
            idle.close()
            assert set(got(scene.taken["idle"])) == stored
    check_clean(scene.path)
    assert segments(scene.path) == []


def check_suffixes(stored: Iterable[str], found: Iterable[str]) -> None:
    """Of each producer those from some item on came, without a gap."""
    numbers: defaultdict[str, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
    for which, identities in enumerate((stored, found)):
        for identity in identities:
            handle, number = origin(identity)
            numbers[handle][which].add(number)
    for handle, (put, had) in numbers.items():
        if had:
            assert had == {number for number in put if number >= min(had)}, f"not a suffix of what {handle} put"


# --- many labels, and one far behind ----------------------------------------------------------------------------------


def test_each_of_64_labels_gets_everything(tmp_path: Path) -> None:
    labels = [f"label {n}" for n in range(64)]
    scene = TopicScene(tmp_path, labels, segment_items=100)
    scene.begin()
    stop = tmp_path / "stop"
    try:
        readers = [scene.start("collects", labels=labels[n::4], stop=str(stop)) for n in range(4)]
        producer = scene.start("produces", seed="1", count=100)
        producer.must_end_well()
        stop.touch()
        for reader in readers:
            reader.must_end_well()
    finally:
        scene.end()
    stored = scene.account(labels[0]).stored()
    assert len(stored) == 100
    for label in labels:
        found = got(scene.taken[label])
        assert len(found) == 100, label
        assert set(found) == stored, label
    with scene.open() as topic:
        counted = topic.stats().labels
        assert [(each.acknowledged, each.missed, each.lag) for each in counted] == [(100, 0, 0)] * 64
    check_clean(scene.path)
    assert segments(scene.path) == []


@pytest.mark.parametrize("many", [40, pytest.param(1000, marks=pytest.mark.torture)])
def test_a_label_that_was_idle_for_many_segments_reads_them_all_and_nobody_holds_them_open(tmp_path: Path, many: int) -> None:
    items = 3
    scene = TopicScene(tmp_path, ("busy", "idle"), segment_items=items)
    scene.begin()
    before, used = (descriptors(), memory()), []
    with scene.open() as topic, scene.subscribe("busy") as busy, scene.subscribe("idle") as idle:
        report, busily = scene.report("here"), scene.taking("busy", "here")
        for n in range(many):
            report.put(topic, *(f"here/{items * n + i}/0" for i in range(items)), many=True)
            busily.get(busy, items, timeout=5)
            if n % 20 == 19:
                used.append(descriptors())
        report.end()
        busily.end()
        assert len(segments(scene.path)) >= many
        assert max(used) < before[0] + 150, f"descriptors open after each twenty segments: {used}"
        assert idle.qsize() == many * items
        again = scene.start("wades", labels=["busy"])
        reader = scene.start("wades", labels=["idle"])
        again.must_end_well()
        reader.must_end_well()
        for actor in (again, reader):
            (most, grown) = next(map(int, event.ids) for event in events(actor.report) if event.what == "used")
            assert most < 150, f"{most} descriptors open at once"
            assert grown < 100 << 20, f"{grown} bytes more"
    assert memory() - before[1] < 150 << 20
    assert descriptors() <= before[0] + 40
    assert got(scene.taken["idle"]) == [f"here/{n}/0" for n in range(many * items)]
    check_clean(scene.path)
    assert segments(scene.path) == []


# --- full -------------------------------------------------------------------------------------------------------------


def test_capacity_holds_for_the_slowest_label_and_is_never_exceeded(tmp_path: Path) -> None:
    capacity = 50
    scene = TopicScene(tmp_path, ("quick", "slow"), segment_items=20, capacity=capacity)
    scene.begin()
    stop, over, most = tmp_path / "stop", tmp_path / "over", 0
    with scene.open() as topic, scene.subscribe("slow") as slow:

        def sampled() -> int:
            nonlocal most
            most = max(most, size := topic.qsize())
            return int(size)

        def has_all_that_is_stored() -> bool:
            stored = scene.account("quick").stored()
            return stored <= set(got(scene.taken["quick"]))

        try:
            quick = scene.start("collects", labels=["quick"], stop=str(over))
            producers = [scene.start("streams", stop=str(stop), many=1) for _ in range(3)]
            report = scene.taking("slow", "here")
            taken = 0
            for step in range(12):
                until(lambda: sampled() == capacity, PATIENCE, "the topic is full")
                until(has_all_that_is_stored, PATIENCE, "the quick label has all there is")
                assert sampled() == capacity
                assert len(scene.account("slow").stored()) <= taken + capacity, "a put went on though nothing was acknowledged"
                taken += len(report.get(slow, 1 + 3 * step, timeout=5))
            stop.touch()
            while any(producer.process.poll() is None for producer in producers) or not slow.empty():
                sampled()
                try:
                    report.get(slow, 7, timeout=0.05)
                except segq.Empty:
                    continue
            report.end()
            over.touch()
            for actor in (*producers, quick):
                actor.must_end_well()
        finally:
            scene.end()
    assert most == capacity, f"{most} items were stored at one moment, capacity {capacity}"
    for label in scene.labels:
        certain, _ = stored_at_most([*scene.reports, *scene.taken[label]])
        assert certain <= capacity, f"{certain} items were certainly stored for {label}"
    scene.close_accounts()


def test_several_producers_killed_and_a_slow_label_never_let_the_topic_hold_more_than_its_capacity(tmp_path: Path) -> None:
    stress(tmp_path, seed_from(1), 2, 1, 300, 0.3, segment_items=100, capacity=64)
