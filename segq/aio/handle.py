"""What all handles for asyncio have in common: opened in a thread on first use, bound to one loop while that is running."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from segq._core.base.errors import ClosedError
from segq._core.base.settings import Settings
from segq._core.directory.index import LOOK_AGAIN, Bell
from segq._core.put.producer import Producer
from segq._core.take.consumer import Consumer
from segq.aio.commits import Commits
from segq.aio.line import Line
from segq.aio.worker import Worker
from segq.handles.handle import Handle as SyncHandle
from segq.handles.handle import check_timeout


class Bound:
    """An open handle as the coroutines of one loop use it."""

    def __init__(self, handle: SyncHandle) -> None:
        self.loop, self._pid = asyncio.get_running_loop(), os.getpid()
        self.handle = handle
        parts = handle._open()  # noqa: SLF001 - this package is the engine's other face
        self.parts: Any = parts
        self.index = parts.index
        self.lines: list[Line] = []
        self.workers: list[Worker] = []
        self.producer: Producer = parts.producer  # None in a handle that only gets, which does not ask for it,
        self.consumer: Consumer = parts.consumer  # and the other way round
        if parts.producer is not None:
            self.putting = self._worker("segq-put")
            self.commits = Commits(self.producer, self.putting, drops=handle.settings.on_full == "drop_oldest")
            self.room = self.line(self.index.room, self.putting, self.producer.look_after_others)
        self.waiting: deque[asyncio.Future[None]] | None = None
        if parts.consumer is not None:
            self.getting = self._worker("segq-get")
            self.items = self.line(self.consumer.bell, self.getting, self.consumer.look_after_others, pause=self.consumer.pause)
            self.waiting = self.items.waiting
            self.consumer.elsewhere = self.getting.later
            self.joins = self.line(self.index.joins, self.getting, self.consumer.look_after_others, self.index.listen_for_done)

    def serves(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self.loop is loop and self._pid == os.getpid()

    def items_ahead(self) -> bool:
        """Whether the next item is at hand, and nobody is in the way."""
        return self.consumer.has_ahead() and not (self.items.waiting or self.items.batons or self.getting.pending)

    def abandoned(self) -> bool:
        """Whether its loop is over, or another process's."""
        return self.loop.is_closed() or self._pid != os.getpid()

    def _worker(self, name: str) -> Worker:
        worker = Worker(name)
        self.workers.append(worker)
        return worker

    def line(
        self, bell: Bell, worker: Worker, look_after: Callable[[], None], listen: Callable[[], int] | None = None,
        *, pause: Callable[[], float] = lambda: LOOK_AGAIN,
    ) -> Line:  # fmt: skip
        line = Line(bell, pause, partial(worker.run, look_after), listen or bell.listen)
        self.lines.append(line)
        return line

    def end(self) -> None:
        """Whoever waits wakes, and learns that the handle is closed."""
        for worker in self.workers:
            worker.stop()
        for line in self.lines:
            line.pass_on()


class Handle:
    """Opened on first use, in a thread; `async with` opens it at once, and closes it."""

    def __init__(self, describe: Callable[[], SyncHandle]) -> None:
        self._describe = describe
        self._handle: SyncHandle | None = None
        self._bound: Bound | None = None
        self._opening: asyncio.Task[SyncHandle] | None = None
        self._closed = False

    def _now(self) -> Any:
        """The handle of the synchronous API, opened here if need be: for what is not awaited."""
        if self._handle is None:
            self._refuse_if_closed()
            self._handle = self._describe()
        return self._handle

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r}: open another one to go on")

    async def _open(self) -> Bound:
        """Bound to the running loop."""
        self._refuse_if_closed()
        bound = self._bound
        loop = asyncio.get_running_loop()
        if bound is not None and bound.serves(loop):
            return bound
        if bound is not None and not bound.abandoned():
            raise RuntimeError(f"{self!r} is bound to a different event loop; open another one of the same path in this loop")
        if self._handle is None or bound is not None:
            if self._opening is None or self._opening.get_loop() is not loop:
                self._opening = loop.create_task(self._opened())
            try:
                self._handle = await asyncio.shield(self._opening)
            finally:
                if self._opening is not None and self._opening.done():
                    self._opening = None
        if self._bound is bound:
            self._bound = Bound(self._handle)
        assert self._bound is not None
        return self._bound

    async def _opened(self) -> SyncHandle:
        """A task of its own: whoever waits for it may be cancelled."""
        handle = self._handle
        if handle is None:
            handle = await asyncio.to_thread(self._describe)
        else:  # in a forked child it is only a description, which opens itself on first use
            await asyncio.to_thread(handle._open)  # noqa: SLF001
        if self._closed:
            handle.close()
        return handle

    async def close(self) -> None:
        """Seals what this handle wrote and gives back what it holds; what is stored stays. Closing twice is fine.

        Coroutines that wait in it get ClosedError.
        """
        if self._opening is not None:
            await asyncio.wait([self._opening])
        self._closed = True
        handle, bound = self._handle, self._bound
        if handle is not None:
            try:
                await asyncio.to_thread(handle.close)
            finally:
                if bound is not None and not bound.abandoned():
                    bound.loop.call_soon_threadsafe(bound.end)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def path(self) -> str:
        """The directory."""
        path: str = self._now().path
        return path

    @property
    def settings(self) -> Settings:
        """As they are stored in the queue."""
        settings: Settings = self._now().settings
        return settings

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        await self._open()
        return await asyncio.to_thread(work)


def limit(block: bool, timeout: float | None) -> float | None:
    """For how long to wait; 0 for not at all."""
    if timeout is not None:
        check_timeout(timeout)
    return timeout if block else 0.0


Attempt = Callable[[], Awaitable[Any]]
