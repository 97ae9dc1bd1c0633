"""The dead letters of a stream: a queue of its own beside it, `<name>-dead`, made with the first of them."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from segq._core.base.errors import QueueError
from segq._core.base.letter import DeadLetter, encoded
from segq.engines.nats.delivery import Delivery
from segq.engines.nats.publisher import Publisher
from segq.engines.nats.stream import Stream

SUFFIX = "-dead"


class Graveyard:
    """Where items go that nobody could deal with, as records of `segq.letter`."""

    def __init__(self, stream: Stream, label: str | None) -> None:
        self._stream, self._label = stream, label
        self._publisher: Publisher | None = None
        self._opening = asyncio.Lock()  # the first burials wait while the queue is made

    async def add(self, delivery: Delivery, reason: str) -> None:
        """Confirmed when this returns. The id keeps an item from lying there twice if we die before it left its queue."""
        if self._stream.name.endswith(SUFFIX):
            raise QueueError(
                f"{self._stream.shown}: a dead letter cannot be rejected again; ack() throws it away, nack() leaves it,"
                " requeue() puts it back",
                path=self._stream.shown,
            )
        async with self._opening:
            if self._publisher is None:
                given = {"replicas": self._stream.settings.replicas}
                dead = await Stream.open(self._stream.connection, self._stream.name + SUFFIX, "queue", given, create=True)
                self._publisher = Publisher(dead, atomic=True)
        letter = DeadLetter(
            id=f"{self._stream.name}-{delivery.sequence}",
            value=None,
            reason=reason,
            deliveries=delivery.deliveries,
            enqueued_at=delivery.stored_at,
            dead_at=self._stream.connection.now(),
            label=self._label,
            data=delivery.payload,
        )
        identity = f"{self._stream.name}-{self._stream.created}-{self._label or ''}-{delivery.sequence}"
        await self._publisher.put_one_as(quote(identity), encoded(letter, self._stream.settings.serializer))
