"""Rows that somebody has in hand, in a table of their own beside persist-queue's: whose they are, and whether that one lives.

persist-queue's tables stay as they are, so its files can be opened as they lie there, and it can open ours.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref

from segq.compat.persistqueue import owners
from segq.compat.persistqueue.database import MEMORY

_LOOK_EVERY = 1.0  # seconds between looks for the dead
_LIVING = "memory"  # the owner in a database that nobody else can open

SCHEMA = "CREATE TABLE IF NOT EXISTS segq_claims (queue TEXT, id INTEGER, owner TEXT, PRIMARY KEY (queue, id)) WITHOUT ROWID"


class Claims:
    """Those on the rows of one table, `queue` by name, as one handle makes them. All methods but `close` belong into a
    transaction.
    """

    def __init__(self, path: str, queue: str) -> None:
        self._queue = queue
        self._directory = None if path == MEMORY else f"{path}-owners"
        self._owner: owners.Owner | None = None
        self._mutex = threading.Lock()
        self._looked = 0.0
        _all.add(self)

    @property
    def owner(self) -> str:
        if self._directory is None:
            return _LIVING
        with self._mutex:
            if self._owner is None:
                self._owner = owners.Owner(self._directory)
            return self._owner.name

    def claim(self, sql: sqlite3.Connection, row: int) -> None:
        sql.execute("INSERT OR REPLACE INTO segq_claims VALUES (?, ?, ?)", (self._queue, row, self.owner))

    def release(self, sql: sqlite3.Connection, row: int) -> None:
        sql.execute("DELETE FROM segq_claims WHERE queue = ? AND id = ?", (self._queue, row))

    def release_own(self, sql: sqlite3.Connection) -> None:
        sql.execute("DELETE FROM segq_claims WHERE queue = ? AND owner = ?", (self._queue, self.owner))

    def is_others(self, sql: sqlite3.Connection, row: int) -> bool:
        """Whether somebody else who is alive has that row."""
        found = sql.execute("SELECT owner FROM segq_claims WHERE queue = ? AND id = ?", (self._queue, row)).fetchone()
        return found is not None and found[0] != self.owner and not self._dead(found[0])

    def release_dead(self, sql: sqlite3.Connection) -> bool:
        """Frees what the dead had in hand; whether there was any."""
        self._looked = time.monotonic()
        named = [name for (name,) in sql.execute("SELECT DISTINCT owner FROM segq_claims WHERE queue = ?", (self._queue,))]
        dead = [name for name in named if name != self.owner and self._dead(name)]
        for name in dead:
            sql.execute("DELETE FROM segq_claims WHERE queue = ? AND owner = ?", (self._queue, name))
        return bool(dead)

    def time_to_look(self) -> bool:
        """Whether it is time to look for the dead again."""
        return self._directory is not None and time.monotonic() - self._looked >= _LOOK_EVERY

    def sweep(self) -> None:
        """Removes the files of those who died."""
        if self._directory is not None:
            owners.sweep(self._directory)

    def _dead(self, name: str) -> bool:
        return self._directory is not None and owners.is_dead(self._directory, name)

    @property
    def any_own(self) -> bool:
        """Whether this handle may have claims."""
        return self._owner is not None

    def close(self) -> None:
        with self._mutex:
            owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()

    def _forked(self) -> None:
        self._mutex = threading.Lock()
        owner, self._owner = self._owner, None
        if owner is not None:
            with contextlib.suppress(OSError):
                owner.forget()


_all: weakref.WeakSet[Claims] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for claims in list(_all):
        claims._forked()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork_in_child)
