"""What coroutines put that takes more than a memory copy: stored by a thread, one write for all that wait for it.

While one write is under way, others gather behind it. They go as one (a *group commit*, as databases do it): with
`durability="power"` a hundred coroutines that put at the same time pay for one or two fsyncs. Each of them learns of its own
outcome; where the group has no room as a whole, or cannot be written, each is tried by itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
from collections import deque
from collections.abc import Iterator
from functools import partial

from segq._core.base.errors import ClosedError
from segq._core.put.producer import Producer
from segq.aio.worker import Worker

_MOST_ITEMS, _MOST_BYTES = 4096, 1 << 20  # of a group


@dataclasses.dataclass(slots=True, eq=False)
class Entry:
    """What one coroutine puts: all of `data` or nothing."""

    data: list[bytes]
    ttl_ms: int
    stored: asyncio.Future[bool] | None = None


class Commits:
    """Used in one loop's thread."""

    def __init__(self, producer: Producer, worker: Worker, *, drops: bool) -> None:
        """`drops`: where there is no room the oldest items go, which asks the disk."""
        self._drops = drops
        self._loop = asyncio.get_running_loop()
        self._producer, self._worker = producer, worker
        self._entries: deque[Entry] = deque()
        self._under_way = False

    @property
    def busy(self) -> bool:
        """Whether others are to be let go first."""
        return self._under_way or bool(self._entries)

    async def store(self, entry: Entry) -> bool:
        """False if there is no room. Cancelled before the write was begun nothing is stored; during it, the entry is."""
        if not self.busy:
            done = self._producer.store(entry.data, entry.ttl_ms, at_ease=True)
            if done or (done is False and not self._drops):
                return done
        entry.stored = self._loop.create_future()
        self._entries.append(entry)
        self._begin()
        try:
            return await entry.stored
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):
                self._entries.remove(entry)
            raise

    def _begin(self) -> None:
        if self._entries and not self._under_way:
            group = list(self._group())
            self._under_way = True
            try:
                future = self._worker.submit(partial(_stored, self._producer, group))
            except ClosedError:  # what `store` raises says so better
                self._settle(group, _stored(self._producer, group))
                return
            future.add_done_callback(partial(self._finished, group))

    def _group(self) -> Iterator[Entry]:
        entries = self._entries
        ttl_ms, items, size = entries[0].ttl_ms, 0, 0
        while entries and entries[0].ttl_ms == ttl_ms:
            items += len(entries[0].data)
            size += sum(map(len, entries[0].data))
            if items > len(entries[0].data) and (items > _MOST_ITEMS or size > _MOST_BYTES):
                return
            yield entries.popleft()

    def _finished(self, group: list[Entry], future: concurrent.futures.Future[list[bool | Exception]]) -> None:
        """In the worker's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._settle, group, future.result())

    def _settle(self, group: list[Entry], outcomes: list[bool | Exception]) -> None:
        self._under_way = False
        for entry, outcome in zip(group, outcomes, strict=True):
            if entry.stored is None or entry.stored.done():
                continue
            if isinstance(outcome, Exception):
                entry.stored.set_exception(outcome)
            else:
                entry.stored.set_result(outcome)
        self._begin()


def _stored(producer: Producer, group: list[Entry]) -> list[bool | Exception]:
    """Whether each was stored, or why it could not be."""
    if len(group) > 1:
        with contextlib.suppress(Exception):  # then each by itself: it may be the fault of one
            if producer.store([item for entry in group for item in entry.data], group[0].ttl_ms):
                return [True] * len(group)
    outcomes: list[bool | Exception] = []
    for entry in group:
        if entry.stored is not None and entry.stored.cancelled():
            outcomes.append(False)
            continue
        try:
            outcomes.append(bool(producer.store(entry.data, entry.ttl_ms)))
        except Exception as error:  # goes to the coroutine that put it
            outcomes.append(error)
    return outcomes
