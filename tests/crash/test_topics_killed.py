"""SIGKILL at every named fault point that a topic's workloads reach; afterwards the account of every label has to close.

Three labels, of which two are read by a process that was there all along and gets what there is without anything being opened
anew; the third waits until all is over and the topic is opened again. For `-m torture`: nobody alive at the death, and the ways
to a point that add little to the first.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from accounts import check_clean, events, segments, until
from scene import PATIENCE
from topic_victim import LABELS, WORKLOADS, TopicScene
from ways import RESCUES, TOPICS, WAYS, Way

import segq
from segq._core.base.failpoints import POINTS

SMALL = {"segment_items": 20}
LEASED = {"lease": 60.0}
UNREACHED = {"claim.chosen"}  # a label's ledger is made after its segment was chosen, so that no claimer has to do it

_TAKING = [Way("takes", SMALL, (1, 4), "sealed"), Way("settles", SMALL, (2,), "live"), Way("takes", {}, (3,), "live")]
_GETTING = [Way("takes", SMALL, (1, 5), "sealed"), Way("takes", SMALL | LEASED, (2,), "live")]
_HANDING = [Way("settles", SMALL, (2, 5), "sealed"), Way("settles", SMALL | LEASED, (3,), "live")]
_DELAYING = [Way("defers", SMALL, (2,), "sealed"), Way("defers", SMALL | LEASED, (3,), "live")]
_BURYING = [Way("renounces", SMALL, (2,), "sealed"), Way("renounces", {}, (3,), "live")]
_BEGINNING = [Way("takes", SMALL, (2,), "sealed"), Way("mingles", SMALL, (3,))]
_RETIRING = [Way("takes", SMALL, (1, 2), "sealed"), Way("mingles", SMALL, (1,))]
TAKING: dict[str, list[Way]] = {
    **dict.fromkeys(("claim.marked", "claim.moved"), _TAKING),
    **dict.fromkeys(("get.taken", "get.done"), _GETTING),
    **dict.fromkeys(("receive.handed", "ack.begun", "ack.done", "nack.begun", "nack.done"), _HANDING),
    **dict.fromkeys(("delay.noted", "delay.marked", "delay.freed"), _DELAYING),
    **dict.fromkeys(("dead.noted", "dead.stored", "dead.done"), _BURYING),
    **dict.fromkeys(("label.chosen", "label.ledger"), _BEGINNING),
    **dict.fromkeys(("gone.renamed", "gone.booked", "gone.all_booked"), _RETIRING),
    **dict.fromkeys(("retire.begun", "retire.renamed", "retire.deleted"), _RETIRING),
}
PUTTING = {
    point: known
    for point, ways in WAYS.items()
    if all(not way.filled for way in ways) and (known := [way for way in ways if way.workload in WORKLOADS])
}
MIXED = {
    point: [*ways, Way("mingles", SMALL, (2, 5) if point.startswith("put.") else (1, 3))]
    for point, ways in PUTTING.items()
    if point.startswith(("put.", "seal."))
}
ALL_WAYS = PUTTING | TAKING | MIXED

CASES = [
    pytest.param(point, way, times, marks=() if way is ways[0] and times == way.times[-1] else pytest.mark.torture)
    for point, ways in sorted(ALL_WAYS.items())
    for way in ways
    for times in way.times
]


def test_every_fault_point_has_a_workload_that_is_killed_there() -> None:
    assert set(ALL_WAYS) | set(RESCUES) | TOPICS | UNREACHED == POINTS


@pytest.mark.parametrize(("point", "way", "times"), CASES, ids=str)
def test_every_label_gets_everything_from_the_living_and_after_reopening(
    tmp_path: Path, point: str, way: Way, times: int
) -> None:
    scene = TopicScene(tmp_path, **way.settings)
    with contextlib.ExitStack() as stack:
        stack.callback(scene.end)
        topic = stack.enter_context(scene.open())
        scene.begin()
        live = [stack.enter_context(scene.subscribe(label)) for label in LABELS[:2]]
        if way.filled:
            fill(scene, topic)
        if way.filled == "sealed":
            topic.close()
        reading = LABELS if way.filled or way.workload in ("mingles", "reuses") else ()
        scene.start(way.workload, faults=f"{point}=kill:{times}", labels=reading).must_die()
        for subscription in live:
            scene.recover_label(subscription)
    scene.close_accounts()


@pytest.mark.torture
@pytest.mark.parametrize(("point", "way", "times"), CASES, ids=str)
def test_every_label_gets_everything_when_all_are_dead(tmp_path: Path, point: str, way: Way, times: int) -> None:
    scene = TopicScene(tmp_path, **way.settings)
    scene.begin()
    if way.filled:
        with scene.open() as topic:
            fill(scene, topic)
    reading = LABELS if way.filled or way.workload in ("mingles", "reuses") else ()
    scene.start(way.workload, faults=f"{point}=kill:{times}", labels=reading).must_die()
    scene.start("puts", faults="put.payload=kill:9,block.written=kill:9").must_die()  # the latter with durability="power"
    scene.start("settles", faults="ack.begun=kill:2", labels=LABELS).must_die()
    scene.close_accounts()


def fill(scene: TopicScene, topic: Any) -> None:
    """Several segments' worth; the topic stays open."""
    scene.fill(topic, 90)


@pytest.mark.parametrize("point", RESCUES)
def test_a_rescuer_that_dies_while_it_waits_is_rescued_in_turn(tmp_path: Path, point: str) -> None:
    scene = TopicScene(tmp_path)
    scene.begin()
    with scene.open(), scene.subscribe(LABELS[0]) as first, scene.subscribe(LABELS[1]) as second:
        victim = scene.start("holds", labels=LABELS)
        victim.until_ready()
        rescuer = scene.start("waits", faults=f"{point}=kill", labels=LABELS[2:])
        rescuer.until_ready()
        victim.kill()
        rescuer.must_die()
        scene.recover_label(first)
        scene.recover_label(second)
    scene.close_accounts()


@pytest.mark.parametrize("point", RESCUES)
def test_a_rescuer_that_dies_while_opening_is_rescued_in_turn(tmp_path: Path, point: str) -> None:
    scene = TopicScene(tmp_path)
    scene.begin()
    victims = [scene.start("holds", labels=LABELS), scene.start("holds", labels=LABELS[:2])]
    for victim in victims:
        victim.until_ready()
    for victim in victims:
        victim.kill()
    scene.start("takes", faults=f"{point}=kill:2", labels=LABELS).must_die()
    scene.close_accounts()


def test_what_a_killed_consumer_held_for_a_label_is_there_within_seconds_for_that_label_alone(tmp_path: Path) -> None:
    scene = TopicScene(tmp_path)
    scene.begin()
    with scene.open() as topic, scene.subscribe(LABELS[0]) as first, scene.subscribe(LABELS[1]) as second:
        victim = scene.start("holds", labels=LABELS[:1])
        victim.until_ready()
        assert {label.label: label.claimed for label in topic.stats().labels} == {LABELS[0]: 3, LABELS[1]: 0, LABELS[2]: 0}
        victim.kill()
        assert scene.recover_label(second) < 2, "the label that the dead one did not read had to wait for its rescue"
        scene.recover_label(first)
        assert first.stats().redelivered == 3
        assert second.stats().redelivered == 0
    scene.close_accounts()


# --- labels that go ---------------------------------------------------------------------------------------------------


def test_a_label_removed_while_another_process_is_blocked_reading_it(tmp_path: Path) -> None:
    scene = TopicScene(tmp_path, LABELS[:2], segment_items=10)
    scene.begin()
    with scene.open() as topic:
        reader = scene.start("waits", labels=LABELS[:1])
        reader.until_ready()
        scene.fill(topic, 30)
        scene.recover_label(kept := scene.subscribe(LABELS[1]))
        until(lambda: label_is_slept_on(topic, LABELS[0]), PATIENCE, "the reader has all there is, and sleeps")
        begun = time.monotonic()
        topic.remove_label(LABELS[0])
        reader.must_end_well()
        assert events(reader.report)[-2].what == "removed"
        assert events(reader.report)[-2].when / 1e9 - begun < 5
        assert topic.labels() == [LABELS[1]]
        with pytest.raises(KeyError):
            topic.remove_label(LABELS[0])
        until(lambda: topic.qsize() == 0, PATIENCE, "nothing is held back")
        with scene.subscribe(LABELS[0], "next") as anew:
            topic.put("after")
            assert (anew.get(timeout=5), kept.get(timeout=5)) == ("after", "after")
            assert anew.stats().acknowledged == 1
        kept.close()
    check_clean(scene.path)
    assert segments(scene.path) == []


def label_is_slept_on(topic: Any, text: str) -> bool:
    label = topic._parts.catalog.labels.find(text)
    waiting = {each.label: each.lag for each in topic.stats().labels}
    return bool(label is not None and label.bell.flagged and not waiting[text])


def test_segments_that_only_a_removed_label_held_back_go_at_once_and_put_goes_on(tmp_path: Path) -> None:
    scene = TopicScene(tmp_path, ("kept", "idle"), segment_items=10, capacity=60)
    scene.begin()
    with scene.open() as topic, scene.subscribe("kept") as kept:
        stop = tmp_path / "stop"
        producer = scene.start("streams", stop=str(stop), many=1)
        until(topic.full, PATIENCE, "the idle label holds the producer up")
        topic.remove_label("idle")
        scene.labels = ("kept",)
        report = scene.taking("kept", "here")
        while not stop.exists() or producer.process.poll() is None or not kept.empty():
            with contextlib.suppress(segq.Empty):
                report.get(kept, 10, timeout=0.05)
            if len(scene.account("kept").stored()) > 300:
                stop.touch()
        report.end()
        producer.must_end_well()
    scene.close_accounts()


# --- time to live, and nobody there who would put or get ---------------------------------------------------------------

TTL = 2.0
SLACK = 1.0  # seconds that a busy machine gets


def expired_at(scene: TopicScene) -> float:
    """When (seconds of the monotonic clock) the last item put so far expires, at the latest."""
    said = [event for report in scene.reports for event in events(report) if event.what in ("begun", "stored")]
    return max(event.when for event in said) / 1e9 + TTL


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_an_idle_subscriber_removes_what_has_expired_and_every_label_is_told(tmp_path: Path, killed: bool) -> None:
    scene = TopicScene(tmp_path, ttl=TTL, segment_items=20)
    scene.begin()
    with scene.subscribe(LABELS[0]) as idle:
        early = scene.start("produces", seed="1", count=50)
        early.must_end_well()
        producer = scene.start("leaves", count=30, kill=killed)
        if killed:
            producer.must_die()
        else:
            producer.must_end_well()
        with scene.subscribe(LABELS[1]) as other:
            report = scene.taking(LABELS[1], "here")
            had = len(report.get(other, 40, timeout=5))
            report.end()
        over = expired_at(scene)
        until(lambda: segments(scene.path) == [], PATIENCE, "all segments are gone")
        late = time.monotonic() - over
        assert late < TTL / 10 + SLACK, f"the last segment went {late:.2f} s after its last item had expired"
        assert idle.missed == 80
        assert idle.empty()
    check_clean(scene.path)
    with scene.open() as topic:
        counted = {label.label: (label.missed, label.acknowledged, label.lag) for label in topic.stats().labels}
    assert counted == {LABELS[0]: (80, 0, 0), LABELS[1]: (80 - had, had, 0), LABELS[2]: (80, 0, 0)}


@pytest.mark.parametrize("durable", [False, True], ids=["plain", "power"])
def test_missed_is_exact_when_all_are_dead_and_the_items_expire_meanwhile(tmp_path: Path, durable: bool) -> None:
    settings: dict[str, Any] = {"durability": "power"} if durable else {}
    scene = TopicScene(tmp_path, ttl=0.5, segment_items=20, **settings)
    scene.begin()
    scene.start("leaves", count=30, kill=True).must_die()
    holder = scene.start("holds", labels=LABELS[:1])
    holder.until_ready()
    holder.kill()
    put = len(scene.account(LABELS[0]).stored())
    assert put == 40
    until(lambda: time.monotonic() > expired_at(scene) - TTL + 0.5, PATIENCE, "all has expired")
    with scene.open() as topic:
        until(lambda: segments(scene.path) == [], PATIENCE, "all segments are gone")
        counted = {label.label: label for label in topic.stats().labels}
        first = counted[LABELS[0]]
        had = {delivery.identity for delivery in scene.account(LABELS[0]).deliveries}
        assert put - len(had) <= first.missed <= put - first.acknowledged, (first, len(had))
        assert [counted[label].missed for label in LABELS[1:]] == [put, put]
    check_clean(scene.path)
