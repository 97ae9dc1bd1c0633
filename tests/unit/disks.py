"""Small, full and read-only file systems for tests; they need root and the right to mount."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    ended = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if ended.returncode:
        pytest.skip(f"cannot mount here: {ended.stderr.strip()}")


@contextlib.contextmanager
def tmpfs(place: Path, size: str) -> Iterator[Path]:
    """An empty file system of that size."""
    place.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    """The directory, read-only for the time."""
    _mount("--bind", str(place), str(place))
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Takes all the room there is; returns the file to delete to give it back."""
    plug = place / "plug"
    with plug.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return plug
