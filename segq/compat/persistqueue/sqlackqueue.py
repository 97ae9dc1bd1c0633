"""`SQLiteAckQueue`, `FILOSQLiteAckQueue` and `UniqueAckQ`: what is got stays, with a status, until it is cleared away."""

from __future__ import annotations

import collections
import logging
import sqlite3
import time
import warnings
from typing import Any, ClassVar

from segq.compat.persistqueue.sqlqueue import put_unless_there
from segq.compat.persistqueue.table import Row, Table

log = logging.getLogger(__name__)


class AckStatus:
    """The column `status`."""

    inited = "0"
    ready = "1"
    unack = "2"
    acked = "5"
    ack_failed = "9"


class Held:
    """What a handle got and has not acknowledged: items by their ids, and back."""

    def __init__(self) -> None:
        self._items: dict[int, Any] = {}
        self._rows: collections.defaultdict[int, list[int]] = collections.defaultdict(list)

    def add(self, row: int, item: Any) -> None:
        self.drop(row)
        self._items[row] = item
        self._rows[id(item)].append(row)

    def row_of(self, item: Any) -> int | None:
        """The row of this very object. (Equal ones may be in the queue several times.)"""
        rows = self._rows.get(id(item))
        return rows[0] if rows else None

    def drop(self, row: int) -> None:
        if row in self._items:
            key = id(self._items.pop(row))
            self._rows[key].remove(row)
            if not self._rows[key]:
                del self._rows[key]

    def __len__(self) -> int:
        return len(self._items)


class SQLiteAckQueue(Table):
    """First in, first out; an item is done when it is acknowledged.

    What a process had in hand when it died is ready again within about a second for those who wait (if `auto_resume`), and
    when the queue is opened. What a living process has in hand is left to it.
    """

    _TABLE = "ack_queue"
    _COLUMNS = "data BLOB, timestamp FLOAT, status INTEGER"
    _WAITS = "t.status < 2"
    _INDEX = "status"
    _NEXT: ClassVar[str] = "t._id > :row"

    def __init__(self, path: Any, auto_resume: bool = True, **kwargs: Any) -> None:
        self._auto_resume = auto_resume
        self._held = Held()
        super().__init__(path, **kwargs)
        if not self.auto_commit:
            warnings.warn("disable auto commit is not supported in ack queue", stacklevel=2)
            self.auto_commit = True

    def _on_open(self) -> None:
        if self._auto_resume:
            self.resume_unack_tasks()

    def resume_unack_tasks(self) -> None:
        """Makes ready again what was got and not acknowledged, except what another living process has in hand."""
        with self._db.transaction() as sql:
            self._claims.release_dead(sql)
            if self._claims.any_own or self.memory_sql:
                self._claims.release_own(sql)
            self._resume(sql)
        self._counted = None

    def _resume(self, sql: sqlite3.Connection) -> None:
        sql.execute(
            f"UPDATE {self._table} SET status = 1 WHERE status = 2"
            f" AND NOT EXISTS (SELECT 1 FROM segq_claims AS c WHERE c.queue = ? AND c.id = {self._table}._id)",
            (self._queue,),
        )

    def put(self, item: Any) -> int | None:
        """Stores an item and returns its id. There is always room."""
        return self._insert("data, timestamp, status", self._serializer.dumps(item), time.time(), 0)

    def get(  # type: ignore[override]  # persist-queue's signature
        self,
        block: bool = True,
        timeout: float | None = None,
        id: Any = None,  # noqa: A002
        next_in_order: bool = False,
        raw: bool = False,
    ) -> Any:
        """Takes the next item, or the one of that id, whatever its status, or with `next_in_order` the one after it (after the
        last one the first).

        `id` is a number, or what `get(raw=True)` returned. With `raw` the item is a dict with `pqid`, `data` and `timestamp`.
        Waits up to `timeout` seconds (None: for ever), or not at all if `block` is false.

        Raises Empty: it is not there (in time). ValueError.
        """
        row = _number(id)
        if next_in_order and not isinstance(next_in_order, bool):
            raise ValueError("'next_in_order' must be a boolean (True/False)")
        if row is None and next_in_order:
            raise ValueError("'next_in_order' requires the preceding 'id' be specified.")
        return self._got(row or None, block, timeout, raw=raw, after=next_in_order)

    def _find(self, sql: sqlite3.Connection, row: int | None, *, after: bool) -> tuple[Any, ...] | None:
        if row is None:
            return self._first(sql, "1", 0)
        if after:
            return self._first(sql, self._NEXT, row) or self._first(sql, "1", 0)
        found: tuple[Any, ...] | None = sql.execute(f"SELECT * FROM {self._table} WHERE _id = ?", (row,)).fetchone()
        return None if found is None or self._claims.is_others(sql, row) else found

    def _first(self, sql: sqlite3.Connection, where: str, row: int) -> tuple[Any, ...] | None:
        """The first that waits. The index has ids in order within each status, so that acknowledged rows cost nothing."""
        first = f"ORDER BY {self._ORDER} LIMIT 1"
        of_each = " UNION ALL ".join(
            f"SELECT * FROM (SELECT * FROM {self._table} AS t WHERE t.status = {status} AND {where} {first})"
            for status in (0, 1)
        )
        query = f"SELECT * FROM ({of_each}) AS t {first}"
        found: tuple[Any, ...] | None = sql.execute(query, {"row": row}).fetchone()
        return found

    def _hand_out(self, sql: sqlite3.Connection, columns: tuple[Any, ...], item: Any) -> None:
        self._mark_row(sql, columns[0], AckStatus.unack)
        self._claims.claim(sql, columns[0])
        self._held.add(columns[0], item)

    def _count_taken(self, row: Row) -> None:
        if row.columns[3] < int(AckStatus.unack):  # by its id, any can be taken
            self._count_by(-1)

    def _put_back(self, row: Row) -> None:
        self._settle(row.id, AckStatus.ready)

    def _set_aside(self, sql: sqlite3.Connection, columns: tuple[Any, ...], error: Exception) -> None:
        log.warning("%s: item %d of %s cannot be read (%r); it has failed", self._file, columns[0], self._queue, error)
        self._mark_row(sql, columns[0], AckStatus.ack_failed)
        self._counted = None

    def _mark_row(self, sql: sqlite3.Connection, row: int, status: str) -> None:
        sql.execute(f"UPDATE {self._table} SET status = ? WHERE _id = ?", (int(status), row))

    # --- settling ---

    def ack(self, item: Any = None, id: Any = None) -> int | None:  # noqa: A002
        """The work on it is done. `item`: the very object that this handle's `get` returned (raw ones: of any handle); or `id`.

        Returns the id; None for an item that is not known. Raises ValueError if both or none are given.
        """
        return self._settle(self._row_of(item, id), AckStatus.acked)

    def ack_failed(self, item: Any = None, id: Any = None) -> int | None:  # noqa: A002
        """The work on it has failed for good: it is kept, and not handed out again. Arguments as for `ack`."""
        return self._settle(self._row_of(item, id), AckStatus.ack_failed)

    def nack(self, item: Any = None, id: Any = None) -> int | None:  # noqa: A002
        """Gives it back, to be handed out again. Arguments as for `ack`."""
        return self._settle(self._row_of(item, id), AckStatus.ready)

    def _row_of(self, item: Any, id: Any) -> int | None:  # noqa: A002
        if id is not None and item is not None:
            raise ValueError("Specify an id or an item, not both.")
        if id is None and item is None:
            raise ValueError("Specify an id or an item.")
        if id is not None:
            row = _number(id)
        elif isinstance(item, dict) and "pqid" in item:
            row = item["pqid"]
        else:
            row = self._held.row_of(item)
        if row is None:
            log.warning("%s: %r is no id, nor an item that this object has in hand", self._file, id if id is not None else item)
        return row

    def _settle(self, row: int | None, status: str) -> int | None:
        if row is None:
            return None
        with self._db.transaction() as sql:
            self._mark_row(sql, row, status)
            self._claims.release(sql, row)
            self._held.drop(row)
        self._counted = None
        if status == AckStatus.ready:
            self._came()
        return row

    def clear_acked_data(self, max_delete: int = 1000, keep_latest: int = 1000, clear_ack_failed: bool = False) -> None:
        """Deletes acknowledged items (with `clear_ack_failed` the failed ones too): all but the latest `keep_latest`, and
        `max_delete` at most (0: no limit).
        """
        statuses = "5, 9" if clear_ack_failed else "5"
        with self._db.transaction() as sql:
            sql.execute(
                f"DELETE FROM {self._table} WHERE _id IN (SELECT _id FROM {self._table} WHERE status IN ({statuses})"
                " ORDER BY _id DESC LIMIT ? OFFSET ?)",
                (max_delete if max_delete > 0 else -1, max(0, keep_latest)),
            )

    # --- counting ---

    def _count(self, sql: sqlite3.Connection) -> int:
        counted: int = sql.execute(f"SELECT COUNT(*) FROM {self._table} WHERE status < 2").fetchone()[0]
        return counted

    def _with_status(self, status: str) -> int:
        with self._db.reading() as sql:
            found: int = sql.execute(f"SELECT COUNT(*) FROM {self._table} WHERE status = ?", (int(status),)).fetchone()[0]
            return found

    def unack_count(self) -> int:
        """How many were got and not settled yet, by whomever."""
        return self._with_status(AckStatus.unack)

    def acked_count(self) -> int:
        return self._with_status(AckStatus.acked)

    def ready_count(self) -> int:
        """How many were given back, or resumed, and wait again."""
        return self._with_status(AckStatus.ready)

    def ack_failed_count(self) -> int:
        return self._with_status(AckStatus.ack_failed)

    def active_size(self) -> int:
        """How many wait, or are in this object's hands."""
        return self.qsize() + len(self._held)

    def _described(self, row: tuple[Any, ...]) -> dict[str, Any]:
        return super()._described(row) | {"status": row[3]}

    def task_done(self) -> None:
        """Nothing: items are acknowledged one by one."""

    # --- those who died ---

    def _look_after_the_dead(self) -> bool:
        if not self._auto_resume or not self._claims.time_to_look():
            return False
        with self._db.transaction() as sql:
            freed = self._claims.release_dead(sql)
            if freed:
                self._resume(sql)
                self._counted = None
        return freed

    def _give_back(self) -> None:
        """Closing leaves the status as it is, as persist-queue does: whoever resumes sees that the owner is gone."""

    def __reduce__(self) -> tuple[Any, ...]:
        opened, (kind, arguments) = super().__reduce__()
        return opened, (kind, arguments | {"auto_resume": self._auto_resume})


FIFOSQLiteAckQueue = SQLiteAckQueue


class FILOSQLiteAckQueue(SQLiteAckQueue):
    """First in, last out, with acknowledgement."""

    _TABLE = "ack_filo_queue"
    _ORDER = "t._id DESC"
    _NEXT = "t._id < :row"


class UniqueAckQ(SQLiteAckQueue):
    """With acknowledgement; an item that is in it already, acknowledged ones that were not cleared included, is not put
    again.
    """

    _TABLE = "ack_unique_queue"
    _COLUMNS = "data BLOB, timestamp FLOAT, status INTEGER, UNIQUE (data)"

    def put(self, item: Any) -> int | None:
        """Stores an item and returns its id; None if it was there."""
        return put_unless_there(self, "data, timestamp, status", self._serializer.dumps(item, sort_keys=True), time.time(), 0)


def _number(given: Any) -> int | None:
    """An id as persist-queue takes it: a number, digits, or what `get(raw=True)` returned."""
    if isinstance(given, dict) and "pqid" in given:
        given = given["pqid"]
    if isinstance(given, int) or (isinstance(given, str) and given.isnumeric()):
        return int(given)
    return None
