"""What a queue and a topic have in common for whoever puts, in asyncio."""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Any

import segq
from segq._core.base.errors import Full
from segq._core.directory.tally import Stats
from segq._core.put.producer import RECALL_LOOK, RECALL_SECONDS, NotAtOnceError
from segq.aio.commits import Entry
from segq.aio.handle import Bound, Handle, limit
from segq.aio.line import NOTHING
from segq.handles.sized import Sized


class Putting(Handle, Sized):
    """The putting methods. A coroutine that is cancelled while it waits for room has stored nothing."""

    async def put(self, item: Any, block: bool = True, timeout: float | None = None, ttl: float | None = None) -> None:
        """Stores `item`; once this returns it survives the death of any process.

        Waits for room up to `timeout` seconds (None: for ever), or not at all if `block` is false. `ttl`: see `segq.Queue.put`.
        Cancelled while it waits for room, it has stored nothing; during the write itself, the item is stored.

        Raises:
            Full: no room (in time). ShutDown, ClosedError. SerializationError, ItemTooLarge: the item's fault.
            StorageError: the disk's. In every case nothing was stored.
        """
        bound = self._bound
        if bound is None or bound.loop is not get_running_loop():
            bound = await self._open()
        producer = bound.producer
        if timeout is not None:
            limit(block, timeout)
        if ttl is not None or bound.commits.busy:
            await self._store(bound, producer.serialised((item,)), ttl, block, timeout)
            return
        try:
            producer.put(item, None)
        except NotAtOnceError as error:
            data = error.data
        else:
            if bound.waiting:  # here, in this loop: they need not hear it from the watcher
                bound.items.pass_on()
            return
        await self._store(bound, [data], ttl, block, timeout)

    def put_nowait(self, item: Any) -> None:
        """`put(item, block=False)`, at once, in this thread, which may take some milliseconds now and then."""
        self._now().put_nowait(item)

    async def put_many(
        self, items: Iterable[Any], block: bool = True, timeout: float | None = None, ttl: float | None = None
    ) -> None:
        """Stores all of `items` as one write: contiguous, in order, all or none. Raises as `put` does."""
        bound = await self._open()
        data = bound.producer.serialised(items)
        if data:
            await self._store(bound, data, ttl, block, timeout)
        else:
            bound.producer.put_many((), block, timeout, ttl)

    async def _store(self, bound: Bound, data: list[bytes], ttl: float | None, block: bool, timeout: float | None) -> None:
        await self._store_entry(bound, Entry(data, bound.producer.ttl_ms(ttl)), block, timeout)

    async def _store_entry(self, bound: Bound, entry: Entry, block: bool, timeout: float | None) -> None:
        data, seconds = entry.data, limit(block, timeout)
        if await bound.commits.store(entry):
            return
        if seconds != 0:
            attempt = partial(_stored, bound, entry)
            if await bound.room.until(attempt, seconds, in_turn=False, greedy=len(data) > 1) is not NOTHING:
                bound.index.room.ring()  # there may be room for the next, in another process
                return
        begun = monotonic()
        while await _asks_for_room(bound) and monotonic() - begun < RECALL_SECONDS:
            await asyncio.sleep(RECALL_LOOK)
            if await bound.commits.store(entry):
                return
        message = bound.producer.full_message(len(data))
        raise Full(f"{message} within {timeout} s" if seconds else message, path=self._now().path)

    # --- what is stored ---

    def qsize(self) -> int:
        """How many items wait to be handed out, roughly, as others go on; of a topic: that some label is not done with."""
        size: int = self._now().qsize()
        return size

    def full(self) -> bool:
        """Whether `put` would have to wait (or drop something) just now."""
        full: bool = self._now().full()
        return full

    @property
    def dead(self) -> segq.DeadLetters:
        """The dead letters (of all labels), with the synchronous API: `await asyncio.to_thread(list, q.dead)`."""
        letters: segq.DeadLetters = self._now().dead
        return letters

    async def stats(self) -> Stats:
        """What is stored, who works on it, and how far each label of a topic is; see `segq.Stats`."""
        stats: Stats = await self._in_thread(lambda: self._now().stats())
        return stats


async def _stored(bound: Bound, entry: Entry) -> Any:
    if await bound.commits.store(entry):
        return True
    await _asks_for_room(bound)
    return NOTHING


async def _asks_for_room(bound: Bound) -> bool:
    if bound.putting.pending:
        return await bound.putting.run(bound.producer.asks_for_room)
    return bound.producer.asks_for_room()
