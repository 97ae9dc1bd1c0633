"""`Table`: a queue in SQLite, for what a log cannot do: take by id, by status, by priority, the last first, no two alike.

The tables are persist-queue's, to the letter, so the files of one can be opened by the other. What it does in two steps
(look, then delete) is one transaction here, and what it counts in the process is counted in the file, since others may use
that too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

from segq.compat.persistqueue import claims
from segq.compat.persistqueue.claims import Claims
from segq.compat.persistqueue.database import MEMORY, Database
from segq.compat.persistqueue.exceptions import Empty
from segq.compat.persistqueue.serializers import arrived, portable
from segq.compat.persistqueue.serializers import pickle as pickle_serializer

log = logging.getLogger(__name__)

_PAUSES = (0.001, 0.02)  # seconds between looks at what other processes put: at first, and after a while

QUARANTINE = "CREATE TABLE IF NOT EXISTS segq_quarantine (queue TEXT, id INTEGER, data BLOB, timestamp FLOAT, reason TEXT)"
UNCLAIMED = "NOT EXISTS (SELECT 1 FROM segq_claims AS c WHERE c.queue = :queue AND c.id = t._id)"


class Row(NamedTuple):
    """A row that was taken, with its item."""

    id: int
    item: Any
    columns: tuple[Any, ...]

    def handed_out(self, raw: bool) -> Any:
        return {"pqid": self.id, "data": self.item, "timestamp": self.columns[2]} if raw else self.item


class Table:
    """What all queues on SQLite have in common.

    Args:
        path: the directory, created if it is missing; or ":memory:", for this object alone.
        name: the queue's, of which a directory may hold several.
        multithreading: of no meaning here: threads may always share the object.
        timeout: seconds to wait for other processes' transactions, before sqlite3.OperationalError.
        auto_commit: whether what `get` returns is gone at once. Otherwise it comes back when this process dies, or closes the
            queue, before `task_done`.
        serializer: an object with `dumps` and `loads`.
        db_file_name: "data.db" if it is not given.
        durability: "power" (each write is synced, as in persist-queue), or "process": faster, survives the death of processes
            only.
    """

    _TABLE: ClassVar[str]
    _COLUMNS: ClassVar[str] = "data BLOB, timestamp FLOAT"
    _ORDER: ClassVar[str] = "t._id ASC"
    _WAITS: ClassVar[str] = UNCLAIMED  # which rows can be got
    _INDEX: ClassVar[str | None] = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str = "default",
        multithreading: bool = False,
        timeout: float = 10.0,
        auto_commit: bool = True,
        serializer: Any = pickle_serializer,
        db_file_name: str | None = None,
        *,
        durability: str = "power",
    ) -> None:
        self.path = os.fspath(path)
        self.name = name
        self.multithreading = multithreading
        self.timeout = timeout
        self.auto_commit = auto_commit
        self.db_file_name = db_file_name or "data.db"
        self.memory_sql = self.path == MEMORY
        self._serializer = serializer
        self._durability = durability
        self._file, self._queue = self._place()
        self._table = '"' + self._queue.replace('"', '""') + '"'
        self._claims = Claims(self._file, self._queue)
        self._put = 0  # how often this handle put something: what its own waiting threads watch
        self._news = threading.Condition()
        self._counted: tuple[int, int] | None = None  # the file's version, and how many waited in it
        self._cursor = 0  # where the next row can be at the earliest, as far as this handle's own claims go
        self._db = Database(self._file, timeout, durability, self._schema())
        self._claims.sweep()
        self._on_open()

    def _place(self) -> tuple[str, str]:
        """The file, and the table in it."""
        if self.memory_sql:
            return MEMORY, f"{self._TABLE}_{self.name}"
        return place(self.path, self.db_file_name), f"{self._TABLE}_{self.name}"

    def _schema(self) -> list[str]:
        table = f"CREATE TABLE IF NOT EXISTS {self._table} (_id INTEGER PRIMARY KEY AUTOINCREMENT, {self._COLUMNS})"
        statements = [table, claims.SCHEMA, QUARANTINE]
        if self._INDEX is not None:
            name = self._table[:-1] + '_segq"'
            statements.append(f"CREATE INDEX IF NOT EXISTS {name} ON {self._table} ({self._INDEX})")
        return statements

    def _on_open(self) -> None:
        with self._db.transaction() as sql:
            self._claims.release_dead(sql)

    # --- putting ---

    def _insert(self, columns: str, *values: Any) -> int:
        """A row, stored when this returns; its id."""
        places = ", ".join("?" * len(values))
        with self._db.lock:
            with self._db.transaction() as sql:
                row = sql.execute(f"INSERT INTO {self._table} ({columns}) VALUES ({places})", values).lastrowid
            self._count_by(1)
        self._came()
        assert row is not None
        return row

    def _came(self) -> None:
        with self._news:
            self._put += 1
            self._news.notify_all()

    def update(self, item: Any, id: int | None = None) -> int:  # noqa: A002  # persist-queue's name
        """Replaces an item: `item` is what `get(raw=True)` returned, with other data, or the data for `id`. Returns the id.

        Nothing happens if that row is gone. Raises ValueError if no id is given.
        """
        row = id
        if isinstance(item, dict) and "pqid" in item:
            row = item["pqid"] if row is None else row
            item = item.get("data")
        if row is None:
            raise ValueError("Provide an id or raw item")
        with self._db.transaction() as sql:
            sql.execute(f"UPDATE {self._table} SET data = ? WHERE _id = ?", (self._serializer.dumps(item), row))
        return row

    # --- getting ---

    def get(
        self,
        block: bool = True,
        timeout: float | None = None,
        id: int | dict[str, Any] | None = None,  # noqa: A002
        raw: bool = False,
    ) -> Any:
        """Takes the next item, or the one of that id (an id, or what `get(raw=True)` returned).

        With `raw` it is a dict with `pqid`, `data` and `timestamp`. Waits for it up to `timeout` seconds (None: for ever), or
        not at all if `block` is false.

        Raises Empty: it is not there (in time). ValueError: `timeout` is negative.
        """
        return self._got(row_id(id), block, timeout, raw=raw)

    def get_nowait(self, id: int | dict[str, Any] | None = None, raw: bool = False) -> Any:  # noqa: A002
        """`get(block=False)`."""
        return self._got(row_id(id), False, None, raw=raw)

    def _got(self, row: int | None, block: bool, timeout: float | None, *, raw: bool, after: bool = False) -> Any:
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        deadline = None if timeout is None else time.monotonic() + timeout
        mark: tuple[int, int] | None = None
        while True:
            found = self._take(row, after=after)
            if found is not None:
                return found.handed_out(raw)
            if self._look_after_the_dead():
                continue
            if not block or (mark is not None and not self._wait(mark, deadline)):
                raise Empty(f"{self._file}: nothing to get")
            mark = self._mark()  # before the next look, so that what comes after that look shows

    def _take(self, row: int | None = None, *, after: bool = False) -> Row | None:
        """One row out of the queue; `row`: this one, or with `after` the next one after it."""
        with self._db.lock:
            with self._db.transaction() as sql:
                taken = self._take_in(sql, row, after=after)
            if taken is not None:
                self._count_taken(taken)
        return taken

    def _take_in(self, sql: sqlite3.Connection, row: int | None, *, after: bool) -> Row | None:
        while (columns := self._find(sql, row, after=after)) is not None:
            try:
                item = self._serializer.loads(columns[1])
            except Exception as error:  # whatever a deserializer raises
                self._set_aside(sql, columns, error)
                continue
            self._hand_out(sql, columns, item)
            return Row(columns[0], item, columns)
        return None

    def _find(self, sql: sqlite3.Connection, row: int | None, *, after: bool) -> tuple[Any, ...] | None:  # noqa: ARG002
        if row is not None:
            return self._select(sql, "t._id = :row", row=row)
        found = self._select(sql, "t._id > :row", row=self._cursor) if self._cursor else None
        return found or self._select(sql, "1")

    def _select(self, sql: sqlite3.Connection, where: str, **values: Any) -> tuple[Any, ...] | None:
        query = f"SELECT * FROM {self._table} AS t WHERE {where} AND {self._WAITS} ORDER BY {self._ORDER} LIMIT 1"
        found: tuple[Any, ...] | None = sql.execute(query, {"queue": self._queue, **values}).fetchone()
        return found

    def _hand_out(self, sql: sqlite3.Connection, columns: tuple[Any, ...], item: Any) -> None:  # noqa: ARG002
        if self.auto_commit:
            sql.execute(f"DELETE FROM {self._table} WHERE _id = ?", (columns[0],))
        else:
            self._claims.claim(sql, columns[0])
            if self._ORDER == Table._ORDER:
                self._cursor = max(self._cursor, columns[0])

    def _put_back(self, row: Row) -> None:
        """Undoes a `_take`, for somebody who went away before it could be handed over."""
        with self._db.transaction() as sql:
            self._claims.release(sql, row.id)
            places = ", ".join("?" * len(row.columns))
            sql.execute(f"INSERT OR IGNORE INTO {self._table} VALUES ({places})", row.columns)
        self._cursor, self._counted = 0, None
        self._came()

    def _set_aside(self, sql: sqlite3.Connection, columns: tuple[Any, ...], error: Exception) -> None:
        """What cannot be read must not block what comes after it, nor be lost."""
        log.warning(
            "%s: item %d of %s cannot be read (%r); it is in the table segq_quarantine",
            self._file,
            columns[0],
            self._queue,
            error,
        )
        sql.execute("INSERT INTO segq_quarantine VALUES (?, ?, ?, ?, ?)", (self._queue, *columns[:3], repr(error)))
        sql.execute(f"DELETE FROM {self._table} WHERE _id = ?", (columns[0],))
        self._counted = None

    def task_done(self) -> None:
        """With `auto_commit` off: what this object got is done and gone."""
        if self.auto_commit or not self._claims.any_own:
            return
        with self._db.transaction() as sql:
            sql.execute(
                f"DELETE FROM {self._table} WHERE _id IN (SELECT id FROM segq_claims WHERE queue = ? AND owner = ?)",
                (self._queue, self._claims.owner),
            )
            self._claims.release_own(sql)
        self._cursor = 0

    # --- waiting ---

    def _mark(self) -> tuple[int, int]:
        return self._put, self._db.version()

    def _wait(self, mark: tuple[int, int], deadline: float | None) -> bool:
        """Until something may have come since `mark`; False if the deadline passed first."""
        pause, longest = _PAUSES
        while True:
            left = pause if deadline is None else min(pause, deadline - time.monotonic())
            if left <= 0:
                return False
            with self._news:
                self._news.wait_for(lambda: self._put != mark[0], left)
            if self._mark() != mark or self._claims.time_to_look():
                return True
            pause = min(pause * 2, longest)

    def _look_after_the_dead(self) -> bool:
        """Now and then: frees what the dead had in hand; whether there was any."""
        if not self._claims.time_to_look():
            return False
        with self._db.transaction() as sql:
            freed = self._claims.release_dead(sql)
        if freed:
            self._counted, self._cursor = None, 0
        return freed

    # --- counting ---

    def _count(self, sql: sqlite3.Connection) -> int:
        counted: int = sql.execute(
            f"SELECT (SELECT COUNT(*) FROM {self._table}) - (SELECT COUNT(*) FROM segq_claims WHERE queue = ?)", (self._queue,)
        ).fetchone()[0]
        return counted

    def _count_taken(self, row: Row) -> None:  # noqa: ARG002
        self._count_by(-1)

    def _count_by(self, difference: int) -> None:
        if self._counted is not None:
            self._counted = (self._counted[0], self._counted[1] + difference)

    @property
    def size(self) -> int:
        """How many items wait, those of other processes included. Counted again only when another connection has written."""
        with self._db.reading() as sql:
            version = self._db.version()
            if self._counted is None or self._counted[0] != version:
                self._counted = (version, self._count(sql))
            return self._counted[1]

    @property
    def total(self) -> int:
        """The same as `size`."""
        return self.size

    def qsize(self) -> int:
        return max(0, self.size)

    def __len__(self) -> int:
        return self.qsize()

    def empty(self) -> bool:
        return self.size == 0

    def full(self) -> bool:
        """Never: the disk is the limit."""
        return False

    def queue(self) -> list[dict[str, Any]]:
        """All rows there are, as dicts with `id`, `data` and `timestamp`; nothing is taken."""
        with self._db.reading() as sql:
            rows = sql.execute(f"SELECT * FROM {self._table} ORDER BY _id").fetchall()
        return [self._described(row) for row in rows]

    def _described(self, row: tuple[Any, ...]) -> dict[str, Any]:
        return {"id": row[0], "data": self._serializer.loads(row[1]), "timestamp": row[2]}

    def shrink_disk_usage(self) -> None:
        """Gives the space of deleted rows back to the file system; others wait meanwhile."""
        self._db.vacuum()

    # --- the end ---

    def close(self) -> None:
        """Closes the file; what was got and is not done comes back."""
        with contextlib.suppress(sqlite3.Error):
            if self._claims.any_own:
                self._give_back()
        self._db.close()
        self._claims.close()

    def _give_back(self) -> None:
        with self._db.transaction() as sql:
            self._claims.release_own(sql)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # it may have failed to open, or the interpreter be half gone
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = {
            "path": self.path,
            "name": self.name,
            "multithreading": self.multithreading,
            "timeout": self.timeout,
            "auto_commit": self.auto_commit,
            "serializer": portable(self._serializer),
            "db_file_name": self.db_file_name,
            "durability": self._durability,
        }
        return _opened, (type(self), arguments)


def _opened(kind: type[Table], arguments: dict[str, Any]) -> Table:
    """A queue that was sent to this process."""
    return kind(**{**arguments, "serializer": arrived(arguments["serializer"])})


def place(directory: str, name: str) -> str:
    """The path of a file in a directory, which is created if it is missing."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return os.path.join(directory, name)


def row_id(given: Any) -> int | None:
    """The id that a `get` was asked for; None for the next one there is."""
    if isinstance(given, dict) and "pqid" in given:
        given = given["pqid"]
    return given if isinstance(given, int) and given else None
