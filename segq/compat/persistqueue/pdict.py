"""`PDict`: a dict in SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any, NoReturn

from segq.compat.persistqueue.database import MEMORY, Database
from segq.compat.persistqueue.serializers import pickle as serializer
from segq.compat.persistqueue.table import place

_ABSENT: Any = object()


class PDict(dict):  # type: ignore[type-arg]  # persist-queue's is a dict too
    """Values by text keys, shared by processes: each call is a transaction. It cannot be iterated, as persist-queue's.

    `path`: the directory, created if it is missing; `name`: the dict's, of which a directory may hold several.
    """

    def __init__(self, path: str, name: str, multithreading: bool = False, *, durability: str = "power") -> None:
        super().__init__()
        self.path, self.name, self.multithreading = path, name, multithreading
        self._durability = durability
        self._table = '"' + f"dict_{name}".replace('"', '""') + '"'
        file = MEMORY if path == MEMORY else place(path, "data.db")
        schema = [f"CREATE TABLE IF NOT EXISTS {self._table} (key TEXT PRIMARY KEY, data BLOB)"]
        self._db = Database(file, 10.0, durability, schema)

    def __setitem__(self, key: Any, value: Any) -> None:
        data = serializer.dumps(value)
        with self._db.transaction() as sql:
            self._set(sql, key, data)

    def _set(self, sql: sqlite3.Connection, key: Any, data: bytes) -> None:
        statement = f"INSERT INTO {self._table} (key, data) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET data = excluded.data"
        sql.execute(statement, (key, data))

    def __getitem__(self, key: Any) -> Any:
        with self._db.reading() as sql:
            found = self._find(sql, key)
        if found is None:
            raise KeyError(f"Key: {key} not exists.")
        return serializer.loads(found[0])

    def _find(self, sql: sqlite3.Connection, key: Any) -> tuple[bytes] | None:
        found: tuple[bytes] | None = sql.execute(f"SELECT data FROM {self._table} WHERE key = ?", (key,)).fetchone()
        return found

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        with self._db.reading() as sql:
            return self._find(sql, key) is not None

    def __delitem__(self, key: Any) -> None:
        """Deletes a key; one that is not there is none to delete, as in persist-queue."""
        with self._db.transaction() as sql:
            sql.execute(f"DELETE FROM {self._table} WHERE key = ?", (key,))

    def __len__(self) -> int:
        with self._db.reading() as sql:
            counted: int = sql.execute(f"SELECT COUNT(*) FROM {self._table}").fetchone()[0]
            return counted

    def __bool__(self) -> bool:
        return len(self) > 0

    # dict's own would work on the empty dict that this is to the interpreter

    def pop(self, key: Any, default: Any = _ABSENT) -> Any:
        with self._db.transaction() as sql:
            found = self._find(sql, key)
            sql.execute(f"DELETE FROM {self._table} WHERE key = ?", (key,))
        if found is not None:
            return serializer.loads(found[0])
        if default is _ABSENT:
            raise KeyError(f"Key: {key} not exists.")
        return default

    def setdefault(self, key: Any, default: Any = None) -> Any:
        data = serializer.dumps(default)
        with self._db.transaction() as sql:
            found = self._find(sql, key)
            if found is None:
                self._set(sql, key, data)
        return default if found is None else serializer.loads(found[0])

    def update(self, *others: Any, **more: Any) -> None:
        """All of it, or nothing."""
        rows = [(key, serializer.dumps(value)) for key, value in dict(*others, **more).items()]
        with self._db.transaction() as sql:
            for key, data in rows:
                self._set(sql, key, data)

    def clear(self) -> None:
        with self._db.transaction() as sql:
            sql.execute(f"DELETE FROM {self._table}")

    def __repr__(self) -> str:
        return f"<PDict {self.name!r} in {self.path!r}>"

    def _refuse(self, *_arguments: Any) -> NoReturn:
        raise NotImplementedError("Not supported.")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("Not supported.")

    keys = values = items = iterkeys = itervalues = iteritems = popitem = copy = __reversed__ = __or__ = __ior__ = _refuse

    def close(self) -> None:
        self._db.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.path, self.name, self.multithreading, self._durability)


def _opened(path: str, name: str, multithreading: bool, durability: str) -> PDict:
    """A dict that was sent to this process."""
    return PDict(path, name, multithreading, durability=durability)
