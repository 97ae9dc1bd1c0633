"""How many items were put, handed out and acknowledged since the watch began, from what is on the disk and mapped.

The queue keeps no such totals: counting what a crash could make wrong, or what every `put` would have to store to, was left out
on purpose. What there is:

* For each open handle its owner counts puts and gets in a word of its own, from when it was opened until it is closed. Puts of
  the last millisecond may be missing.
* Each ledger says exactly how many items its segment has, for as long as the segment is there, and its mapping for longer.

So while a handle goes on with the segment it had in hand at the last look, the ledgers tell exactly what it has put; when it
has another, some may have come and gone in between, and its word tells. What is missed is what a handle put into segments that
came and went between the last look and its end. What was acknowledged follows from what was put and what is still there.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from segq._core.format.format import State
from segq.watch.segments import Standing
from segq.watch.snapshot import Flow

HandleKey = tuple[int, float]
"""A handle: its slot, which others take after it, and when it was opened."""


@dataclasses.dataclass(slots=True)
class _Handle:
    puts: int = 0  # what its word would say if it did not lag; at the first look, what it says
    gets: int = 0
    segment: str | None = None  # the one it had in hand


class Totals:
    """Adds up, look after look."""

    def __init__(self) -> None:
        self._handles: dict[HandleKey, _Handle] = {}
        self._whose: dict[int, HandleKey] = {}  # the last handle seen in a slot
        self._published: dict[str, int] | None = None  # by segment; None before the first look
        self._puts = self._gets = 0
        self._stored = 0  # and expired, when the watch began
        self._stranded = 0  # items that went to quarantine unread
        self._flow = Flow()

    def look(
        self, owners: Mapping[HandleKey, tuple[int, int]], present: Iterable[Standing], gone: Iterable[Standing], expired: int
    ) -> Flow:
        """`owners`: what each open handle's words say (puts, gets). `expired`: items whose time ran out, ever."""
        present, gone = list(present), list(gone)
        stored = sum(standing.published - standing.over for standing in present) + expired
        self._whose |= {key[0]: key for key in owners}
        if self._published is None:
            self._handles = {key: _Handle(*words) for key, words in owners.items()}
            self._published = {standing.name.identity: standing.published for standing in present}
            self._stored = stored
        grown = self._growth(self._published, present + gone)
        self._published = {standing.name.identity: standing.published for standing in present}
        self._stranded += sum(standing.published - standing.over for standing in gone)
        in_hand = {each.owner: each.name.identity for each in present if each.name.state is State.LOADING}
        for key, (puts, gets) in owners.items():
            handle = self._handles.setdefault(key, _Handle())
            segment, more = in_hand.get(key[0]), grown[key]
            self._puts += more if segment is not None and segment == handle.segment else max(more, puts - handle.puts)
            self._gets += max(0, gets - handle.gets)
            handle.puts, handle.gets, handle.segment = max(handle.puts + more, puts), max(handle.gets, gets), segment
        self._puts += sum(more for key, more in grown.items() if key not in owners)
        self._handles = {key: handle for key, handle in self._handles.items() if key in owners}
        acks = self._puts - (stored - self._stored) - self._stranded
        self._flow = Flow(put=self._puts, get=self._gets, ack=max(self._flow.ack, acks))
        return self._flow

    def _growth(self, before: Mapping[str, int], standings: Iterable[Standing]) -> Counter[HandleKey | None]:
        """By how many items the segments of each handle have grown; None: a handle that came and went between two looks."""
        grown: Counter[HandleKey | None] = Counter()
        for standing in standings:
            more = standing.published - before.get(standing.name.identity, 0)
            if more > 0:
                grown[self._whose.get(standing.owner)] += more
        return grown
