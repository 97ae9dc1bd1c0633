"""Loss of power: with durability="power" nothing acknowledged is lost when everything not synced is; with "process" the queue opens.

`power.py` says which states of the disk are made, and which are not. By default a few of the moments of some workloads; for
`-m torture` forty of each, with three states each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accounts import ROOT
from tracing import why_not_asked

POWER = Path(__file__).with_name("power.py")


def survive(in_memory: Path, workload: str, settings: str, points: int, states: int, seed: int) -> None:
    if reason := why_not_asked():
        pytest.skip(reason)
    command = [sys.executable, str(POWER), str(in_memory), workload, settings, str(points), str(states), str(seed)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    print(ended.stdout[-3000:], ended.stderr[-3000:])
    assert ended.returncode == 0, f"seed {seed}: {ended.stdout[-6000:]}\n{ended.stderr[-3000:]}"
    facts = json.loads(ended.stdout.splitlines()[-1])
    assert facts["states"] == points * states
    assert facts["calls"]["fsync"] > 10, "the recording saw hardly any fsync: it does not see what it should"


@pytest.mark.parametrize(
    ("workload", "settings", "points"),
    [("working", "power", 8), ("spreading", "power", 6), ("producing", "process", 6)],
)
def test_what_was_acknowledged_is_there_after_a_loss_of_power(
    in_memory: Path, workload: str, settings: str, points: int
) -> None:
    survive(in_memory, workload, settings, points, 2, 1)


LONG = [
    ("producing", "power"), ("working", "power"), ("returning", "power"), ("spreading", "power"), ("producing", "power-limited"),
    ("working", "power-limited"), ("spreading", "power-expiring"), ("producing", "process"), ("working", "process"),
    ("returning", "process"), ("spreading", "process"), ("working", "process-large"),
]  # fmt: skip


@pytest.mark.torture
@pytest.mark.parametrize(("workload", "settings"), LONG)
def test_what_was_acknowledged_is_there_after_a_loss_of_power_at_many_moments(
    in_memory: Path, workload: str, settings: str
) -> None:
    survive(in_memory, workload, settings, 40, 3, int(os.environ.get("SEGQ_SEED", "2")))
