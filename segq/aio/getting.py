"""What a queue and a subscription have in common for whoever gets, in asyncio."""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from segq._core.base.errors import Empty
from segq._core.base.message import Message
from segq._core.base.settings import whole_number
from segq._core.take.consumer import Consumer, Run
from segq.aio.handle import Bound, Handle, limit
from segq.aio.line import NOTHING
from segq.aio.messages import Messages

_TURN_SECONDS = 0.002  # after so long without a wait a coroutine that gets lets others have the loop


class Getting(Handle):
    """The getting methods. A coroutine that is cancelled in one of them has taken nothing out of the queue."""

    _since = 0.0  # when the run of gets began that did not wait; 0: the last one did

    async def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes an item out of the queue: handed over is acknowledged. To survive your own death, use `receive`.

        Waits up to `timeout` seconds (None: for ever), or not at all if `block` is false. Cancelled, it has taken nothing.

        Raises:
            Empty: nothing to hand out (in time). ShutDown: and nothing will come. ClosedError, StorageError.
        """
        bound = self._bound
        if bound is not None and bound.loop is get_running_loop() and bound.items_ahead():
            return bound.consumer.get(False)
        return await self._one(Consumer.get, block, timeout)

    def get_nowait(self) -> Any:
        """`get(block=False)`, at once, in this thread, which may take some milliseconds now and then."""
        return self._now().get_nowait()

    async def get_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        """Up to `max_items` items at once; waits for the first as `get` does, and takes what is there then."""
        found: list[Any] = await self._many(Consumer.got, max_items, block, timeout)
        return found

    async def receive(self, block: bool = True, timeout: float | None = None) -> Message:
        """Hands out an item that stays in the queue until you `ack` it. Waits and raises as `get` does.

        The message is the synchronous API's: settling it is a store to memory, and not awaited. It is a context manager::

            with await q.receive() as message:
                await work(message.value)
        """
        message: Message = await self._one(Consumer.receive, block, timeout)
        return message

    async def receive_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Message]:
        """Up to `max_items` messages at once; waits for the first, and takes what is there then."""
        found: list[Message] = await self._many(Consumer.received, max_items, block, timeout)
        return found

    def messages(self, timeout: float | None = None) -> Messages:
        """One message after the other, each acknowledged when you come for the next, given back if you leave before.

        Ends after `timeout` seconds without a message (None: never), or when there is a shutdown and nothing is left::

            async for message in q.messages(timeout=10):
                await work(message.value)
        """
        self._refuse_if_closed()
        limit(True, timeout)
        return Messages(self.receive, timeout)

    def __aiter__(self) -> Messages:
        """`messages()`."""
        return self.messages()

    async def peek(self, n: int = 1) -> list[Any]:
        """The values of up to `n` items that wait, oldest first; nothing is claimed."""
        found: list[Any] = await self._in_thread(lambda: self._now().peek(n))
        return found

    async def purge(self) -> int:
        """Drops all items that nobody has claimed; returns how many."""
        dropped: int = await self._in_thread(lambda: self._now().purge())
        return dropped

    # --- how ---

    async def _one(self, take: Callable[[Consumer, bool], Any], block: bool, timeout: float | None) -> Any:
        bound = await self._open()
        consumer, line = bound.consumer, bound.items
        seconds, heard = limit(block, timeout), None
        if not (line.waiting or line.batons) and not bound.getting.pending and consumer.at_ease():
            if self._since and not consumer.has_ahead() and monotonic() - self._since > _TURN_SECONDS:
                self._since = 0
                await asyncio.sleep(0)
            heard = line.listen()
            try:
                found = take(consumer, False)
            except Empty:
                if seconds == 0:
                    raise
            else:
                self._since = self._since or monotonic()
                return found
        self._since = 0
        found = await line.until(partial(_one_at_ease, bound, consumer, take), seconds, in_turn=seconds != 0, heard=heard)
        if found is NOTHING:
            raise _empty(self._now().path, seconds)
        return found

    async def _many(
        self, take: Callable[[Consumer, list[Run]], list[Any]], max_items: int, block: bool, timeout: float | None
    ) -> list[Any]:
        most, seconds = whole_number("max_items", max_items), limit(block, timeout)
        bound = await self._open()
        consumer = bound.consumer
        if self._since and monotonic() - self._since > _TURN_SECONDS:
            self._since = 0
            await asyncio.sleep(0)
        self._since = self._since or monotonic()
        attempt = partial(_many_at_ease, bound, consumer, take, most)
        found: Any = await bound.items.until(attempt, seconds, in_turn=seconds != 0)
        if found is NOTHING:
            raise _empty(self._now().path, seconds)
        many: list[Any] = found
        return many


async def _one_at_ease(bound: Bound, consumer: Consumer, take: Callable[[Consumer, bool], Any]) -> Any:
    if bound.getting.pending or not consumer.at_ease():
        await bound.getting.run(consumer.claim_ahead)  # what it claims is the handle's, whoever is cancelled here
    try:
        return take(consumer, False)
    except Empty:
        return NOTHING


async def _many_at_ease(bound: Bound, consumer: Consumer, take: Callable[[Consumer, list[Run]], list[Any]], most: int) -> Any:
    claim = partial(consumer.take_many, most, False, None)
    while True:
        try:
            if bound.getting.pending or not consumer.at_ease(ahead=False):
                runs = await bound.getting.run(claim, undo=consumer.put_back)
            else:
                runs = claim()
        except Empty:
            return NOTHING
        found = take(consumer, runs)
        if found:
            return found


def _empty(path: str, seconds: float | None) -> Empty:
    return Empty(f"{path} is empty" if not seconds else f"{path} stayed empty for {seconds} s", path=path)
