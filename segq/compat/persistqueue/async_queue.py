"""`AsyncQueue`: persist-queue's file queue for asyncio.

A put and a get of a `segq.Queue` take microseconds, so they are done where they are asked for, without a thread: there is no
moment at which a cancelled `get` has taken something and not returned it. Only waiting is left to the event loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from types import TracebackType
from typing import Any, Self

from segq.compat.persistqueue.exceptions import Empty, Full
from segq.compat.persistqueue.queue import Queue, refuse_tempdir
from segq.compat.persistqueue.serializers import pickle as pickle_serializer

_PAUSES = (0.001, 0.02)  # seconds between looks at what other processes did: at first, and after a while


class AsyncQueue:
    """A persistent queue that processes and tasks share; arguments as for `Queue`.

    What `get` returned comes back when this process dies, or closes the queue, before `task_done` (unless `autosave`).
    `headf` and `tailf` are None: there are no chunk files.
    """

    headf = tailf = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        maxsize: int = 0,
        chunksize: int = 100,
        tempdir: str | None = None,
        serializer: Any = None,
        autosave: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        self.maxsize = maxsize
        self.chunksize = chunksize
        self.tempdir = tempdir
        self.serializer = serializer or pickle_serializer
        self.autosave = autosave
        if not (hasattr(self.serializer, "dump") and hasattr(self.serializer, "load")):
            raise AttributeError("Serializer must have 'dump' and 'load' methods")
        if not os.path.exists(self.path):
            os.makedirs(self.path, mode=0o700)
        refuse_tempdir(self.path, tempdir)
        self._queue: Queue | None = None
        self._news = asyncio.Event()

    def _open(self) -> Queue:
        if self._queue is None:
            self._queue = Queue(self.path, self.maxsize, self.chunksize, None, self.serializer, self.autosave)
        return self._queue

    async def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Stores `item`; once this returns it survives the death of any process.

        Raises Full: no room (in time). ValueError: `timeout` is negative. segq.SerializationError, segq.StorageError.
        """
        deadline = _deadline(timeout)
        queue = self._open()
        pause = _PAUSES[0]
        while True:
            self._news.clear()
            try:
                queue.put(item, False)
            except Full:
                if not block:
                    raise
                pause = await self._wait(pause, deadline)
                if not pause:
                    raise
            else:
                self._news.set()
                return

    async def put_nowait(self, item: Any) -> None:
        """`put(item, block=False)`."""
        await self.put(item, False)

    async def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes an item. Raises Empty: there is none (in time). ValueError: `timeout` is negative."""
        deadline = _deadline(timeout)
        queue = self._open()
        pause = _PAUSES[0]
        while True:
            self._news.clear()
            try:
                item = queue.get_for(asyncio.current_task(), False)
            except Empty:
                if not block:
                    raise
                pause = await self._wait(pause, deadline)
                if not pause:
                    raise
            else:
                self._news.set()
                return item

    async def get_nowait(self) -> Any:
        """`get(block=False)`."""
        return await self.get(False)

    async def task_done(self) -> None:
        """What the calling task got is done and gone; if it got nothing, what all tasks of this process got.

        Raises ValueError if called more often than `get`.
        """
        self._open().task_done_for(asyncio.current_task())
        self._news.set()

    async def join(self) -> None:
        """Waits until everything put, by any process, was got and is done."""
        pause = _PAUSES[0]
        while self._open().unfinished:
            self._news.clear()
            pause = await self._wait(pause, None)

    async def _wait(self, pause: float, deadline: float | None) -> float:
        """Until something may have changed; how long to wait the next time, 0 if the deadline has passed."""
        left = pause if deadline is None else min(pause, deadline - time.monotonic())
        if left <= 0:
            return 0.0
        try:
            await asyncio.wait_for(self._news.wait(), left)
        except TimeoutError:
            return min(pause * 2, _PAUSES[1])
        return pause

    @property
    def unfinished_tasks(self) -> int:
        """How many items wait, or are with somebody who has not called `task_done`."""
        return self._open().unfinished_tasks

    async def qsize(self) -> int:
        """How many items wait, those of other processes included."""
        return self._open().qsize()

    async def empty(self) -> bool:
        return self._open().empty()

    async def full(self) -> bool:
        """Whether `maxsize` items wait."""
        return self._open().full()

    async def close(self) -> None:
        """Gives back what is not done, and closes the queue. Using the object again opens it again."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.close()

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _deadline(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return None if timeout is None else time.monotonic() + timeout


__all__ = ["AsyncQueue", "Empty", "Full"]
