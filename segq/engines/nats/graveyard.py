"""The dead letters of a stream: a queue of its own beside it, `<name>-dead`, made with the first of them."""

from __future__ import annotations

import asyncio
import time

from segq.engines.nats.delivery import Delivery
from segq.engines.nats.publisher import Publisher
from segq.engines.nats.stream import Stream

SUFFIX = "-dead"


class Graveyard:
    """Where items go that nobody could deal with: as they were, with the reason in their headers."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._publisher: Publisher | None = None
        self._opening = asyncio.Lock()  # the first burials wait while the queue is made

    async def add(self, delivery: Delivery, reason: str) -> None:
        """Confirmed when this returns. The id keeps an item from lying there twice if we die before it left its queue."""
        async with self._opening:
            if self._publisher is None:
                kept = self._stream.settings
                given = {"serializer": kept.serializer, "replicas": kept.replicas}
                dead = await Stream.open(self._stream.connection, self._stream.name + SUFFIX, "queue", given, create=True)
                self._publisher = Publisher(dead, atomic=True)
        headers = {
            "Segq-Reason": " ".join(reason.split())[:2000],
            "Segq-Deliveries": str(delivery.deliveries),
            "Segq-Enqueued-At": f"{delivery.stored_at:.3f}",
            "Segq-Died-At": f"{time.time():.3f}",
            "Segq-Id": f"{self._stream.name}-{delivery.sequence}",
        }
        await self._publisher.put_one_as(
            f"{self._stream.name}-{self._stream.created}-{delivery.sequence}", delivery.payload, headers
        )
