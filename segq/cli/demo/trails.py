"""What producers and workers leave on disk of their progress: files of records of one size, only ever appended to.

`write` has handed its bytes to the kernel when it returns, so they outlive a SIGKILL. Who was killed inside `write`
leaves at most a torn record at the end; it counts for nothing, as what it tells of had not been acknowledged either.
Each incarnation of a process starts a new file; nobody appends behind a torn record.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from segq.cli.demo.corpus import IDENTITY, MEASURE

RESULT_BYTES = IDENTITY.size + MEASURE.size


class Position(NamedTuple):
    """How far a producer has come: place in its share, next line in that file, and how many lines that makes."""

    place: int
    line: int
    put: int

    def packed(self) -> bytes:
        """The record."""
        return _POSITION.pack(*self)


_POSITION = struct.Struct(">III")
_RESULT = struct.Struct(f"{IDENTITY.format}{MEASURE.size}s")


class Trail:
    """A new file that grows by whole records. There is no buffer: what `add` was given is with the kernel."""

    def __init__(self, directory: str, kind: str, number: int, life: int) -> None:
        path = Path(directory, f"{kind}-{number}-{life}")
        self._file = path.open("xb", buffering=0)

    def add(self, records: bytes) -> None:
        """Returns when the records would survive this process."""
        rest = memoryview(records)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._file.close()


def last_position(directory: str, number: int) -> Position:
    """How far the producer in this place has come, over all its incarnations."""
    furthest = Position(0, 0, 0)
    for path in Path(directory).glob(f"producer-{number}-*"):
        with path.open("rb") as file:
            records = os.fstat(file.fileno()).st_size // _POSITION.size
            if records:
                file.seek((records - 1) * _POSITION.size)
                furthest = max(furthest, Position(*_POSITION.unpack(file.read(_POSITION.size))))
    return furthest


def results_noted(directory: str) -> int:
    """How many results the workers have noted so far."""
    return sum(path.stat().st_size // RESULT_BYTES for path in Path(directory).glob("worker-*"))


def results(directory: str) -> Iterator[tuple[int, int, bytes]]:
    """All results noted: file number, line number, what was measured."""
    step = RESULT_BYTES * 16_384
    for path in sorted(Path(directory).glob("worker-*")):
        with path.open("rb") as file:
            while data := file.read(step):
                yield from _RESULT.iter_unpack(data[: len(data) // RESULT_BYTES * RESULT_BYTES])
