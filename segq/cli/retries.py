"""Items whose task failed, held back for a while: given back at once they would come first and fail again at once."""

from __future__ import annotations

import contextlib
import time

import segq
from segq.errors import ReceiptError

FIRST_DELAY = 1.0  # seconds before the second attempt; doubled for each one after it
LONGEST_DELAY = 60.0
MOST_HELD = 1000  # beyond that the oldest go back early, for what is held here nobody else can try


class Retries:
    """Messages waiting for their next attempt. Without `again` they wait until `give_back_all`."""

    def __init__(self, *, again: bool) -> None:
        self._again = again
        self._held: list[tuple[float, segq.Message]] = []
        self.failures = 0

    def hold(self, message: segq.Message) -> str:
        """Keeps the message until it is due; says in words when that is."""
        self.failures += 1
        if len(self._held) == MOST_HELD:
            _give_back(self._held.pop(0)[1])
        if not self._again:
            self._held.append((float("inf"), message))
            return "it goes back to the queue at the end"
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(message.deliveries - 1, 10))
        self._held.append((time.monotonic() + delay, message))
        return f"next attempt in {delay:g} s"

    def give_back_due(self) -> None:
        """Gives back those whose time has come. Call it often: between items and while waiting."""
        if not self._held:
            return
        now = time.monotonic()
        due = [message for when, message in self._held if when <= now]
        self._held = [(when, message) for when, message in self._held if when > now]
        for message in due:
            _give_back(message)

    def give_back_all(self) -> None:
        """Gives back all of them."""
        for _, message in self._held:
            _give_back(message)
        self._held.clear()


def _give_back(message: segq.Message) -> None:
    with contextlib.suppress(ReceiptError):  # its lease ran out while it waited: it has gone back already
        message.nack()
