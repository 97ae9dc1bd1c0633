"""A disk that refuses, at a fault point or in any operation: a clean error, nothing acknowledged lost, nothing failed stored."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accounts import ROOT
from scene import Scene
from ways import WAYS, Way

from segq._core.base.failpoints import POINTS

SWEEP = Path(__file__).with_name("disk_errors.py")
GROUPS = ("put.", "turn.", "block.", "blob.", "create.", "seal.")
NO_DISK_IS_ASKED_AFTER_IT = {
    "put.payload": "the item is copied to pages that have their place on the disk; what follows are stores to memory",
    "put.published": "the put has succeeded: what is published cannot fail any more",
    "turn.flushed": "the half is in RocksDB; taking the other one is stores to memory",
    "turn.turned": "the same",
    "block.written": "the block is in RocksDB; publishing it is one store to memory",
    "block.published": "the put has succeeded",
    "blob.written": "the bytes are in the blob; what follows is the batch or a block, with points of its own",
    "seal.renamed": "the segment is sealed; what follows is tidying, whose errors are swallowed (see the sweep below)",
    "seal.tidied": "the same",
}
REFUSABLE = sorted(point for point in POINTS if point.startswith(GROUPS) and point not in NO_DISK_IS_ASKED_AFTER_IT)
CASES = [
    pytest.param(point, way, way.times[-1], marks=() if way in WAYS[point][:2] else pytest.mark.torture)
    for point in REFUSABLE
    for way in WAYS[point]
]


@pytest.mark.parametrize(("point", "way", "times"), CASES, ids=str)
def test_a_put_that_the_disk_refuses_stores_nothing_and_the_handle_goes_on(
    tmp_path: Path, point: str, way: Way, times: int
) -> None:
    scene = Scene(tmp_path, **way.settings)
    victim = scene.start(way.workload, faults=f"{point}=raise:{times}")
    victim.must_end_well()
    assert "fault point" in victim.said() or "No space left" in victim.said() or "disk is full" in victim.said(), (
        f"the fault point was not reached, or its error swallowed\n{victim.said()}"
    )
    scene.close_account()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("point", REFUSABLE)
def test_nothing_is_lost_when_the_producer_is_killed_after_an_error(tmp_path: Path, point: str, times: int) -> None:
    way = WAYS[point][0]
    scene = Scene(tmp_path, **way.settings)
    late = "put.begun" if point == "put.begun" else "put.published"
    if late == point:
        pytest.skip("one point cannot do both")
    victim = scene.start(way.workload, faults=f"{point}=raise:{times},{late}=kill:{30 if way.workload != 'blocks' else 9}")
    victim.process.wait(60)
    scene.close_account()


def sweep(place: Path, *arguments: object, minutes: float = 3) -> None:
    """A process of its own, because it replaces the operations of segq's modules."""
    command = [sys.executable, str(SWEEP), str(place), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SEGQ_FAILPOINTS": ""}
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=60 * minutes, check=False
    )
    assert ended.returncode == 0, f"ended with {ended.returncode}:\n{ended.stdout.decode()[-6000:]}"


@pytest.mark.parametrize(
    ("scenario", "durability", "error", "first", "step"),
    [
        ("producing", "process", "ENOSPC", 2, 11),
        ("producing", "power", "EIO", 5, 19),
        ("consuming", "process", "EMFILE", 3, 13),
    ],
)
def test_an_operation_that_fails_now_and_then_loses_nothing(
    tmp_path: Path, scenario: str, durability: str, error: str, first: int, step: int
) -> None:
    sweep(tmp_path / "disk", scenario, durability, error, first, step)


@pytest.mark.torture
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EMFILE"])
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("scenario", ["producing", "consuming"])
def test_any_operation_may_fail(tmp_path: Path, scenario: str, durability: str, error: str) -> None:
    sweep(tmp_path / "disk", scenario, durability, error, 1, 1, minutes=15)
