"""The ceiling: the same bytes given to `write`, one call an item, into one file. It can only be written."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path

from benchmarks.adapters.contract import Handle, Settings


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str

    def open(self) -> Handle:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

        def put(item: bytes) -> None:
            if os.write(descriptor, item) != len(item):
                raise OSError(f"short write to {self.path}")

        # No fsync, as a put of segq makes none either: both leave the bytes with the kernel.
        return Handle(put=put, close=lambda: os.close(descriptor))


@dataclass(frozen=True, slots=True)
class PlainWrite:
    """`os.write` to a fresh file on the disk the queues are on."""

    name: str = "plain write"
    version: str = platform.release()
    survives: str = "bytes, but not a queue"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        return _Ticket(str(directory / "plain"))


def adapter() -> PlainWrite:
    return PlainWrite()
