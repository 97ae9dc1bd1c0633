"""A stand-in for persist-queue: `import segq.compat.persistqueue as persistqueue` is the whole change.

`Queue` and `AsyncQueue` are segq queues. The others (by id, by status, by priority, last in first out, no two alike, `PDict`)
need more than a log gives and lie in SQLite, in persist-queue's own tables; there too, processes share them, and what a
killed one had in hand comes back. The names, arguments and defaults are persist-queue's (1.1). What is different, point by
point: docs/coming-from-persist-queue.md.
"""

from __future__ import annotations

from typing import Any

from segq.compat.persistqueue.async_queue import AsyncQueue
from segq.compat.persistqueue.async_sqlqueue import AsyncFIFOSQLiteQueue, AsyncFILOSQLiteQueue, AsyncSQLiteQueue, AsyncUniqueQ
from segq.compat.persistqueue.exceptions import Empty, Full
from segq.compat.persistqueue.pdict import PDict
from segq.compat.persistqueue.priorityqueue import PriorityQueue
from segq.compat.persistqueue.queue import Queue
from segq.compat.persistqueue.sqlackqueue import (
    AckStatus,
    FIFOSQLiteAckQueue,
    FILOSQLiteAckQueue,
    SQLiteAckQueue,
    UniqueAckQ,
)
from segq.compat.persistqueue.sqlqueue import FIFOSQLiteQueue, FILOSQLiteQueue, SQLiteQueue, UniqueQ

__version__ = "1.1.0"  # of persist-queue: what this stands in for

__all__ = [
    "AckStatus", "AsyncFIFOSQLiteQueue", "AsyncFILOSQLiteQueue", "AsyncQueue", "AsyncSQLiteQueue", "AsyncUniqueQ", "Empty",
    "FIFOSQLiteAckQueue", "FIFOSQLiteQueue", "FILOSQLiteAckQueue", "FILOSQLiteQueue", "Full", "PDict", "PriorityQueue", "Queue",
    "SQLiteAckQueue", "SQLiteQueue", "UniqueAckQ", "UniqueQ",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "MySQLQueue":
        raise ImportError(
            "segq has no MySQLQueue: for more than one machine see segq's engines (docs/coming-from-persist-queue.md)"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
