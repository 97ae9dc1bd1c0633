"""A journal of ids: what a bridge has stored on the far side and not seen acknowledged on the near one.

Two slots in one file, written in turn, each with a number and a checksum: a kill in the middle of a write leaves the other. It
is not synced: it is there against the death of the bridge, not of the machine.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable

_SLOT = 8 << 20  # bytes; the file is sparse, and a thousand ids take about 60 KB
_HEAD = struct.Struct(">QII")


class Journal:
    """At `path`, which is created (mode 0600) if it is missing. One process at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._number, self.ids = max(self._read(0), self._read(1), key=lambda found: found[0])

    def write(self, ids: Iterable[str]) -> None:
        """From here on these are the ids that are known."""
        self.ids = set(ids)
        self._number += 1
        body = json.dumps(sorted(self.ids)).encode()
        head = _HEAD.pack(self._number, len(body), zlib.crc32(body))
        os.pwrite(self._descriptor, head + body, self._number % 2 * _SLOT)

    def close(self) -> None:
        os.close(self._descriptor)

    def _read(self, slot: int) -> tuple[int, set[str]]:
        head = os.pread(self._descriptor, _HEAD.size, slot * _SLOT)
        if len(head) < _HEAD.size:
            return 0, set()
        number, length, checksum = _HEAD.unpack(head)
        body = os.pread(self._descriptor, length, slot * _SLOT + _HEAD.size) if length <= _SLOT else b""
        if len(body) != length or zlib.crc32(body) != checksum:
            return 0, set()
        return number, set(json.loads(body or b"[]"))
