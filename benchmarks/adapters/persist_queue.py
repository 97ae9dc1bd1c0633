"""persist-queue: files, or a table in SQLite; for one process, and so it is raced alone."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str
    kind: str

    def open(self) -> Handle:
        import persistqueue  # type: ignore[import-not-found, import-untyped, unused-ignore]

        if self.kind == "file":
            queue: Any = persistqueue.Queue(self.path, autosave=True)
        elif self.kind == "SQLite":
            queue = persistqueue.FIFOSQLiteQueue(self.path, multithreading=False, auto_commit=True)
        else:
            queue = persistqueue.FIFOSQLiteAckQueue(self.path, multithreading=False, auto_commit=True)

        def receive() -> Any:
            item = queue.get()
            queue.ack(item)
            return item

        acked = self.kind == "SQLite ack"
        return Handle(
            put=queue.put,
            get=receive if acked else queue.get,
            receive=receive if acked else None,
            close=lambda: None,
            drained=lambda: queue.qsize() == 0,
        )


@dataclass(frozen=True, slots=True)
class PersistQueue:
    """One of its queues, each committing every item."""

    version: str
    kind: str
    survives: str = "every item whose put returned, in one process"

    @property
    def name(self) -> str:
        return f"persist-queue, {self.kind}"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        return _Ticket(str(directory / "queue"), self.kind)


def _of(kind: str) -> PersistQueue:
    try:
        import persistqueue  # noqa: F401 - whether it can be
    except ImportError as error:
        raise UnavailableError(f"persist-queue is not installed ({error}): pip install persist-queue") from error
    return PersistQueue(version("persist-queue"), kind)


def file() -> PersistQueue:
    return _of("file")


def sqlite() -> PersistQueue:
    return _of("SQLite")


def sqlite_ack() -> PersistQueue:
    return _of("SQLite ack")
