"""The place where a repetition runs: fresh, its memory warm, gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PIECE = bytes(1 << 20)


@contextmanager
def ground(below: Path, footprint: int) -> Iterator[Path]:
    """An empty directory on the disk of ``below``, deleted at the end whatever happened.

    First, a file of ``footprint`` bytes is written and deleted there. A virtual machine may have to get each
    page from its host at the first touch: measured, plain writes ran at 0.5 GB/s into memory so far untouched, and at
    5 GB/s right after. Without this the entrant whose turn comes first would pay for the others.
    """
    directory = Path(tempfile.mkdtemp(prefix="segq-benchmark-", dir=below))
    try:
        _touch(directory / "warm", footprint)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _touch(path: Path, size: int) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(-(-size // len(_PIECE))):
            file.write(_PIECE)
    # Deleted before the kernel comes to write it: it costs memory bandwidth, not the disk's.
    path.unlink()


def affordable(footprint: int) -> int:
    """The footprint, cut to an eighth of the machine's memory, below the kernel's limit of dirty pages."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return min(footprint, 1 << 28)
    return min(footprint, memory // 8)
