"""`SQLiteQueue`, `FILOSQLiteQueue` and `UniqueQ`."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from segq.compat.persistqueue.table import Table


class SQLiteQueue(Table):
    """First in, first out."""

    _TABLE = "queue"

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> int | None:  # noqa: ARG002
        """Stores an item and returns its id. There is always room; `block` and `timeout` are for those who know
        `queue.Queue`.
        """
        return self._insert("data, timestamp", self._serializer.dumps(item), time.time())

    def put_nowait(self, item: Any) -> int | None:
        """The same as `put`."""
        return self.put(item)


FIFOSQLiteQueue = SQLiteQueue


class FILOSQLiteQueue(SQLiteQueue):
    """First in, last out."""

    _TABLE = "filo_queue"
    _ORDER = "t._id DESC"


class UniqueQ(SQLiteQueue):
    """First in, first out; an item that is in it already is not put again. Dicts are compared whatever the order of their
    keys.
    """

    _TABLE = "unique_queue"
    _COLUMNS = "data BLOB, timestamp FLOAT, UNIQUE (data)"

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> int | None:  # noqa: ARG002
        """Stores an item and returns its id; None if it was there."""
        return put_unless_there(self, "data, timestamp", self._serializer.dumps(item, sort_keys=True), time.time())


def put_unless_there(queue: Table, columns: str, *values: Any) -> int | None:
    """The id of the new row; None if there is one with these data."""
    try:
        return queue._insert(columns, *values)  # noqa: SLF001
    except sqlite3.IntegrityError:
        return None
