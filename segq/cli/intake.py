"""Reading a stream in pieces as they come: large when much is there, a single line when somebody is typing."""

from __future__ import annotations

import os
from collections.abc import Iterator

CHUNK_BYTES = 1 << 20  # a pipe hands over 64 KiB at a time; files are read in larger steps than that
BATCH_ITEMS = 8192  # as many lines as 64 KiB usually hold; larger batches gained nothing


def pieces(descriptor: int, end: bytes) -> Iterator[list[bytes]]:
    """What the stream holds, cut after each `end`, in lists that are handed over as soon as they have been read.

    `os.read` returns what is there instead of waiting for a full buffer, so a line typed is a list at once, and no
    timer is needed. A last piece without `end` counts, an empty one does not.
    """
    begun: list[bytes] = []  # parts of a piece whose end has not come; joined once, however long it grows
    while chunk := os.read(descriptor, CHUNK_BYTES):
        head, found, tail = chunk.rpartition(end)
        if not found:
            begun.append(chunk)
            continue
        yield (b"".join(begun) + head).split(end)
        begun = [tail] if tail else []
    if begun:
        yield [b"".join(begun)]


def whole(descriptor: int) -> bytes:
    """Everything the stream holds."""
    chunks = []
    while chunk := os.read(descriptor, CHUNK_BYTES):
        chunks.append(chunk)
    return b"".join(chunks)


def batches(many: list[bytes], capacity: int | None, max_bytes: int | None) -> Iterator[list[bytes]]:
    """`many` in steps that a queue with these limits can take one after the other while others take items out.

    A batch goes in as a whole or not at all; quarters of the limit let a producer go on before the queue is empty.
    """
    most_items = BATCH_ITEMS if capacity is None else max(1, min(BATCH_ITEMS, capacity // 4))
    if max_bytes is None:
        for start in range(0, len(many), most_items):
            yield many[start : start + most_items]
        return
    batch: list[bytes] = []
    size = 0
    for piece in many:
        cost = len(piece) + 16  # what a serializer may add
        if batch and (len(batch) == most_items or size + cost > max_bytes // 4):
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += cost
    if batch:
        yield batch
