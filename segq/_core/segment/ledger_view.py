"""What a segment's ledger says: a mapped file with a state byte, an owner's slot and a delivery count for each item.

Here is only looking; `ledger` changes it. How many items are done is not counted anywhere: it is read off the state bytes, so
no crash can make a counter wrong.

In a topic each label has a ledger of its own for a segment; what the producer notes (how many items there are, whether more may
come, when they expire) it reads in the producer's, its `source`. Where an item may go although somebody has claimed it (its
time runs out, or the topic drops its oldest for new ones), a ledger is *contested*: handing out takes the lock and looks again.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from segq._core.base.errors import DamagedError
from segq._core.format import format as fmt
from segq._core.format.format import (
    CLAIMED,
    DEAD,
    DELAYED,
    DONE,
    FREE,
    HANDED,
    LEDGER_STEP,
    MISSED,
    LedgerFlag,
    LedgerLayout,
    LedgerWord,
)
from segq._core.system.locks import FileMutex, Rank
from segq._core.system.mapped import MappedFile

_ITEMS, _FLAGS, _OWNER, _EPOCH = (int(w) for w in (LedgerWord.ITEMS, LedgerWord.FLAGS, LedgerWord.OWNER, LedgerWord.EPOCH))
_PUBLISHED, _SEALED, _NEXT = int(LedgerWord.PUBLISHED), int(LedgerWord.SEALED), int(LedgerWord.NEXT)
_CHOSEN, _LAPSE = int(LedgerWord.CHOSEN), int(LedgerWord.LAPSE)
_DUE, _MOVING = int(LedgerWord.DUE), int(LedgerWord.MOVING)
_ALLOCATED, _SKIPPED = int(LedgerWord.ALLOCATED), int(LedgerWord.SKIPPED)
_RETURNED, _LIMIT, _LIMIT_BYTES = int(LedgerWord.RETURNED), int(LedgerWord.LIMIT), int(LedgerWord.LIMIT_BYTES)
_OVER = DONE + DEAD + MISSED
_FINISHED = re.compile(rb"[\x02\x04\x05]+")
_OVER_MASK = bytes(int(bytes([state]) in _OVER) for state in range(256))
_SETTLED_MASK = bytes(int(bytes([state]) in DONE + MISSED) for state in range(256))
_LEFT_MASK = bytes(int(bytes([state]) in FREE + CLAIMED + HANDED + DELAYED) for state in range(256))
_UNHANDED_MASK = bytes(int(bytes([state]) in FREE + CLAIMED + DELAYED) for state in range(256))
_HELD = re.compile(rb"[\x01\x03]+")


class Census(NamedTuple):
    """How the items of a segment stand: how many wait, are in somebody's hands, …; `first` that is not over (-1: none)."""

    waiting: int
    claimed: int
    acknowledged: int
    missed: int
    first: int


class LedgerView:
    """One process handle's mapping of a segment's ledger.

    `words` are the ledger's own, `stored` those in which the producer notes what there is: its own, or its source's.
    """

    __slots__ = (
        "_allocated", "_claimed", "_file", "_lapses", "_map", "_prefix", "contested", "deadlines", "deliveries", "expires",
        "layout", "lock", "owners", "sizes", "source", "states", "stored", "words",
    )  # fmt: skip

    layout: LedgerLayout
    expires: memoryview[int] | None

    def __init__(self, file: MappedFile, source: LedgerView | None = None) -> None:
        words = file.words
        if words[LedgerWord.MAGIC] != fmt.LEDGER_MAGIC:
            raise DamagedError(f"{file.path} is not a ledger of this version", path=file.path)
        items, flags = words[_ITEMS], words[_FLAGS]
        if not 0 < items <= fmt.MOST_ITEMS or flags > sum(LedgerFlag) or (source is not None and items != source.layout.items):
            raise DamagedError(f"{file.path} claims {items} items", path=file.path)
        layout = LedgerLayout.of(items, flags)
        if file.size < layout.total or max(words[_PUBLISHED], words[_NEXT]) > items:
            raise DamagedError(f"{file.path} is too short, or its counts too high", path=file.path)
        view = file.view
        self._file, self._map, self.lock = file, file.map, FileMutex(file.descriptor, Rank.LEDGER)
        self.layout, self.words = layout, words
        self.states = view[layout.states : layout.states + items]
        self.owners = view[layout.owners : layout.owners + 2 * items].cast("H")
        self.deliveries = view[layout.deliveries : layout.deliveries + items]
        self.deadlines = view[layout.deadlines : layout.deadlines + 8 * items].cast("d") if layout.deadlines else None
        self.sizes = view[layout.sizes : layout.sizes + 8 * items].cast("Q") if layout.sizes else None
        self.source = source
        self.stored = words if source is None else source.words
        own_expires = view[layout.expires : layout.expires + 8 * items].cast("Q") if layout.expires else None
        self.expires = own_expires if source is None else source.expires
        self.contested = self.deadlines is not None or self.expires is not None or bool(flags & LedgerFlag.DROPPABLE)
        self._lapses: dict[int, tuple[int, int]] = {}
        self._prefix = 0  # all items below it are done: a cache, items never become un-done
        self._allocated = 0
        self._claimed = CLAIMED * LEDGER_STEP

    @classmethod
    def look(cls, path: str, source: LedgerView | None = None) -> LedgerView:
        """Opened for reading only: for those who must not change anything. Raises FileNotFoundError or DamagedError."""
        file = MappedFile.look(path, fmt.PAGE)
        try:
            return cls(file, source)
        except DamagedError:
            file.close()
            raise

    def close(self) -> None:
        """Lets go of the descriptor (and with it of the lock); views already taken stay readable."""
        self._file.close()

    @property
    def owner(self) -> int:
        return self.stored[_OWNER]

    @property
    def epoch(self) -> int:
        return self.stored[_EPOCH]

    @property
    def published(self) -> int:
        return min(self.stored[_PUBLISHED], self.layout.items)  # a damaged word must not lead out of the arrays

    @property
    def sealed(self) -> bool:
        return self.stored[_SEALED] == 1

    def published_bytes(self) -> int:
        published = self.published
        return self.sizes[published - 1] if self.sizes is not None and published else 0

    def reserved(self) -> tuple[int, int]:
        """Items and bytes that count against the capacity before subtracting what is done."""
        words = self.words
        return max(words[_LIMIT], self.published), max(words[_LIMIT_BYTES], self.published_bytes())

    def available(self) -> bool:
        words = self.words
        return self.stored[_PUBLISHED] > words[_NEXT] or words[_RETURNED] > 0

    def fresh(self, most: int) -> int:
        """The item to be claimed next, if that is all to be said: nobody ever had it, there are up to `most` of them, and
        more may come; else -1."""
        words, stored = self.words, self.stored
        i = words[_NEXT]
        if (
            not 0 < stored[_PUBLISHED] - i <= most
            or stored[_SEALED]
            or words[_RETURNED]
            or self.contested
            or (self.source is not None and i >= words[_ALLOCATED])
            or self.states[i]
            or self.deliveries[i]
        ):
            return -1
        return i

    @property
    def next(self) -> int:
        """The item to be claimed next, unless some were given back."""
        return self.words[_NEXT]

    def gave_back(self) -> bool:
        """Whether items before `next` may be free again."""
        return self.words[_RETURNED] > 0

    def untouched(self) -> bool:
        """Whether nobody ever claimed anything. A claimer that died half-way has marked items and not moved `next`."""
        return not self.words[_NEXT] and not self._known_states().strip(FREE)

    def must_be_chosen(self) -> bool:
        """Sealed untouched, so that its name has to say `chosen` before anybody claims in it.

        That order lets rescue and the capacity count rely on names: in a segment called `ready` nothing is claimed.
        """
        words = self.stored
        return words[_SEALED] == 1 and words[_NEXT] == 0 and not words[_CHOSEN]

    def chosen(self) -> None:
        self.stored[_CHOSEN] = 1

    @property
    def is_chosen(self) -> bool:
        return self.words[_CHOSEN] == 1

    def waiting(self) -> int:
        """Items that nobody has claimed."""
        words = self.words
        if self._sparse:
            return self.published - self._known() + self._window().count(FREE)
        return self.published - words[_NEXT] + (self._window().count(FREE) if words[_RETURNED] else 0)

    def handed(self) -> int:
        """Items handed to somebody who has not acknowledged them."""
        return self._window().count(HANDED)

    def delayed(self) -> int:
        """Items given back that are not due yet."""
        return self._window().count(DELAYED) if self.words[_DUE] else 0

    @property
    def due(self) -> int:
        """Monotonic milliseconds at which to look for delayed items that are due; 0 if none is delayed."""
        return self.words[_DUE]

    @property
    def moving(self) -> bool:
        """Whether an item may have been on its way to the dead letters when somebody died."""
        return self.words[_MOVING] != 0

    def done(self) -> int:
        """Items that nobody will be handed (again)."""
        window = self._window()
        return self._prefix + window.count(DONE) + window.count(DEAD) + window.count(MISSED)

    def missed(self) -> int:
        """Items that expired or were dropped before anybody had them."""
        return self._known_states().count(MISSED)

    def census(self, gone: bytes) -> Census:
        """How the items stand, of which those with a 1 in `gone` have expired or were dropped, marked here or not."""
        states = self._known_states().ljust(len(gone), FREE)[: len(gone)]
        unhanded = int.from_bytes(states.translate(_UNHANDED_MASK), "little")
        lost = unhanded & int.from_bytes(gone, "little")
        left = int.from_bytes(states.translate(_LEFT_MASK), "little") & ~lost
        return Census(
            waiting=unhanded.bit_count() - lost.bit_count(),
            claimed=states.count(HANDED),
            acknowledged=states.count(DONE) - self.words[_SKIPPED],
            missed=states.count(MISSED) + lost.bit_count(),
            first=left.to_bytes(len(gone), "little").find(1),
        )

    def redelivered(self) -> int:
        """How often items were handed out again."""
        return sum(self._map[self.layout.deliveries : self.layout.deliveries + self._known()])

    def all_done(self, begin: int, end: int) -> bool:
        """Whether nobody will ever want to read the items begin … end-1."""
        at = self.layout.states
        if self.source is not None and end > self.words[_ALLOCATED]:
            return False
        return not self._map[at + begin : at + end].strip(_OVER)

    def over_mask(self, items: int) -> bytes:
        """For each of the first `items` items a 1 if nobody will be handed it (again), else a 0."""
        return self._known_states()[:items].translate(_OVER_MASK).ljust(items, b"\0")

    def settled_mask(self, items: int) -> bytes:
        """The same for those that were acknowledged, expired, or were dropped; not for those that could not be read."""
        return self._known_states()[:items].translate(_SETTLED_MASK).ljust(items, b"\0")

    def first_open(self) -> int:
        """The first item that is not over."""
        self._window()
        return self._prefix

    def done_bytes(self) -> int:
        """Payload bytes of the done items; 0 in a queue without a byte limit."""
        return self.bytes_of(self._window(), self._prefix) if self.sizes is not None else 0

    def bytes_of(self, window: bytes, prefix: int, over: re.Pattern[bytes] = _FINISHED) -> int:
        """Payload bytes of the items below `prefix`, and of those that `over` matches in the `window` of states after it."""
        sizes = self.sizes
        if sizes is None:
            return 0
        total = sizes[prefix - 1] if prefix else 0
        for match in over.finditer(window):
            i, j = prefix + match.start(), prefix + match.end()
            total += sizes[j - 1] - (sizes[i - 1] if i else 0)
        return total

    def complete(self) -> bool:
        """Sealed, and every item done (or dead, or missed)."""
        return self.sealed and self.done() == self.published

    def lapsed(self, now_ms: int) -> bool:
        """Whether it has items, and all of them have expired."""
        return self.expires is not None and self.published > 0 and self.stored[_LAPSE] <= now_ms

    def dead(self) -> int:
        """Items that could not be read; they stay in the segment, which goes to quarantine in the end."""
        return self._known_states().count(DEAD)

    @property
    def _sparse(self) -> bool:
        """Whether items above `next` can be over."""
        return self.expires is not None or bool(self.words[_FLAGS] & LedgerFlag.DROPPABLE)

    def _known(self) -> int:
        """The items whose states can be looked at: a label's arrays grow behind the producer's."""
        published = self.published
        return published if self.source is None else min(published, self.words[_ALLOCATED])

    def _known_states(self) -> bytes:
        return self._map[self.layout.states : self.layout.states + self._known()]

    def _window(self) -> bytes:
        """The state bytes that can differ: above the done prefix (which grows here), below `next`."""
        begin = self.layout.states + self._prefix
        stop = self._known() if self._sparse else min(self.words[_NEXT], self._known())
        window = self._map[begin : self.layout.states + max(stop, self._prefix)]
        rest = window.lstrip(_OVER)
        self._prefix += len(window) - len(rest)
        return rest

    def free_items(self, most: int) -> list[int]:
        """Indexes of up to `most` items that nobody has claimed, oldest first; a look, no claim."""
        found: list[int] = []
        base, now = self._prefix, now_ms()
        states = self._map[self.layout.states + base : self.layout.states + self._known()]
        states += FREE * (self.published - base - len(states))
        at = states.find(FREE)
        while at >= 0 and len(found) < most:
            if self.expires is None or self.expires[base + at] > now:
                found.append(base + at)
            at = states.find(FREE, at + 1)
        return found

    def next_deadline(self) -> float | None:
        """When (monotonic seconds) the first lease in this segment runs out; None if none is running."""
        deadlines = self.deadlines
        return min((deadlines[i] for i in self._held()), default=None) if deadlines is not None else None

    def holders(self) -> dict[int, int]:
        """Slots that have items claimed or in hand, and how many."""
        found: dict[int, int] = {}
        for i in self._held():
            found[self.owners[i]] = found.get(self.owners[i], 0) + 1
        return found

    def hidden(self) -> int:
        """Items given back that nobody will ever look for: free, below `next`, and not counted there. Under the lock."""
        words = self.words
        given_back = self._map[self.layout.states : self.layout.states + min(words[_NEXT], self._known())]
        return (0 if words[_RETURNED] else given_back.count(FREE)) + (0 if words[_DUE] else given_back.count(DELAYED))

    def _held(self) -> list[int]:
        base = self._prefix
        states = self._map[self.layout.states + base : self.layout.states + self._known()]
        return [base + i for match in _HELD.finditer(states) for i in range(match.start(), match.end())]


def now_ms() -> int:
    """Milliseconds of the epoch, by which items expire."""
    return int(time.time() * 1000)


def monotonic_ms() -> int:
    """Milliseconds of the clock that all processes of this boot share, by which delayed items are due."""
    return time.monotonic_ns() // 1_000_000


def monotonic_deadline(seconds: float | None) -> float:
    """Now + seconds on the clock all processes of this boot share; infinity for no lease."""
    return time.monotonic() + seconds if seconds is not None else float("inf")
