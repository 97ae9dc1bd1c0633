"""The disk's errors where the kernel says them: at single system calls, RocksDB's among them, and on a disk that is really full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accounts import ROOT
from test_killed_at_any_syscall import sweep

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "unit"))

from disks import tmpfs

FULL = Path(__file__).with_name("disk_full.py")
ERRORS = "ENOSPC,EIO,EMFILE,EACCES,ENOMEM,EMFILE*30,ENOSPC*30,EIO*3"


def shortages(place: Path, *arguments: object, minutes: float = 2) -> None:
    """A process of its own, because it forks."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SEGQ_FAILPOINTS": ""}
    with tmpfs(place / "small", "16m") as disk:
        command = [sys.executable, str(FULL), str(place / "shortages"), str(disk), *map(str, arguments)]
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=minutes * 60, check=False
        )
    said = ended.stdout.decode(errors="replace")
    print(said)
    assert ended.returncode == 0, f"ended with {ended.returncode}:\n{said[-8000:]}"


@pytest.mark.parametrize("work", ["queue", "topic"])
def test_a_disk_that_is_full_for_a_while_stops_puts_only_and_only_for_that_while(tmp_path: Path, work: str) -> None:
    shortages(tmp_path, work, "process", 2, 5)


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("work", ["queue", "topic"])
def test_any_kind_of_call_may_fail(tmp_path: Path, work: str, durability: str) -> None:
    sweep(tmp_path / "calls", work, durability, ERRORS, "failing", 45, 1, minutes=10)


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("work", ["queue", "topic"])
def test_a_disk_may_be_full_at_any_step(tmp_path: Path, work: str, durability: str) -> None:
    shortages(tmp_path, work, durability, 25, 1, minutes=5)
