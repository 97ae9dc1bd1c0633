"""The standard library's plainer queue between processes: a pipe and two locks, no thread in between."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.queues import SimpleQueue as _SimpleQueue
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings


@dataclass(frozen=True, slots=True)
class _Ticket:
    queue: _SimpleQueue[Any]

    def open(self) -> Handle:
        return Handle(put=self.queue.put, get=self.queue.get, close=lambda: None, drained=self.queue.empty)


@dataclass(frozen=True, slots=True)
class SimpleQueue:
    """`multiprocessing.SimpleQueue`; `put` blocks when the pipe (64 KiB) is full."""

    name: str = "multiprocessing.SimpleQueue"
    version: str = platform.python_version()
    survives: str = "nothing: items are in a pipe"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        return _Ticket(context.SimpleQueue())


def adapter() -> SimpleQueue:
    return SimpleQueue()
