"""RocksQ's queue with a capacity, in one process: it allows no other."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError
from benchmarks.adapters.polling import waiting


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str

    def open(self) -> Handle:
        from rocksq.blocking import PersistentQueueWithCapacity  # type: ignore[import-not-found, unused-ignore]

        queue: Any = PersistentQueueWithCapacity(self.path)
        push, pop = queue.push, queue.pop

        def take() -> Any:
            found = pop(1)
            return found[0] if found else None

        return Handle(
            put=lambda item: push([item]),
            get=waiting(take),
            put_many=push,
            get_many=pop,
            close=lambda: None,
            drained=queue.is_empty,
        )


@dataclass(frozen=True, slots=True)
class RocksqQueue:
    """`rocksq.blocking.PersistentQueueWithCapacity` with its defaults."""

    version: str
    name: str = "RocksQ"
    survives: str = "what its one process had put, if RocksDB's log was flushed"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        return _Ticket(str(directory / "queue"))


def adapter() -> RocksqQueue:
    try:
        import rocksq
    except ImportError as error:
        raise UnavailableError(f"RocksQ is not installed ({error}): pip install rocksq") from error
    return RocksqQueue(rocksq.version())
