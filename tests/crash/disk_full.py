"""Fills the disk at one step of a work or another: `python disk_full.py PLACE DISK WORK SETTINGS COUNT SEED`.

DISK is a small file system of its own, PLACE lies elsewhere: a user who goes on while there is no room (or nearly none: a few
pages, so that it runs out in the middle of something) must be told so by each put that fails, must get what waits, and must be
able to put again, through the same handle, as soon as there is room. Afterwards the account has to close.

COUNT attempts are made: nothing left almost from the beginning to the end, and others that SEED chooses from all (step, how
much is left, for how many steps).
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "unit"))

from disks import fill
from syscalls import Attempt, in_child
from works import WORKS, Work

import segq

LEFT = (0, 0, 4096, 20_000, 70_000, 300_000, 700_000)  # bytes: for nothing, a ledger, a blob, a batch, and little more
STEPS = (1, 4, 100)  # for so long
MOST_STEPS = 30


@dataclasses.dataclass(frozen=True, slots=True)
class Shortage:
    """From this step on, for so many steps, so many bytes are left."""

    step: int
    left: int
    steps: int


def work_on(attempt: Attempt, disk: Path, shortage: Shortage) -> None:
    """In a process of its own. Fails if a user would have to do anything but go on."""
    kind, steps = WORKS[attempt.kind]
    work = kind(attempt.place, attempt.settings)
    turns = steps(work)
    for _ in itertools.islice(turns, shortage.step):
        pass
    plug = shorten(disk, shortage.left)
    work.trouble_lasts = True
    for _ in itertools.islice(turns, shortage.steps):
        work.takes_on_a_full_disk()
    plug.unlink()
    work.trouble_lasts = False
    for error in work.errors:
        assert isinstance(error, segq.StorageError), f"this is not what a full disk says: {error!r}"
        assert error.errno == errno.ENOSPC, repr(error)
    os.writev(1, [f"refused: {work.refused} {len(work.errors)}\n".encode()])
    work.errors.clear()
    goes_on(work, turns)


def goes_on(work: Work, turns: Iterator[None]) -> None:
    """There is room again: nothing is refused any more."""
    work.put(1)
    work.put(2, many=True)
    for _ in turns:
        pass
    work.end()
    assert not work.errors, f"there is room, and yet: {work.errors}"


def shorten(disk: Path, left: int) -> Path:
    """Leaves so many bytes; returns the file to delete to have room again."""
    plug = fill(disk)
    os.truncate(plug, max(0, plug.stat().st_size - left))
    return plug


def attempts(count: int, seed: int) -> list[Shortage]:
    every = [Shortage(*which) for which in itertools.product(range(MOST_STEPS), LEFT, STEPS)]
    return [Shortage(2, 0, 100), *random.Random(seed).sample(every, count - 1)]


def run(place: Path, disk: Path, kind: str, settings: dict[str, Any], shortage: Shortage) -> int:
    """Returns how many puts were refused."""
    attempt = Attempt(place, kind, settings)
    (place / "disk").symlink_to(disk)
    attempt.prepare()
    code = in_child(lambda: work_on(attempt, disk, shortage), attempt.output)
    assert code == 0, f"the work ended with {code}:\n{attempt.said()}"
    assert "Traceback" not in attempt.said(), f"something foreign was raised:\n{attempt.said()}"
    attempt.close()
    return int(attempt.said().partition("refused: ")[2].split()[0])


def main(place: str, disk: str, kind: str, durability: str, count: str, seed: str) -> None:
    begun, refused, wrong = time.monotonic(), 0, 0
    chosen = attempts(int(count), int(seed))
    for n, shortage in enumerate(chosen):
        try:
            refused += run(Path(place, str(n)), Path(disk), kind, {"durability": durability}, shortage)
        except AssertionError as error:
            wrong += 1
            print(f"--- {n}: {shortage}\n{error}\n", flush=True)
        for left in Path(disk).iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    print(f"{kind} {durability}: {len(chosen)} shortages (seed {seed}), {refused} puts refused, {wrong} not survived,"
          f" {time.monotonic() - begun:.0f} s")  # fmt: skip
    assert refused or wrong, "the disk was never full"
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
