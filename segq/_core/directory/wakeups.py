"""When those who sleep at a bell have to get up: a word that says when the first delayed item is due, as far as is known.

The truth is in the ledgers; the word is a hint that spares everybody a look at them. Whoever delays an item sets it to an
earlier time; whoever finds it past takes it (it is 0 then), frees what is due, and sets it to what comes next. One who dies in
between leaves a word that is 0 though something is delayed: everybody who waits looks at the ledgers now and then as well, so
that costs some tenths of a second.
"""

from __future__ import annotations

from segq._core.directory.index import AT_LEISURE, EVERYBODY, LOOK_AGAIN, Bell, Index
from segq._core.segment.ledger_view import monotonic_ms


class Alarm:
    """One handle's hold on the word of the bell at which its consumers sleep."""

    __slots__ = ("_at", "_bell", "_lock", "_words")

    def __init__(self, bell: Bell, index: Index) -> None:
        self._bell, self._words, self._at = bell, bell.words, bell.alarm
        self._lock = index.lock  # held for a store or two: it keeps a later time from taking an earlier one's place

    def set(self, due: int) -> None:
        """Something is due then (monotonic milliseconds). Who would sleep through it is woken, and sleeps on for less."""
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
        """Seconds until it rings, less than 0 if it should have; None if it is not set."""
        due = self._words[self._at]
        return (due - monotonic_ms()) / 1000 if due else None

    def rings(self) -> bool:
        """True for one caller once the time has come: it frees what is due on behalf of all."""
        words, at = self._words, self._at
        if not words[at] or words[at] > monotonic_ms():
            return False
        with self._lock:
            if not words[at] or words[at] > monotonic_ms():
                return False
            words[at] = 0
        return True
