"""turbo-queue: a directory of SQLite files, whose names begin with their state. Its package is not needed to read them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from typing import Any

from segq.transfer.source import Options, SourceError, digest

_STATES = ("ready", "unload", "load", "loading", "chosen", "avail", "assigned")  # of all its versions


def open_source(path: str, _options: Options, _scratch: str) -> TurboQueue:
    return TurboQueue(path)


class TurboQueue:
    """Events by the time at which their file was begun, whatever its state: an unfinished one is somebody's who is gone."""

    def __init__(self, path: str) -> None:
        self._path = path
        names = [name for name in os.listdir(path) if name.partition("_")[0] in _STATES and ".db" in name]
        names = [name for name in names if not name.endswith(("-journal", "-wal", "-shm"))]
        if not names:
            raise SourceError(f"{path} holds no files of turbo-queue; PATH is its root_path/queue_name")
        self._files = [(name, self._count(name)) for name in sorted(names, key=lambda name: name.partition("_")[2])]
        self.total = sum(count for _, count in self._files)

    def fingerprint(self) -> str:
        return digest(self._files)

    def read(self, skip: int) -> Iterator[Any]:
        for name, count in self._files:
            if skip >= count:
                skip -= count
                continue
            yield from self._events(name, skip, count)
            skip = 0

    def _events(self, name: str, skip: int, count: int) -> Iterator[Any]:
        file = self._open(name)
        try:
            query = "SELECT log_data FROM logs ORDER BY rowid LIMIT ? OFFSET ?"
            for (data,) in file.execute(query, (count - skip, skip)):
                yield json.loads(data) if isinstance(data, str) else data  # a number: the column has made one of the text
        finally:
            file.close()

    def _count(self, name: str) -> int:
        file = self._open(name)
        try:
            if file.execute("SELECT 1 FROM sqlite_master WHERE name = 'logs'").fetchone() is None:
                return 0
            counted: int = file.execute("SELECT COUNT(*) FROM logs").fetchone()[0]
            return counted
        except sqlite3.DatabaseError as error:
            where = os.path.join(self._path, name)
            raise SourceError(f"{where} cannot be read ({error}); move it away to import the others") from error
        finally:
            file.close()

    def _open(self, name: str) -> sqlite3.Connection:
        return sqlite3.connect(os.path.join(self._path, name), timeout=10)

    def close(self) -> None:
        """Nothing is open between reads."""
