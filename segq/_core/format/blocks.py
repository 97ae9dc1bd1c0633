"""Blocks: how items lie in a segment's RocksDB instance; pure, no input or output.

A *block* is a value, its key the index of its first item (8 bytes, big-endian; all else little-endian)::

    0   magic    2s  b"SB"
    2   version  u8
    3   flags    u8   1: has references; 2: has a checksum
    4   runs     u32  number of runs
    8   count    u32  number of items
    12  checksum u32  CRC-32 of the key and of the block, with 0 here
    16  ends     u32[count]   end of each item within the payload
        runs     (index u32, ttl u32, time u64)[runs]
        payload bytes

Where a block has references, the top bit of an item's end says that the item is one: (offset u64, length u64, CRC-32 u32,
flags u32) of its bytes in the file `blob`, where items larger than LARGE_BYTES are kept. The flags are 1 if there is a CRC,
1 << 31 if the item was done when its block was written, and twice the lap in which its bytes were (see `blob`).

A *run* says when the items from `index` (counted within the block) on were put, in milliseconds of the epoch, up to the
next run; `ttl` is their time to live in milliseconds, 0 for none. Items put in the same millisecond share a run, so a
busy producer writes one for about a thousand items.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from segq._core.base.errors import DamagedError
from segq._core.format.format import MOST_ITEMS, NEVER

HEADER = struct.Struct("<2sBBIII")
_CHECKSUM_AT = 12
MAGIC, VERSION = b"SB", 1
HAS_REFERENCES, HAS_CHECKSUM = 1, 2
REFERENCE = struct.Struct("<QQII")
IS_REFERENCE, END_MASK = 1 << 31, (1 << 31) - 1
CHECKED, VOID = 1, 1 << 31  # of a reference's flags; between them is the lap
LARGE_BYTES = 32 << 10  # from about 8 KiB on a write into `blob` costs less than the way through the batch and RocksDB


class Reference(bytes):
    """The place of a large item's bytes, in the place of the item."""

    __slots__ = ()


RUN = struct.Struct("<IIQ")
Runs = tuple[int, int, bytes]
"""Runs as they lie on disk: (the item from which on they are meant, the item from which their indexes count, the bytes).

They are taken along as bytes and read only when somebody asks for a time: a slow producer writes one run an item.
"""


def put_time(pieces: Sequence[Runs], item: int) -> int:
    """When `item` was put, in milliseconds of the epoch; `pieces` in order of their items. 0 if it cannot be known."""
    for begin, base, noted in reversed(pieces):
        if item >= begin and noted:
            runs = range(len(noted) // RUN.size)
            at = bisect_right(
                runs, item - base, key=lambda run: int.from_bytes(noted[run * RUN.size : run * RUN.size + 4], "little")
            )
            return int(RUN.unpack_from(noted, max(0, at - 1) * RUN.size)[2])
    return 0


def expiries(runs: bytes, count: int) -> list[int]:
    """When each of a block's `count` items expires, in milliseconds of the epoch."""
    noted = [RUN.unpack_from(runs, at) for at in range(0, len(runs), RUN.size)]
    found: list[int] = []
    for (_, ttl, put_at), after in zip(noted, [*(run[0] for run in noted), count][1:], strict=True):
        found += [min(put_at + ttl, NEVER) if ttl else NEVER] * (min(after, count) - len(found))
    return found + [NEVER] * (count - len(found))


def key(first: int) -> bytes:
    return first.to_bytes(8, "big")


# --- writing ----------------------------------------------------------------------------------------------------------


def encode(first: int, items: Sequence[bytes], time_ms: int, ttl_ms: int = 0, *, references: bool = False) -> bytes:
    """A block of `items`, all put at `time_ms`; `references`: some of them are `Reference`s."""
    ends = array("I", [0]) * len(items)
    end = 0
    for i, item in enumerate(items):
        end += len(item)
        ends[i] = end | IS_REFERENCE if references and type(item) is Reference else end
    return join(first, memoryview(ends).cast("B"), RUN.pack(0, ttl_ms, time_ms), b"".join(items), references=references)


def join(
    first: int, ends: bytes | memoryview, runs: bytes | memoryview, payload: bytes | memoryview, *, references: bool
) -> bytes:
    """A block from bytes that have its layout already (the open batch's); each is copied once."""
    flags = HAS_REFERENCES if references else 0
    return _assembled(first, flags, len(runs) // RUN.size, len(ends) // 4, ends, runs, payload)


def patched(first: int, block: bytes | bytearray) -> bytes:
    """A block of which some bytes were changed, with the checksum that it has now."""
    _, _, flags, runs, count, _ = HEADER.unpack_from(block)
    return _assembled(first, flags, runs, count, memoryview(block)[HEADER.size :])


def _assembled(first: int, flags: int, runs: int, count: int, *parts: bytes | memoryview) -> bytes:
    header = HEADER.pack(MAGIC, VERSION, flags | HAS_CHECKSUM, runs, count, 0)
    checksum = _checksum(key(first), header, *parts)
    return b"".join((header[:_CHECKSUM_AT], checksum.to_bytes(4, "little"), *parts))


def _checksum(*parts: bytes | memoryview) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A decoded block: item i is `payload[ends[i-1] : ends[i]]`."""

    first: int
    payload: bytes
    ends: memoryview
    runs: bytes
    references: bool

    @property
    def count(self) -> int:
        return len(self.ends)

    def items(self, begin: int, end: int) -> list[bytes]:
        """The raw items begin … end-1, counted within the segment."""
        low, high = begin - self.first, end - self.first
        before = self.ends[low - 1] if low else 0
        ends = self.ends[low:high].tolist()
        return marked(self.payload, 0, before, ends) if self.references else slices(self.payload, before, ends)

    def lengths(self) -> list[int]:
        """Of each item, in bytes; of a large one, whose bytes are elsewhere, what it has there."""
        found, before = [], 0
        for end in self.ends:
            stop = end & END_MASK
            length = stop - before
            if self.references and end & IS_REFERENCE and length == REFERENCE.size:
                length = REFERENCE.unpack_from(self.payload, before)[1]
            found.append(length)
            before = stop
        return found


def slices(data: bytes, begin: int, ends: list[int]) -> list[bytes]:
    """`data` cut at `ends`, the first piece beginning at `begin`. Raises DamagedError unless each begins where one ends."""
    if not ends:
        return []
    if ends[0] < begin or sorted(ends) != ends:  # pieces that overlap could take any amount of memory
        raise DamagedError("items that end before they begin")
    return [data[begin : ends[0]], *[data[a:b] for a, b in pairwise(ends)]]


def marked(data: bytes, start: int, before: int, ends: list[int]) -> list[bytes]:
    """The same where ends may be marked: those items come as `Reference`s. Ends count from `start`."""
    items: list[bytes] = []
    begin = start + (before & END_MASK)
    for end in ends:
        stop = start + (end & END_MASK)
        if stop < begin:
            raise DamagedError("items that end before they begin")
        item = data[begin:stop]
        items.append(Reference(item) if end & IS_REFERENCE else item)
        begin = stop
    return items


def has_references(block: bytes) -> bool:
    """Whether large items' places may be among its items."""
    return bool(HEADER.unpack_from(block)[2] & HAS_REFERENCES)


def payload_at(runs: int, count: int) -> int:
    """Where the payload begins in a block of so many runs and items."""
    return HEADER.size + 4 * count + RUN.size * runs


def decode(block_key: bytes, block: bytes, *, verify: bool = False) -> Block:
    """Checks every length before it believes it, and to `verify` the checksum as well; raises DamagedError."""
    if len(block) < HEADER.size:
        raise DamagedError("block shorter than its header")
    _, _, _, runs, count, _ = HEADER.unpack_from(block)
    start = payload_at(runs, count)
    return decode_parts(block_key, block[:start], block[start:], verify=verify)


def decode_parts(block_key: bytes, head: bytes, payload: bytes, *, verify: bool = False) -> Block:
    """The same for a block of which the payload is apart, so that it need not be copied out."""
    if len(block_key) != 8 or len(head) < HEADER.size:
        raise DamagedError("block shorter than its header")
    magic, version, flags, runs, count, checksum = HEADER.unpack_from(head)
    if magic != MAGIC or version != VERSION:
        raise DamagedError(f"block with magic {magic!r}, version {version}")
    if verify and (
        not flags & HAS_CHECKSUM
        or _checksum(block_key, head[:_CHECKSUM_AT] + bytes(4), head[HEADER.size :], payload) != checksum
    ):
        raise DamagedError("block whose checksum does not fit")
    if len(head) != payload_at(runs, count):
        raise DamagedError(f"block of {len(head) + len(payload)} bytes claims {count} items and {runs} runs")
    first, runs_at = int.from_bytes(block_key, "big"), HEADER.size + 4 * count
    if first + count > MOST_ITEMS:
        raise DamagedError(f"block of {count} items from {first} on")
    ends = memoryview(head)[HEADER.size : runs_at].cast("I")
    references = bool(flags & HAS_REFERENCES)
    if count and (ends[-1] & END_MASK if references else ends[-1]) != len(payload):
        raise DamagedError(f"block's items end at {ends[-1]}, its payload at {len(payload)}")
    return Block(first, payload, ends, head[runs_at:], references)
