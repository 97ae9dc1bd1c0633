"""When consumers that sleep at a bell must wake up: a word holds the time when the first known delayed item is due.

The ledgers hold the truth; the word is a hint that saves reading them. A consumer that delays an item sets the word to an
earlier time. A consumer that finds the time past sets the word to 0, frees the items that are due, and sets the word to the
next time. If it dies in between, the word stays 0 although an item is delayed. Waiting consumers also read the ledgers from
time to time, so this costs only some tenths of a second.
"""

from __future__ import annotations

from segq._core.directory.index import AT_LEISURE, EVERYBODY, LOOK_AGAIN, Bell, Index
from segq._core.segment.ledger_view import monotonic_ms


class Alarm:
    """One handle's access to this word of the bell at which its consumers sleep."""

    __slots__ = ("_at", "_bell", "_lock", "_words")

    def __init__(self, bell: Bell, index: Index) -> None:
        self._bell, self._words, self._at = bell, bell.words, bell.alarm
        self._lock = index.lock  # held for a store or two: a later time must not replace an earlier one

    def set(self, due: int) -> None:
        """Notes that an item is due at `due` (monotonic ms). Wakes consumers that would sleep too long; they sleep less."""
        words, at = self._words, self._at
        with self._lock:
            earlier = not words[at] or due < words[at]
            if earlier:
                words[at] = due
        if earlier and due < monotonic_ms() + 1000 * LOOK_AGAIN * AT_LEISURE:
            self._bell.ring(EVERYBODY)

    def is_set(self) -> bool:
        return self._words[self._at] != 0

    def left(self) -> float | None:
        """Seconds until the alarm rings, negative if it is late; None if it is not set."""
        due = self._words[self._at]
        return (due - monotonic_ms()) / 1000 if due else None

    def rings(self) -> bool:
        """True for one caller when the time has come; this caller frees the due items for all."""
        words, at = self._words, self._at
        if not words[at] or words[at] > monotonic_ms():
            return False
        with self._lock:
            if not words[at] or words[at] > monotonic_ms():
                return False
            words[at] = 0
        return True
