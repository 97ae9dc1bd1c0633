"""litequeue: a table in SQLite, one row and one transaction for each item."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError
from benchmarks.adapters.polling import waiting


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str

    def open(self) -> Handle:
        from litequeue import LiteQueue  # type: ignore[import-not-found, unused-ignore]

        queue = LiteQueue(self.path)

        def take() -> Any:
            message = queue.pop()
            if message is None:
                return None
            queue.done(message.message_id)
            return message.data

        get = waiting(take)
        return Handle(put=queue.put, get=get, receive=get, close=queue.close, drained=queue.empty)


@dataclass(frozen=True, slots=True)
class LiteQueueOnDisk:
    """`litequeue.LiteQueue` in a file: `pop`, then `done`, which is its acknowledgement."""

    version: str
    name: str = "litequeue"
    survives: str = "every item whose put returned"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        ticket = _Ticket(str(directory / "queue.sqlite3"))
        ticket.open().close()
        return ticket


def adapter() -> LiteQueueOnDisk:
    try:
        import litequeue  # noqa: F401 - whether it can be
    except ImportError as error:
        raise UnavailableError(f"litequeue is not installed ({error}): pip install litequeue") from error
    return LiteQueueOnDisk(version("litequeue"))
