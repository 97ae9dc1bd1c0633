"""How many items were put, handed out and acknowledged since the watch began, from what is on the disk and mapped.

The queue keeps no such totals: counting what a crash could make wrong, or what every `put` would have to store to, was left out
on purpose. What there is:

* For each open handle its owner counts puts and gets in a word of its own, from when it was opened until it is closed. Puts of
  the last millisecond may be missing.
* Each ledger says exactly how many items its segment has, for as long as the segment is there, and its mapping for longer.

So of a handle's puts two counts are known, neither ever too high: the first misses what the handle put between the last look and
its end, the second segments that came and went between two looks. The larger one counts. What was acknowledged follows from
what was put and what is still there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from segq.watch.segments import Standing
from segq.watch.snapshot import Flow

HandleKey = tuple[int, float]
"""A handle: its slot, which others take after it, and when it was opened."""


@dataclasses.dataclass(slots=True)
class _Handle:
    counted: int = 0  # by its owner's word
    published: int = 0  # by ledgers
    puts_before: int = 0  # what the words said when the watch began
    gets_before: int = 0
    gets: int = 0

    @property
    def puts(self) -> int:
        return max(self.counted, self.published)


class Totals:
    """Adds up, look after look."""

    def __init__(self) -> None:
        self._handles: dict[HandleKey, _Handle] = {}
        self._whose: dict[int, HandleKey] = {}  # the last handle seen in a slot
        self._published: dict[str, int] = {}
        self._puts = self._gets = 0  # of handles that are closed
        self._base: int | None = None  # items stored, and expired, when the watch began
        self._stranded = 0  # items that went to quarantine unread
        self._flow = Flow()

    def look(
        self, owners: Mapping[HandleKey, tuple[int, int]], present: Iterable[Standing], gone: Iterable[Standing], expired: int
    ) -> Flow:
        """`owners`: what each open handle's words say (puts, gets). `expired`: items whose time ran out, ever."""
        present, gone = list(present), list(gone)
        first = self._base is None
        stored = sum(standing.published - standing.over for standing in present) + expired
        closed = self._read_words(owners, first=first)
        for standing in present + gone:
            self._read_ledger(standing, first=first)
        for standing in gone:
            self._published.pop(standing.name.identity, None)
            self._stranded += standing.published - standing.over
        if self._base is None:
            self._base = stored
        for key in closed:
            self._retire(key)
        puts = self._puts + sum(handle.puts for handle in self._handles.values())
        gets = self._gets + sum(handle.gets for handle in self._handles.values())
        acks = puts - (stored - self._base) - self._stranded
        before = self._flow
        self._flow = Flow(put=max(before.put, puts), get=max(before.get, gets), ack=max(before.ack, acks))
        return self._flow

    def _read_words(self, owners: Mapping[HandleKey, tuple[int, int]], *, first: bool) -> list[HandleKey]:
        for key, (puts, gets) in owners.items():
            handle = self._handles.get(key)
            if handle is None:
                handle = self._handles[key] = _Handle()
                if first:
                    handle.puts_before, handle.gets_before = puts, gets
                self._whose[key[0]] = key
            handle.counted = max(handle.counted, puts - handle.puts_before)
            handle.gets = max(handle.gets, gets - handle.gets_before)
        return [key for key in self._handles if key not in owners]

    def _read_ledger(self, standing: Standing, *, first: bool) -> None:
        identity, published = standing.name.identity, standing.published
        before = self._published.get(identity, published if first else 0)
        self._published[identity] = published
        if published > before:
            key = self._whose.get(standing.owner)
            handle = self._handles.get(key) if key is not None else None
            if handle is not None:
                handle.published += published - before
            else:
                self._puts += published - before  # of a handle that came and went between two looks, or went before

    def _retire(self, key: HandleKey) -> None:
        handle = self._handles.pop(key)
        self._puts += handle.puts
        self._gets += handle.gets
