"""SIGKILL at system calls that a work makes on its way, those of RocksDB among them.

Really killed at some (`syscalls.py`); between all of them, by what the files were at that moment (`every_call.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accounts import ROOT
from syscalls import NOT_PERMITTED
from tracing import why_not_asked

EVERY = Path(__file__).with_name("every_call.py")
SWEEP = Path(__file__).with_name("syscalls.py")
MINUTES = 60.0
EVERY_ONE = 0


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


def test_a_call_that_changes_names_or_sizes_may_be_the_last_or_fail(tmp_path: Path) -> None:
    sweep(tmp_path / "calls", "queue", "power", "kill,ENOSPC", "structural", 6, 20)


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("work", ["queue", "topic"])
def test_a_kill_at_any_kind_of_call_loses_nothing(tmp_path: Path, work: str, durability: str) -> None:
    sweep(tmp_path / "calls", work, durability, "kill", "all", 25, 1, minutes=10)


def survive_each(place: Path, work: str, durability: str, count: int) -> None:
    if reason := why_not_asked():
        pytest.skip(reason)
    command = [sys.executable, str(EVERY), str(place), work, durability, str(count), os.environ.get("SEGQ_SEED", "1")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, timeout=1500, check=False
    )
    print(ended.stdout[-8000:])
    assert ended.returncode == 0
    facts = json.loads(ended.stdout.splitlines()[-1])
    assert facts["tried"] == (count or facts["moments"]) > 0
    assert facts["moments"] > 500, "the recording saw hardly anything"


@pytest.mark.parametrize(("work", "durability"), [("queue", "process"), ("topic", "power")])
def test_a_kill_between_two_calls_loses_nothing(in_memory: Path, work: str, durability: str) -> None:
    survive_each(in_memory, work, durability, 15)


@pytest.mark.torture
@pytest.mark.parametrize(("durability", "count"), [("process", EVERY_ONE), ("power", 400)])
@pytest.mark.parametrize("work", ["queue", "topic"])
def test_a_kill_between_any_two_calls_loses_nothing(in_memory: Path, work: str, durability: str, count: int) -> None:
    survive_each(in_memory, work, durability, count)
