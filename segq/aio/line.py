"""The coroutines of one loop that wait at one bell, first come, first served.

The bell is watched on behalf of all of them. Whoever is woken holds the baton: it tries, and passes it on whatever comes of it,
or has the bell watched again if there was nothing. So of a thousand that wait one is woken for one item, and as long as
somebody waits the bell is watched or somebody holds the baton. A coroutine that is cancelled with the baton in its hands passes
it on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from segq._core.directory.index import Bell
from segq.aio import watcher

NOTHING: Any = object()
_SHORTEST_PAUSE = 0.002  # seconds; who looks after others takes a moment
_PASS_ON_SECONDS = 0.001  # two that both need more than there is must not wake each other without pause


class Line:
    """Used in its loop's thread only."""

    def __init__(
        self, bell: Bell, pause: Callable[[], float], look_after: Callable[[], Awaitable[None]], listen: Callable[[], int]
    ) -> None:
        """`pause`: after how many seconds at most those who wait see to it that others are looked after, and look again."""
        self._loop = asyncio.get_running_loop()
        self._bell, self._pause, self._look_after, self._listen = bell, pause, look_after, listen
        #: who waits
        self.waiting: deque[asyncio.Future[None]] = deque()
        #: how many were woken, or came first, and try; who comes meanwhile is behind them
        self.batons = 0
        self._watching = False
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    async def until(
        self,
        attempt: Callable[[], Awaitable[Any]],
        timeout: float | None,
        *,
        in_turn: bool = True,
        greedy: bool = False,
        heard: int | None = None,
    ) -> Any:
        """What `attempt` returns, as soon as that is not NOTHING; NOTHING if there was nothing for `timeout` seconds.

        `in_turn`: behind those who wait already. `greedy`: takes more than one of what there is, so that what is not enough for
        it may be enough for another process. `heard`: what `listen` said before a first attempt, just made by the caller.
        """
        deadline = None if timeout is None else self._loop.time() + timeout
        holding = False
        try:
            if in_turn:
                if self.waiting or self.batons:
                    await self._sleep(deadline, first=False)
                    heard = None
                else:
                    self.batons += 1
                holding = True
            while True:
                if heard is None:
                    heard = self._listen()
                    found = await attempt()
                    if found is not NOTHING or (deadline is not None and self._loop.time() >= deadline):
                        return found
                if greedy and holding:
                    await asyncio.sleep(_PASS_ON_SECONDS)
                    self._bell.ring()
                    heard = self._listen()
                    found = await attempt()
                    if found is not NOTHING:
                        return found
                self._watch(heard)
                first, holding = holding, False
                self.batons -= first
                await self._sleep(deadline, first=first)
                holding, heard = True, None
        finally:
            if holding:
                self._release()

    async def _sleep(self, deadline: float | None, *, first: bool) -> None:
        """Returns with a baton."""
        future = self._loop.create_future()
        if first:
            self.waiting.appendleft(future)
        else:
            self.waiting.append(future)
        self._set_timer()
        timer = self._loop.call_at(deadline, self._wake, future) if deadline is not None else None
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self._release()
            else:
                with contextlib.suppress(ValueError):
                    self.waiting.remove(future)
                if not self.waiting and self._watching:
                    self._watching = False
                    watcher.forget(self._bell)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            self.waiting.remove(future)
            self.batons += 1
            future.set_result(None)

    def _release(self) -> None:
        self.batons -= 1
        self.pass_on()

    def pass_on(self) -> None:
        """Wakes the next, if somebody waits."""
        if self.waiting:
            self._wake(self.waiting[0])

    def listen(self) -> int:
        """To be called before an attempt that `until` is to go on from."""
        return self._listen()

    def _watch(self, heard: int) -> None:
        if not self._watching:
            self._watching = True
            watcher.watch(self._bell, heard, self._rung)

    def _rung(self) -> None:
        """In the watcher's thread."""
        self._loop.call_soon_threadsafe(self._heard)

    def _heard(self) -> None:
        self._watching = False
        if self.waiting:
            self.pass_on()
        else:
            self._bell.ring()  # it may have been for another process

    def _set_timer(self) -> None:
        at = self._loop.time() + max(self._pause(), _SHORTEST_PAUSE)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.waiting:
            self._set_timer()
            if self._looking is None or self._looking.done():
                self._looking = self._loop.create_task(self._look())

    async def _look(self) -> None:
        """Every sleep is bounded, here as everywhere: a lost wake costs time and never an item."""
        with contextlib.suppress(Exception):  # whoever is woken meets it again, and can be told
            await self._look_after()
        self.pass_on()
