"""The items: what is in them, and how a consumer's harvest is read afterwards.

Every item says which producer made it and which of its items it is, so that an account can be drawn up to the
last one. A bytes item is laid out as::

    0          4          8       16                      size - 8      size
    | producer | sequence | stamp | incompressible filler | b"segqtail" |

and one of 16 bytes has neither stamp nor filler.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

HEADER = struct.Struct("<IIQ")
SHORT_HEADER = struct.Struct("<II")
TAIL = b"segqtail"
STOP = b"stop"
"""Not an item: tells one consumer that there is nothing more."""


class Payload(Protocol):
    """A kind of item."""

    @property
    def size(self) -> int:
        """Bytes an item carries."""

    def make(self, producer: int, first: int, count: int) -> list[Any]:
        """Items ``first`` to ``first + count - 1`` of that producer."""

    def identify(self, item: Any) -> tuple[int, int]:
        """Producer and sequence of an item; `ValueError` if it is not as it was made."""


@lru_cache(maxsize=8)
def _filler(size: int) -> bytes:
    return random.Random(size).randbytes(size) + TAIL


@dataclass(frozen=True, slots=True)
class BytesPayload:
    """Bytes of one size."""

    size: int

    def __post_init__(self) -> None:
        least = SHORT_HEADER.size + len(TAIL)
        if self.size != least and not self.stampable:
            raise ValueError(f"an item needs {least} bytes to be told apart, or {HEADER.size + len(TAIL)}, not {self.size}")

    @property
    def stampable(self) -> bool:
        return self.size >= HEADER.size + len(TAIL)

    def make(self, producer: int, first: int, count: int) -> list[bytes]:
        numbers = range(first, first + count)
        if not self.stampable:
            return [SHORT_HEADER.pack(producer, sequence) + TAIL for sequence in numbers]
        pack, filler = HEADER.pack, _filler(self.size - HEADER.size - len(TAIL))
        return [pack(producer, sequence, 0) + filler for sequence in numbers]

    def stamped(self, producer: int, sequence: int, stamp: int) -> bytes:
        return HEADER.pack(producer, sequence, stamp) + _filler(self.size - HEADER.size - len(TAIL))

    def identify(self, item: Any) -> tuple[int, int]:
        if not isinstance(item, bytes) or len(item) != self.size or not item.endswith(TAIL):
            raise ValueError(f"not an item of {self.size} bytes: {repr(item)[:60]}")
        producer, sequence = SHORT_HEADER.unpack_from(item)
        return producer, sequence


@dataclass(frozen=True, slots=True)
class DictPayload:
    """A small record such as a job queue carries: about a hundred bytes as JSON."""

    size: int = 100

    def make(self, producer: int, first: int, count: int) -> list[dict[str, object]]:
        return [
            {
                "producer": producer,
                "sequence": sequence,
                "task": "thumbnail",
                "path": f"/photos/2024/{sequence:08d}.jpg",
                "width": 640,
                "retry": False,
                "weight": 0.5,
            }
            for sequence in range(first, first + count)
        ]

    def identify(self, item: Any) -> tuple[int, int]:
        if not isinstance(item, dict) or item.get("task") != "thumbnail":
            raise ValueError(f"not a record as it was made: {repr(item)[:60]}")
        return item["producer"], item["sequence"]
