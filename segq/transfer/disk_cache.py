"""diskcache: a `Deque`, or what `Cache.push` put. Other entries of a cache are no queue and are left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from segq.transfer.source import Options, SourceError, digest, library

_ABSENT = object()


def open_source(path: str, options: Options, _scratch: str) -> DiskCache:
    if not os.path.isfile(os.path.join(path, "cache.db")):
        raise SourceError(f"{path} holds no cache of diskcache: there is no file cache.db")
    return DiskCache(path, options.table)


class DiskCache:
    """`prefix`: that of `Cache.push`, whose keys are texts then; without one they are numbers."""

    def __init__(self, path: str, prefix: str | None) -> None:
        self._path = path
        self._cache = library("diskcache", "diskcache").Cache(path)
        fits = re.compile(re.escape(prefix) + r"-\d{15}") if prefix is not None else None
        self._keys = [
            key
            for key in self._cache.iterkeys()
            if (isinstance(key, int) if fits is None else isinstance(key, str) and fits.fullmatch(key)) and key in self._cache
        ]
        self.total = len(self._keys)

    def fingerprint(self) -> str:
        return digest(self._keys)

    def read(self, skip: int) -> Iterator[Any]:
        for key in self._keys[skip:]:
            value = self._cache.get(key, _ABSENT)
            if value is _ABSENT:
                raise SourceError(
                    f"{self._path}: the entry {key!r} went away during the import; stop who uses it, and begin anew"
                )
            yield value

    def close(self) -> None:
        self._cache.close()
