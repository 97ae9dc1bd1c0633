"""SIGKILL at every named fault point, in workloads that lead there; afterwards the account has to close.

Three recoveries: all are dead and the queue is opened again; a second process works on what the first left and is killed as
well; or another process has had the queue open all along, and gets what the dead one held without anybody starting anything.
The ways to each point that add little to the first are for `-m torture`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from scene import Scene
from ways import RESCUES, TOPICS, WAYS, Way

from segq._core.base.failpoints import POINTS

DIRECTLY = [
    pytest.param(point, way, times, marks=() if way is WAYS[point][0] or times == way.times[0] else pytest.mark.torture)
    for point in sorted(WAYS)
    for way in WAYS[point]
    for times in way.times
]
AT_LAST = [
    pytest.param(point, way, way.times[-1], marks=() if way is WAYS[point][0] else pytest.mark.torture)
    for point in sorted(WAYS)
    for way in WAYS[point]
]
FROM_PRODUCERS = [case for case in AT_LAST if not case.values[1].filled]


def test_every_fault_point_has_a_workload_that_is_killed_there() -> None:
    assert set(WAYS) | set(RESCUES) | TOPICS == POINTS


def started_at(place: Path, point: str, way: Way, times: int) -> Scene:
    """The scene after the death; a handle that was open in this process meanwhile is closed."""
    scene = Scene(place, **way.settings)
    queue = scene.open() if way.filled else None
    if queue is not None:
        scene.fill(queue)
        if way.filled == "sealed":
            queue.close()
    scene.start(way.workload, faults=f"{point}=kill:{times}").must_die()
    if queue is not None:
        queue.close()
    return scene


@pytest.mark.parametrize(("point", "way", "times"), DIRECTLY, ids=str)
def test_nothing_is_lost_when_all_are_dead_and_the_queue_is_opened_again(
    tmp_path: Path, point: str, way: Way, times: int
) -> None:
    started_at(tmp_path, point, way, times).close_account()


@pytest.mark.parametrize(("point", "way", "times"), FROM_PRODUCERS, ids=str)
def test_nothing_is_lost_when_the_next_producer_is_killed_as_well(tmp_path: Path, point: str, way: Way, times: int) -> None:
    scene = started_at(tmp_path, point, way, times)
    power = way.settings.get("durability") == "power"  # then nothing goes into the batch
    scene.start("puts", faults=f"{'block' if power else 'put'}.published=kill:7").must_die()
    scene.start("opens", faults="block.written=kill:2").must_die()
    scene.start("puts", faults=f"{'block.written' if power else 'put.payload'}=kill:9").must_die()
    scene.close_account()


@pytest.mark.parametrize(("point", "way", "times"), AT_LAST, ids=str)
def test_a_live_consumer_gets_what_the_dead_one_held(tmp_path: Path, point: str, way: Way, times: int) -> None:
    scene = Scene(tmp_path, **way.settings)
    queue = scene.open()
    if way.filled:
        scene.fill(queue)
    if way.filled == "sealed":
        queue.close()
        queue = scene.open()
    scene.start(way.workload, faults=f"{point}=kill:{times}").must_die()
    scene.recover_live(queue)
    scene.close_account(queue)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("point", RESCUES)
def test_a_rescuer_that_dies_while_opening_is_rescued_in_turn(tmp_path: Path, point: str, times: int) -> None:
    scene = Scene(tmp_path)
    victims = [scene.start("sleeps"), scene.start("sleeps")]
    for victim in victims:
        victim.until_ready()
    for victim in victims:
        victim.kill()
    scene.start("gets", faults=f"{point}=kill:{times}").must_die()
    scene.close_account()


@pytest.mark.parametrize("point", RESCUES)
def test_a_rescuer_that_dies_while_it_waits_for_items_is_rescued_in_turn(tmp_path: Path, point: str) -> None:
    scene = Scene(tmp_path)
    victim = scene.start("holds")
    victim.until_ready()
    with scene.open() as queue:
        rescuer = scene.start("waits", faults=f"{point}=kill")
        rescuer.until_ready()
        victim.kill()
        rescuer.must_die()
        scene.recover_live(queue)
        scene.close_account(queue)
