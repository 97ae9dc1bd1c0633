"""persist-queue: the file queue, read by its package; and the queues on SQLite, whose tables need none."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import sqlite3
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from segq.transfer.source import Options, SourceError, digest, library

_SERIALIZERS = ("pickle", "json", "msgpack", "cbor2")
_KINDS = [  # of a table by its name: which rows are still to be got, and in which order
    (re.compile(r"ack_filo_queue(_.*)?"), "status < 5", "_id DESC"),
    (re.compile(r"ack(_unique)?_queue(_.*)?"), "status < 5", "_id"),
    (re.compile(r"filo_queue(_.*)?"), "1", "_id DESC"),
    (re.compile(r"priority_queue(_.*)?"), "1", "priority, timestamp, _id"),
    (re.compile(r"(unique_)?queue(_.*)?"), "1", "_id"),
]


def open_source(path: str, options: Options, _scratch: str) -> FileQueue | Table:
    if options.serializer not in _SERIALIZERS:
        raise SourceError(f"persist-queue has the serializers {', '.join(_SERIALIZERS)}, not {options.serializer!r}")
    if os.path.isdir(path) and os.path.isfile(os.path.join(path, "info")) and options.table is None:
        return FileQueue(path, options.serializer)
    file = os.path.join(path, "data.db") if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise SourceError(f"{path} holds no queue of persist-queue: neither a file `info` nor a file data.db")
    return Table(file, options)


class FileQueue:
    """What was got without `task_done` is still in it, as for persist-queue itself."""

    def __init__(self, path: str, serializer: str) -> None:
        self._queue_class = library("persistqueue", "persist-queue").Queue
        self._serializer = library(f"persistqueue.serializers.{serializer}", "'persist-queue[extra]'")
        self._path = path
        with self._open() as queue:
            self.total: int = queue.qsize()

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        queue = self._queue_class(self._path, serializer=self._serializer)
        try:
            yield queue
        finally:
            queue.headf.close()
            queue.tailf.close()

    def fingerprint(self) -> str:
        with open(os.path.join(self._path, "info"), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    def read(self, skip: int) -> Iterator[Any]:
        with self._open() as queue:
            for number in range(self.total):
                item = queue.get(block=False)  # it keeps what was got until task_done is called
                if number >= skip:
                    yield item

    def close(self) -> None:
        """Nothing is open between reads."""


class Table:
    """A queue in SQLite. Of an ack queue: what is not acknowledged, and has not failed."""

    def __init__(self, file: str, options: Options) -> None:
        self._file = sqlite3.connect(file, timeout=10)
        try:
            self._loads = _serializer(options.serializer).loads
            self._name, self._waits, self._order = self._chosen(file, options.table)
            self._quoted = '"' + self._name.replace('"', '""') + '"'
            self.total: int = self._facts()[0]
        except BaseException:
            self._file.close()
            raise

    def _chosen(self, file: str, wanted: str | None) -> tuple[str, str, str]:
        names = [name for (name,) in self._file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        kinds = {n: (waits, order) for n in names for fits, waits, order in reversed(_KINDS) if fits.fullmatch(n)}
        if wanted is not None and wanted not in kinds:
            raise SourceError(f"{file} has no queue in a table {wanted!r}; it has {', '.join(sorted(kinds)) or 'none'}")
        full = [n for n in kinds if self._file.execute(f'SELECT 1 FROM "{n}" LIMIT 1').fetchone()]  # noqa: S608  # of its own
        if wanted is None and len(full) > 1:
            raise SourceError(f"{file} has several queues with items: say which --table ({', '.join(sorted(full))})")
        if not kinds:
            raise SourceError(f"{file} has no queue of persist-queue in it")
        name = wanted or (full or sorted(kinds))[0]
        return name, *kinds[name]

    def _facts(self) -> tuple[int, Any, Any]:
        query = f"SELECT COUNT(*), MIN(_id), MAX(_id) FROM {self._quoted} WHERE {self._waits}"  # noqa: S608  # quoted
        facts: tuple[int, Any, Any] = self._file.execute(query).fetchone()
        return facts

    def fingerprint(self) -> str:
        return digest(self._name, self._facts())

    def read(self, skip: int) -> Iterator[Any]:
        query = f"SELECT data FROM {self._quoted} WHERE {self._waits} ORDER BY {self._order} LIMIT -1 OFFSET ?"  # noqa: S608
        for (data,) in self._file.execute(query, (skip,)):
            yield self._loads(data)

    def close(self) -> None:
        self._file.close()


def _serializer(name: str) -> ModuleType:
    """Our stand-in's, which reads the same bytes."""
    try:
        return importlib.import_module(f"segq.compat.persistqueue.serializers.{name}")
    except ImportError as error:
        raise SourceError(str(error)) from error
