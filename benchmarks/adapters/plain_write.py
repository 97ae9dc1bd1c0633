"""The ceiling: the same bytes given to `write`, one call an item (or a batch), into one file. It can only be written."""

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
    sync_every: int

    def open(self) -> Handle:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

        left = self.sync_every

        def put(item: bytes) -> None:
            nonlocal left
            if os.write(descriptor, item) != len(item):
                raise OSError(f"short write to {self.path}")
            left -= 1
            if not left:
                os.fdatasync(descriptor)
                left = self.sync_every

        def put_many(items: list[bytes]) -> None:
            put(b"".join(items))

        # Without a sync the bytes stay with the kernel, as those of a put do (durability="process").
        return Handle(put=put, put_many=put_many, close=lambda: os.close(descriptor))

    def stored(self) -> int:
        return os.path.getsize(self.path)


@dataclass(frozen=True, slots=True)
class PlainWrite:
    """`os.write` to a fresh file on the disk the queues are on; with `sync_every`, at the rate at which the disk keeps up."""

    name: str = "plain write"
    sync_every: int = 0
    version: str = platform.release()
    survives: str = "bytes, but not a queue"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        return _Ticket(str(directory / "plain"), self.sync_every)


def adapter() -> PlainWrite:
    return PlainWrite()


def synced() -> PlainWrite:
    """What the disk itself takes: a sync for each 16 MiB of 1 MiB items."""
    return PlainWrite(name="plain write, synced", sync_every=16, survives="loss of power, but not a queue")
