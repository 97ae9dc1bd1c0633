"""A delivery: one time that the server handed an item to us, and how long it is ours."""

from __future__ import annotations

import time

from nats.aio.msg import Msg

_NANO = 1_000_000_000


class Delivery:
    """`until` is a time of the monotonic clock: the server gives the item to somebody else if it has heard nothing by then."""

    __slots__ = ("deliveries", "headers", "hold_until", "payload", "reply", "sequence", "settled", "stored_at", "until")

    def __init__(self, message: Msg, ack_wait: float) -> None:
        tokens = message.reply.split(".")
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.… , or with a domain and an account before the stream
        at = 4 if len(tokens) == 9 else 6
        self.deliveries, self.sequence, self.stored_at = int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 3]) / _NANO
        self.reply, self.payload, self.headers = message.reply, message.data, message.headers
        self.until = time.monotonic() + ack_wait
        self.hold_until: float | None = None
        self.settled = False

    def expires_at(self, ttl: float | None) -> float | None:
        """By the server's clock; None: never. `ttl` is the topic's, the item's own wins where it is shorter."""
        own = self.headers.get("Segq-Ttl") if self.headers else None
        if own is not None:
            ttl = int(own) / 1000 if ttl is None else min(ttl, int(own) / 1000)
        return None if ttl is None else self.stored_at + ttl

    def is_ours(self) -> bool:
        return not self.settled and time.monotonic() < self.until
