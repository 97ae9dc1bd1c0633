"""persist-queue: files, or a table in SQLite; for one process, and so it is raced alone."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError

BULK = ("SQLite, bulk", "file, bulk")
"""Nothing is committed until `task_done`."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str
    kind: str

    def open(self) -> Handle:
        import persistqueue  # type: ignore[import-not-found, import-untyped, unused-ignore]

        # Within one thread: `multithreading` would add a lock to each call.
        if self.kind == "SQLite":
            queue: Any = persistqueue.FIFOSQLiteQueue(self.path, multithreading=False, auto_commit=True)
        elif self.kind == "SQLite, bulk":
            queue = persistqueue.FIFOSQLiteQueue(self.path, multithreading=False, auto_commit=False)
        elif self.kind == "SQLite ack":
            queue = persistqueue.FIFOSQLiteAckQueue(self.path, multithreading=False, auto_commit=True)
        else:
            queue = persistqueue.Queue(self.path, autosave=self.kind == "file")

        def receive() -> Any:
            item = queue.get()
            queue.ack(item)
            return item

        def put_done(item: Any) -> None:
            queue.put(item)
            queue.task_done()

        acked = self.kind == "SQLite ack"
        return Handle(
            put=put_done if self.kind == "file, task_done" else queue.put,
            get=receive if acked else queue.get,
            receive=receive if acked else None,
            commit=queue.task_done if self.kind in BULK else None,
            close=lambda: None,
            drained=lambda: queue.qsize() == 0,
        )


@dataclass(frozen=True, slots=True)
class PersistQueue:
    """One of its queues."""

    version: str
    kind: str

    @property
    def name(self) -> str:
        return f"persist-queue, {self.kind}"

    @property
    def survives(self) -> str:
        return "what was committed, in one process" if self.kind in BULK else "every item whose put returned, in one process"

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


def sqlite_bulk() -> PersistQueue:
    return _of("SQLite, bulk")


def file_bulk() -> PersistQueue:
    return _of("file, bulk")


def file_done() -> PersistQueue:
    """The file queue as its benchmark has it: `task_done` after each put."""
    return _of("file, task_done")
