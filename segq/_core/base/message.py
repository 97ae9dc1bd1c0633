"""A message: an item handed out by `receive`, together with the receipt that lets its holder settle it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

from segq._core.base.errors import ReceiptError, SettingsError
from segq._core.base.settings import positive_seconds


class Claim(Protocol):
    """What a message needs of the claim that it came from; `i` is the item's index in its segment."""

    def identity(self, i: int) -> str: ...
    def time_of(self, i: int) -> float: ...
    def acknowledge(self, i: int, delivery: int) -> bool: ...
    def refuse(self, i: int, delivery: int, delay: float, reason: str) -> bool: ...
    def reject(self, i: int, delivery: int, reason: str) -> bool: ...
    def extend(self, i: int, delivery: int, seconds: float) -> bool: ...


class Message:
    """An item that is yours until you settle it: `ack()` when its work is done, `nack()` to give it back, `reject()` to give
    it up.

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

    def nack(self, *, delay: float = 0.0) -> None:
        """Gives the item back, to be handed out again soon, or after `delay` seconds (at most a fiftieth later).

        Until then others come before it; it waits in the queue, whatever becomes of this process, and after a reboot it may
        come early. If this was the last of the queue's `max_deliveries`, it goes to the dead letters instead.

        Raises ReceiptError if it is not yours any more, SettingsError for a delay that cannot be.
        """
        if delay != 0.0:
            positive_seconds("delay", delay)
        if self._settled or not self._claim.refuse(self._i, self.deliveries, delay, ""):
            raise self._lost("given back")
        self._settled = True

    def reject(self, reason: str = "") -> None:
        """Gives the item up: it goes to the queue's dead letters, with `reason`, and is not handed out again.

        It is stored there before it is gone here: a crash in between at worst has it come once more.

        Raises ReceiptError if it is not yours any more, StorageError if it cannot be stored there: it is still yours then.
        """
        if not isinstance(reason, str):
            raise SettingsError(f"reason must be text, not {reason!r}; for an exception, str(error)")
        if self._settled or not self._claim.reject(self._i, self.deliveries, reason):
            raise self._lost("rejected")
        self._settled = True

    def extend(self, seconds: float) -> None:
        """The lease runs for `seconds` from now. Raises ReceiptError if it has run out already.

        In a queue without a lease a message is yours as long as the process lives, and this only checks that.
        """
        if self._settled or not self._claim.extend(self._i, self.deliveries, seconds):
            raise self._lost("extended")

    def give_back_if_held(self) -> None:
        """`nack`, if it was not settled and is still yours."""
        if not self._settled:
            self._settled = True
            self._claim.refuse(self._i, self.deliveries, 0.0, "")

    def __enter__(self) -> Message:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._settled:
            return
        if kind is None:
            self.ack()
        else:
            self._settled = True
            self._claim.refuse(self._i, self.deliveries, 0.0, f"{kind.__name__}: {error}")

    def __repr__(self) -> str:
        return f"<Message {self.id} deliveries={self.deliveries} value={self.value!r:.80}>"

    def _lost(self, what: str) -> ReceiptError:
        if self._settled:
            return ReceiptError(f"message {self.id} was settled before; it cannot be {what} now")
        return ReceiptError(
            f"message {self.id} cannot be {what}: its lease ran out, or its handle was closed, and the item may be with"
            " somebody else; expect its work to be done twice, or give the queue a longer lease"
        )
