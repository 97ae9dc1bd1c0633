"""A message: an item handed out by `receive`, together with the receipt that lets its holder settle it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

from segq.errors import ReceiptError


class Claim(Protocol):
    """What a message needs of the claim that it came from; `i` is the item's index in its segment."""

    def identity(self, i: int) -> str: ...
    def time_of(self, i: int) -> float: ...
    def acknowledge(self, i: int, delivery: int) -> bool: ...
    def refuse(self, i: int, delivery: int) -> bool: ...
    def extend(self, i: int, delivery: int, seconds: float) -> bool: ...


class Message:
    """An item that is yours until you settle it: `ack()` when its work is done, `nack()` to give it back.

    As a context manager it does that itself: `ack` on leaving normally, `nack` on an exception (which goes on)::

        with q.receive() as message:
            work(message.value)

    Neither, and the process dies: the item is handed to somebody else within about a second. Settling twice, or after the
    lease ran out, raises `ReceiptError`.
    """

    __slots__ = ("_claim", "_i", "_settled", "deliveries", "value")

    value: Any
    deliveries: int

    def __init__(self, claim: Claim, i: int, value: Any, deliveries: int) -> None:
        self._claim, self._i, self._settled = claim, i, False
        self.value = value
        #: how often the item has been handed out, this time included (it stays at 256)
        self.deliveries = deliveries

    @property
    def id(self) -> str:
        """The same each time the item is delivered, and no other item's in this queue."""
        return self._claim.identity(self._i)

    @property
    def enqueued_at(self) -> float:
        """When it was put, in seconds of the epoch, to the millisecond."""
        return self._claim.time_of(self._i)

    def ack(self) -> None:
        """The work is done: the item is gone for good when this returns. Raises ReceiptError if it is not yours any more."""
        if self._settled or not self._claim.acknowledge(self._i, self.deliveries):
            raise self._lost("acknowledged")
        self._settled = True

    def nack(self) -> None:
        """Gives the item back, to be handed out again soon. Raises ReceiptError if it is not yours any more."""
        if self._settled or not self._claim.refuse(self._i, self.deliveries):
            raise self._lost("given back")
        self._settled = True

    def extend(self, seconds: float) -> None:
        """The lease runs for `seconds` from now. Raises ReceiptError if it has run out already.

        In a queue without a lease a message is yours as long as the process lives, and this only checks that.
        """
        if self._settled or not self._claim.extend(self._i, self.deliveries, seconds):
            raise self._lost("extended")

    def __enter__(self) -> Message:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._settled:
            return
        if kind is None:
            self.ack()
        else:
            self._settled = True
            self._claim.refuse(self._i, self.deliveries)

    def __repr__(self) -> str:
        return f"<Message {self.id} deliveries={self.deliveries} value={self.value!r:.80}>"

    def _lost(self, what: str) -> ReceiptError:
        if self._settled:
            return ReceiptError(f"message {self.id} was settled before; it cannot be {what} now")
        return ReceiptError(
            f"message {self.id} cannot be {what}: its lease ran out, or its handle was closed, and the item may be with"
            " somebody else; expect its work to be done twice, or give the queue a longer lease"
        )
