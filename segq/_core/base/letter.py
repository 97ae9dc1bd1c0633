"""A dead letter: an item that was given up, with the reason and what was known of it; and how one is stored.

In the queue of dead letters it is a map (msgpack) with the item as its `value`: as it was where the queue it comes from is
one of msgpack too, else as the bytes that were stored there. It is never decoded and encoded again on its way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec

from segq._core.base.errors import DamagedError

MOST_REASON = 16_384  # characters; a traceback fits, a response's body need not


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An item that was given up: rejected, or handed out `max_deliveries` times in vain. Times in seconds of the epoch."""

    id: str
    """Its id in the queue that it comes from, as `Message.id` was there."""
    value: Any
    reason: str
    deliveries: int
    """How often it was handed out."""
    enqueued_at: float
    dead_at: float
    label: str | None = None
    """Of a topic: for which label it was given up. The others had it or will have it."""
    data: bytes = dataclasses.field(repr=False, default=b"")
    """The item as it was stored."""


class _Record(msgspec.Struct, omit_defaults=True):
    id: str
    reason: str
    deliveries: int
    enqueued_at: float
    dead_at: float
    value: msgspec.Raw
    label: str | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


def encoded(letter: DeadLetter, serializer: str) -> bytes:
    """`letter.data` goes in, not its value; `serializer` is the one it was made with."""
    data = letter.data if serializer == "msgpack" else _encode(letter.data)
    return _encode(
        _Record(
            id=letter.id,
            reason=letter.reason[:MOST_REASON],
            deliveries=letter.deliveries,
            enqueued_at=letter.enqueued_at,
            dead_at=letter.dead_at,
            value=msgspec.Raw(data),
            label=letter.label,
        )
    )


def decoder(serializer: str, loads: Callable[[bytes], Any]) -> Callable[[bytes], DeadLetter]:
    """From what is stored to a letter. It raises DamagedError for what is none, and whatever `loads` does."""

    def decode(stored: bytes) -> DeadLetter:
        try:
            record = _decode(stored)
            data = bytes(record.value) if serializer == "msgpack" else msgspec.msgpack.decode(record.value, type=bytes)
        except msgspec.MsgspecError as error:
            raise DamagedError(f"not a dead letter: {error}") from error
        return DeadLetter(
            id=record.id,
            value=loads(data),
            reason=record.reason,
            deliveries=record.deliveries,
            enqueued_at=record.enqueued_at,
            dead_at=record.dead_at,
            label=record.label,
            data=data,
        )

    return decode
