"""A message from NATS, as `segq.Message`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segq._core.base.errors import ReceiptError, SettingsError
from segq._core.base.message import Message
from segq._core.base.settings import positive_seconds
from segq.engines.nats.delivery import Delivery
from segq.engines.nats.reader import ACK

if TYPE_CHECKING:
    from segq.engines.nats.core import Core

Call = Callable[[Coroutine[Any, Any, Any]], Any]


class NatsMessage(Message):
    """Ours until the server has heard nothing of us for the lease (or, without one, for `grace`)."""

    __slots__ = ("_call", "_core", "_delivery")

    def __init__(self, core: Core, call: Call, delivery: Delivery, value: Any) -> None:
        self._core, self._call, self._delivery = core, call, delivery
        self.value, self.deliveries = value, delivery.deliveries

    @property
    def id(self) -> str:
        """The same each time the item is delivered, and no other item's in this stream."""
        return f"{self._core.stream.name}-{self._delivery.sequence}"

    @property
    def identity(self) -> str:
        """What it was published under, so that a copy of it is known as one; its place in its stream if there is nothing."""
        named = (self._delivery.headers or {}).get("Nats-Msg-Id")
        return named or f"{self._core.stream.name}-{self._core.stream.created}-{self._delivery.sequence}"

    @property
    def headers(self) -> dict[str, str]:
        """What the item was stored with, its message id and time to live among them."""
        return dict(self._delivery.headers or {})

    @property
    def enqueued_at(self) -> float:
        """When the server stored it, by its clock, in seconds of the epoch."""
        return self._delivery.stored_at

    def ack(self) -> None:
        """The work is done: the server has confirmed it when this returns. Raises ReceiptError, UnreachableError."""
        self._ours("acknowledged")
        if self._call(self._reader.settle([self._delivery], ACK)):
            raise self._gone("acknowledged")

    def nack(self, *, delay: float = 0.0) -> None:
        """Gives the item back, to be handed out again after `delay` seconds. Raises ReceiptError, UnreachableError."""
        if delay != 0.0:
            positive_seconds("delay", delay)
        self._ours("given back")
        if not self._call(self._reader.nack(self._delivery, delay)):
            raise self._gone("given back")

    def reject(self, reason: str = "") -> None:
        """It is not to be handed out again: it goes to the dead letters. Raises ReceiptError, UnreachableError."""
        if not isinstance(reason, str):
            raise SettingsError(f"reason must be text, not {reason!r}; for an exception, str(error)")
        self._ours("rejected")
        if not self._call(self._reader.bury(self._delivery, reason)):
            raise self._gone("rejected")

    def extend(self, seconds: float) -> None:
        """The lease runs for `seconds` from now. Raises ReceiptError; UnsupportedError for less than the whole lease."""
        self._ours("extended")
        if not self._call(self._reader.extend(self._delivery, seconds)):
            raise self._gone("extended")

    def give_back_if_held(self) -> None:
        """`nack`, if it was not settled and is still yours."""
        if self._delivery.is_ours():
            self._call(self._reader.nack(self._delivery))

    def __enter__(self) -> NatsMessage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._delivery.settled:
            return
        if kind is None:
            self.ack()
        elif self._delivery.is_ours():
            self._call(self._reader.nack(self._delivery, 0.0, f"{kind.__name__}: {error}"))

    @property
    def _reader(self) -> Any:
        return self._core.reader

    def _ours(self, what: str) -> None:
        if self._delivery.settled:
            raise ReceiptError(f"message {self.id} was settled before, or its handle was closed; it cannot be {what} now")
        if not self._delivery.is_ours():
            raise self._gone(what)

    def _gone(self, what: str) -> ReceiptError:
        return ReceiptError(
            f"message {self.id} cannot be {what}: the server gave it up after {self._core.settings.ack_wait:g} s without a sign"
            " of life, and the item may be with somebody else; expect its work to be done twice"
        )
