"""What becomes of an item whose task failed: it comes back later, later each time, and is given up in the end."""

from __future__ import annotations

import contextlib
import dataclasses

import segq
from segq._core.base.errors import QueueError, ReceiptError

FIRST_DELAY = 1.0  # seconds before the second attempt; doubled for each one after it
LONGEST_DELAY = 60.0


@dataclasses.dataclass(slots=True)
class Retries:
    """How the items of one worker are tried again. Without `again` they are not: they go back when the worker ends."""

    again: bool
    max_deliveries: int | None
    failures: int = 0
    """How many were given up, or are held."""
    held: list[segq.Message] = dataclasses.field(default_factory=list)

    def failed(self, message: segq.Message, why: str) -> str:
        """Gives the message back for later, or up; says in words which. `why` is the letter's reason."""
        if self.max_deliveries is not None and message.deliveries >= self.max_deliveries:
            try:
                message.reject(why)
            except QueueError as error:
                message.nack(delay=LONGEST_DELAY)
                return f"it cannot be given up yet ({error}); next attempt in {LONGEST_DELAY:g} s"
            self.failures += 1
            return f"given up after {message.deliveries} deliveries: see `segq dead list`"
        if not self.again:
            self.failures += 1
            self.held.append(message)
            return "it goes back to the queue at the end"
        delay: float = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(message.deliveries - 1, 10))
        message.nack(delay=delay)
        return f"next attempt in {delay:g} s"

    def give_back_all(self) -> None:
        """Gives back what is held."""
        for message in self.held:
            with contextlib.suppress(ReceiptError):  # its lease ran out while it waited: it has gone back already
                message.nack()
        self.held.clear()
