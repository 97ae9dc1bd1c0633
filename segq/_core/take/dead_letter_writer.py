"""Moving an item to the dead letters: noted in its ledger, put there, and only then done here.

A death between two of these steps loses nothing. The note tells whoever is handed the item next that it may have arrived; it is
looked for by its id, and if it is there the move is finished instead of being repeated. (If somebody has taken the letter
away meanwhile, the item lives again, and may be given up once more.)
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
    """Where dead letters lie."""

    def bury(self, stored: bytes) -> None:
        """Stores a letter; returns once it survives the death of any process. Raises QueueError."""

    def holds(self, letter_id: str, label: str | None) -> bool:
        """Whether the letter of that item waits there. Raises QueueError."""

    def rescue(self) -> None:
        """Settles what the dead held there, if there is such a place."""


class Burial:
    """What one handle needs to move items of its queue, or of its label."""

    def __init__(self, cemetery: Cemetery, serializer: str, label: str | None) -> None:
        self._cemetery, self._serializer, self._label = cemetery, serializer, label

    def move(
        self, name: SegmentName, ledger: Ledger, i: int, data: bytes, *, reason: str, deliveries: int, enqueued_at: float
    ) -> None:
        """Puts item `i` among the dead letters. Its claimer marks it as done then, and calls `moved`. Raises QueueError."""
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
        """It is done here."""
        if ARMED:
            reach("dead.done")
        ledger.end_move(i)

    def rescue(self) -> None:
        """Somebody died who had the queue open: he may have had the dead letters open as well."""
        try:
            self._cemetery.rescue()
        except (QueueError, OSError) as error:
            log.warning("the dead letters cannot be looked after: %s", error)

    def has_arrived(self, name: SegmentName, i: int) -> bool:
        """Whether an item is among the dead letters already. Raises QueueError."""
        return self._cemetery.holds(f"{name.identity}-{i}", self._label)
