"""SIGKILL at system calls that a work makes on its way, those of RocksDB among them (see `syscalls.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accounts import ROOT
from syscalls import NOT_PERMITTED

SWEEP = Path(__file__).with_name("syscalls.py")
MINUTES = 60.0


def sweep(place: Path, *arguments: object, minutes: float = 2) -> None:
    """A process of its own, because it forks."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SEGQ_FAILPOINTS": ""}
    command = [sys.executable, str(SWEEP), str(place), *map(str, arguments)]
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=minutes * MINUTES, check=False
    )
    said = ended.stdout.decode(errors="replace")
    if ended.returncode == NOT_PERMITTED:
        pytest.skip(said.strip())
    print(said)
    assert ended.returncode == 0, f"ended with {ended.returncode}:\n{said[-8000:]}"


@pytest.mark.parametrize(("work", "durability", "count"), [("queue", "power", 6), ("topic", "process", 3)])
def test_a_call_that_changes_names_or_sizes_may_be_the_last_or_fail(
    tmp_path: Path, work: str, durability: str, count: int
) -> None:
    sweep(tmp_path / "calls", work, durability, "kill,ENOSPC", "structural", count, 20)


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize(("work", "count"), [("queue", 70), ("topic", 80)])
def test_a_kill_at_any_kind_of_call_loses_nothing(tmp_path: Path, work: str, durability: str, count: int) -> None:
    sweep(tmp_path / "calls", work, durability, "kill", "all", count, 1, minutes=10)
