"""SIGKILL at any line of segq that a workload executes, not only where a fault point stands (see `any_line.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accounts import ROOT

SWEEP = Path(__file__).with_name("any_line.py")
SCENARIOS = ("producing", "consuming", "failing", "rescuing")
MINUTES = 60.0


def sweep(place: Path, *arguments: object, seconds: float = 3 * MINUTES) -> None:
    """A process of its own, because it forks."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SEGQ_FAILPOINTS": ""}
    command = [sys.executable, str(SWEEP), str(place), *map(str, arguments)]
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=seconds, check=False
    )
    assert ended.returncode == 0, f"ended with {ended.returncode}:\n{ended.stdout.decode()[-6000:]}"


@pytest.mark.parametrize(("scenario", "settings"), [*((name, "plain") for name in SCENARIOS), ("consuming", "limited")])
def test_a_death_now_and_then_loses_nothing(tmp_path: Path, scenario: str, settings: str) -> None:
    sweep(tmp_path / "deaths", scenario, settings, "reopen", 11, 307)


def test_a_death_now_and_then_is_made_good_by_a_live_consumer(tmp_path: Path) -> None:
    sweep(tmp_path / "deaths", "consuming", "plain", "live", 700, 997)


@pytest.mark.torture
@pytest.mark.parametrize("settings", ["plain", "limited"])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("recovery", ["reopen", "live"])
def test_a_death_at_any_line_loses_nothing(tmp_path: Path, scenario: str, settings: str, recovery: str) -> None:
    sweep(tmp_path / "deaths", scenario, settings, recovery, 1, 17 if recovery == "reopen" else 199, seconds=10 * MINUTES)
