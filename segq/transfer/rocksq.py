"""RocksQ: its queues can only be popped, so a copy is.

The copy is made anew by each attempt. What RocksDB never changes (``*.sst``) is linked, not copied.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from segq._core.system import fs
from segq.transfer.source import Options, SourceError, digest, library

_AT_ONCE = 1000
_LONG = 10 * 365 * 24 * 3600  # seconds to live in the copy: what has not been deleted there is imported
_LABEL = "segq import"


def open_source(path: str, options: Options, scratch: str) -> RocksQ:
    if not os.path.isfile(os.path.join(path, "CURRENT")):
        raise SourceError(f"{path} holds no queue of RocksQ: there is no file CURRENT")
    return RocksQ(path, options.table, scratch)


class RocksQ:
    """A `PersistentQueueWithCapacity`, or of an `MpmcQueue` what `label` has still to read (None: everything)."""

    def __init__(self, path: str, label: str | None, scratch: str) -> None:
        self._blocking = library("rocksq.blocking", "rocksq")
        self._library = library("rocksq", "rocksq")
        self._path, self._label, self._scratch = path, label or _LABEL, scratch
        _refuse_in_use(path)
        take, queue = self._copied()
        self.total: int = queue.len
        if not isinstance(queue, self._blocking.PersistentQueueWithCapacity):  # its length says nothing of a label
            self.total = 0
            while many := take():
                self.total += len(many)
        elif label is not None:
            raise SourceError(f"{path} is a queue of RocksQ without labels")

    def fingerprint(self) -> str:
        names = [name for name in sorted(os.listdir(self._path)) if name.endswith((".log", ".sst")) or name == "CURRENT"]
        return digest([(name, os.path.getsize(os.path.join(self._path, name))) for name in names])

    def read(self, skip: int) -> Iterator[Any]:
        take, _queue = self._copied()
        while many := take():
            yield from many[skip:]
            skip = max(0, skip - len(many))

    def _copied(self) -> tuple[Callable[[], list[bytes]], Any]:
        """What takes the next items of a new copy, and the copy."""
        self.close()
        os.makedirs(self._scratch, mode=0o700)
        for name in os.listdir(self._path):
            source, target = os.path.join(self._path, name), os.path.join(self._scratch, name)
            if name == "LOCK" or name.startswith("LOG") or not os.path.isfile(source):
                continue
            try:
                if not name.endswith(".sst"):
                    raise OSError
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
        try:
            queue = self._blocking.PersistentQueueWithCapacity(self._scratch)
        except RuntimeError:  # it has column families, as its other kind of queue does
            topic = self._blocking.MpmcQueue(self._scratch, _LONG)
            oldest = self._library.StartPosition.Oldest
            return lambda: topic.next(self._label, oldest, _AT_ONCE)[0], topic
        return lambda: queue.pop(_AT_ONCE) if queue.len else [], queue

    def close(self) -> None:
        if os.path.isdir(self._scratch):
            fs.remove_tree(self._scratch)


def _refuse_in_use(path: str) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError), open(os.path.join(path, "LOCK"), "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SourceError(f"{path} is open in another process; end that first") from error
