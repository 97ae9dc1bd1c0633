"""Loss of power: with durability="power" nothing acknowledged is lost when everything not synced is; with "process" the queue opens.

`power.py` says which states of the disk are made, and which are not. By default a few of the moments of some workloads; for
`-m torture` forty of each, with three states each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import ROOT

POWER = Path(__file__).with_name("power.py")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """In memory if there is room for that: what a real disk would do is not asked here, and fsync takes its time there."""
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30 else tmp_path
    with tempfile.TemporaryDirectory(prefix="segq-power-", dir=parent) as made:
        yield Path(made, "power")


def survive(place: Path, workload: str, settings: str, points: int, states: int, seed: int) -> None:
    if reason := why_not_in_a_process_of_its_own():
        pytest.skip(reason)
    command = [sys.executable, str(POWER), str(place), workload, settings, str(points), str(states), str(seed)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    print(ended.stdout[-3000:], ended.stderr[-3000:])
    assert ended.returncode == 0, f"seed {seed}: {ended.stdout[-6000:]}\n{ended.stderr[-3000:]}"
    facts = json.loads(ended.stdout.splitlines()[-1])
    assert facts["states"] == points * states
    assert facts["calls"]["fsync"] > 10, "the recording saw hardly any fsync: it does not see what it should"


def why_not_in_a_process_of_its_own() -> str:
    """Tracing forks, which a process with threads had better not."""
    code = "import tracing; print(tracing.why_not())"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=POWER.parent, timeout=60)
    return asked.stdout.strip() if asked.returncode == 0 else f"cannot trace: {asked.stderr.strip()[-200:]}"


@pytest.mark.parametrize(
    ("workload", "settings", "points"),
    [("working", "power", 8), ("spreading", "power", 6), ("producing", "process", 6)],
)
def test_what_was_acknowledged_is_there_after_a_loss_of_power(place: Path, workload: str, settings: str, points: int) -> None:
    survive(place, workload, settings, points, 2, 1)


LONG = [
    ("producing", "power"), ("working", "power"), ("returning", "power"), ("spreading", "power"), ("producing", "power-limited"),
    ("working", "power-limited"), ("spreading", "power-expiring"), ("producing", "process"), ("working", "process"),
    ("returning", "process"), ("spreading", "process"), ("working", "process-large"),
]  # fmt: skip


@pytest.mark.torture
@pytest.mark.parametrize(("workload", "settings"), LONG)
def test_what_was_acknowledged_is_there_after_a_loss_of_power_at_many_moments(
    place: Path, workload: str, settings: str
) -> None:
    survive(place, workload, settings, 40, 3, int(os.environ.get("SEGQ_SEED", "2")))
