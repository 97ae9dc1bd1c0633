"""RocksQ's queue with labels, as its documentation uses it: one process, which puts and takes in turns."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import FanHandle, Settings, UnavailableError

HOUR = 3600


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str
    one_process: bool = True

    def open(self, label: str | None = None) -> FanHandle:  # noqa: ARG002 - the handle takes them one by one
        from rocksq import StartPosition
        from rocksq.blocking import MpmcQueue

        queue: Any = MpmcQueue(self.path, HOUR)

        def get_many(most: int, label: str = "0") -> list[Any]:
            items: list[Any] = queue.next(label, StartPosition.Oldest, most)[0]
            return items

        return FanHandle(put_many=queue.add, get_many=get_many, close=lambda: None)


@dataclass(frozen=True, slots=True)
class RocksqMpmc:
    """`rocksq.blocking.MpmcQueue` with an hour to live."""

    version: str
    name: str = "RocksQ MpmcQueue"
    survives: str = "what its one process had put, if RocksDB's log was flushed"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        return _Ticket(str(directory / "mpmc"))


def adapter() -> RocksqMpmc:
    try:
        import rocksq  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UnavailableError(f"RocksQ is not installed ({error}): pip install rocksq") from error
    return RocksqMpmc(rocksq.version())
