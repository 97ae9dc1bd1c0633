"""An SQLite file as processes and threads share it: whole transactions, waiting instead of errors, nothing carried over a fork.

A handle has one connection, used by one thread at a time. Writes are ``BEGIN IMMEDIATE`` transactions, so that what is read in
one is still so when it writes. The log is write-ahead (WAL): a killed process leaves either all of a transaction or nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence

MEMORY = ":memory:"
_RETRY = 0.005
_SYNCHRONOUS = {"power": "FULL", "process": "NORMAL"}


class Database:
    """The file at `path` (or ":memory:"); `schema`: statements that make what is missing in it.

    `timeout`: seconds to wait for others' transactions before sqlite3.OperationalError. `durability`: "power" syncs each
    transaction to the disk, as persist-queue does; "process" survives the death of processes only.
    """

    def __init__(self, path: str, timeout: float, durability: str, schema: Sequence[str]) -> None:
        if durability not in _SYNCHRONOUS:
            raise ValueError(f'durability must be "power" or "process", not {durability!r}')
        self.path, self._timeout, self._durability, self._schema = path, timeout, durability, schema
        self.lock = threading.RLock()  # over the connection: held for one transaction, or for what belongs with it
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        with self.lock:
            self._open()
        _databases.add(self)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._closed:
                raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
            connection = sqlite3.connect(self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
            try:
                self._set_up(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:  # SQLite does not wait where two turn the log on at once
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY)
        connection.execute(f"PRAGMA synchronous={_SYNCHRONOUS[self._durability]}")
        connection.execute("BEGIN IMMEDIATE")
        for statement in self._schema:
            connection.execute(statement)
        connection.execute("COMMIT")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of what is written inside, or nothing if it raises."""
        with self.lock:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For single statements, none of which writes."""
        with self.lock:
            yield self._open()

    def version(self) -> int:
        """Another number whenever another connection, of this process or another, has changed the file."""
        with self.lock:
            found: int = self._open().execute("PRAGMA data_version").fetchone()[0]
            return found

    def vacuum(self) -> None:
        with self.lock:
            self._open().execute("VACUUM")

    def close(self) -> None:
        with self.lock:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _forked(self) -> None:
        """In a forked child: SQLite forbids to use, and even to close, what the parent opened. A database in memory is a
        copy.
        """
        self.lock = threading.RLock()
        if self.path != MEMORY and self._connection is not None:
            _inherited.append(self._connection)
            self._connection = None


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []


def _after_fork_in_child() -> None:
    for database in list(_databases):
        database._forked()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork_in_child)
