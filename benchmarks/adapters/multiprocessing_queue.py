"""The standard library's queue between processes: in memory, a pipe behind a lock."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings


@dataclass(frozen=True, slots=True)
class _Ticket:
    queue: Queue[Any]

    def open(self) -> Handle:
        queue = self.queue

        def close() -> None:
            queue.close()
            # Only now has the feeder thread handed everything to the pipe.
            queue.join_thread()

        return Handle(put=queue.put, get=queue.get, close=close, drained=queue.empty)


@dataclass(frozen=True, slots=True)
class MultiprocessingQueue:
    """`multiprocessing.Queue`, unbounded unless a capacity is asked for. It always pickles."""

    name: str = "multiprocessing.Queue"
    version: str = platform.python_version()
    survives: str = "nothing: items are in memory"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        return _Ticket(context.Queue(settings.capacity or 0))


def adapter() -> MultiprocessingQueue:
    return MultiprocessingQueue()
