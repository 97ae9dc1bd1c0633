"""Moving an item to the dead letters, in three steps: note it in its ledger, store the letter, mark the item done.

A process that dies between two steps loses nothing. The note tells the next consumer of the item that the letter may be stored.
The consumer looks for it by its id; if it is there, the consumer finishes the move instead of repeating it. (If the letter was
taken away in between, the item is live again and may become a dead letter again.)
"""

from __future__ import annotations

import logging
import time
from typing import Protocol

from segq._core.base.errors import QueueError
from segq._core.base.failpoints import ARMED, reach
from segq._core.base.letter import DeadLetter, encoded
from segq._core.format.format import SegmentName
from segq._core.segment.ledger import Ledger

log = logging.getLogger("segq")


class Cemetery(Protocol):
    """The store of the dead letters."""

    def bury(self, stored: bytes) -> None:
        """Stores a letter; when it returns, the letter survives the death of any process. Raises QueueError."""

    def holds(self, letter_id: str, label: str | None) -> bool:
        """Whether the letter of that item waits in the store. Raises QueueError."""

    def rescue(self) -> None:
        """Frees what dead owners held in the store, if the store exists."""


class Burial:
    """Moves items of one handle's queue or label to the dead letters."""

    def __init__(self, cemetery: Cemetery, serializer: str, label: str | None) -> None:
        self._cemetery, self._serializer, self._label = cemetery, serializer, label

    def move(
        self, name: SegmentName, ledger: Ledger, i: int, data: bytes, *, reason: str, deliveries: int, enqueued_at: float
    ) -> None:
        """Stores item `i` as a dead letter. Then the claimer marks it done and calls `moved`. Raises QueueError."""
        letter = DeadLetter(
            id=f"{name.identity}-{i}",
            value=None,
            data=data,
            reason=reason,
            deliveries=deliveries,
            enqueued_at=enqueued_at,
            dead_at=time.time(),
            label=self._label,
        )
        ledger.begin_move(i)
        if ARMED:
            reach("dead.noted")
        self._cemetery.bury(encoded(letter, self._serializer))
        if ARMED:
            reach("dead.stored")
        log.info("%s is a dead letter: %s", letter.id, reason, extra={"id": letter.id, "reason": reason})

    def moved(self, ledger: Ledger, i: int) -> None:
        """Ends the move, after the item is marked done."""
        if ARMED:
            reach("dead.done")
        ledger.end_move(i)

    def rescue(self) -> None:
        """Recovers the dead letters too: a dead owner of the queue may have had them open."""
        try:
            self._cemetery.rescue()
        except (QueueError, OSError) as error:
            log.warning("the dead letters cannot be looked after: %s", error)

    def has_arrived(self, name: SegmentName, i: int) -> bool:
        """Whether an item is already a dead letter. Raises QueueError."""
        return self._cemetery.holds(f"{name.identity}-{i}", self._label)
