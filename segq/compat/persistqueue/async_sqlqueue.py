"""The queues on SQLite for asyncio. SQLite is asked in a thread: the event loop goes on while the disk, or somebody, is slow.

A `get` that is cancelled loses nothing: what its thread had taken already goes back under its old id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from segq.compat.persistqueue.exceptions import Empty
from segq.compat.persistqueue.serializers import pickle as pickle_serializer
from segq.compat.persistqueue.sqlqueue import FILOSQLiteQueue, SQLiteQueue, UniqueQ
from segq.compat.persistqueue.table import Row, row_id

T = TypeVar("T")
_PAUSES = (0.001, 0.02)  # seconds between looks at what other processes put: at first, and after a while


class _InFile:
    """For asyncio persist-queue takes the path of the file, and names the table without the queue's name."""

    path: str
    _TABLE: ClassVar[str]

    def _place(self) -> tuple[str, str]:
        return self.path, self._TABLE


class _Fifo(_InFile, SQLiteQueue):
    pass


class _Filo(_InFile, FILOSQLiteQueue):
    pass


class _Unique(_InFile, UniqueQ):
    pass


class AsyncSQLiteQueue:
    """First in, first out.

    Args:
        path: the file (the others take a directory).
        name: of no meaning, as in persist-queue.
        serializer: an object with `dumps` and `loads`.
        auto_commit: whether what `get` returns is gone at once. Otherwise it comes back when this process dies, or closes the
            queue, before `task_done`.
    """

    _KIND: ClassVar[type[SQLiteQueue]] = _Fifo

    def __init__(self, path: str, name: str = "default", serializer: Any = pickle_serializer, auto_commit: bool = True) -> None:
        self.path, self.name, self.auto_commit = path, name, auto_commit
        self._serializer = serializer
        self._conn: SQLiteQueue | None = None
        self._opening = asyncio.Lock()
        self._news = asyncio.Event()

    async def _opened(self) -> SQLiteQueue:
        async with self._opening:
            if self._conn is None:
                self._conn = await asyncio.to_thread(
                    self._KIND, self.path, self.name, serializer=self._serializer, auto_commit=self.auto_commit
                )
            return self._conn

    async def put(self, item: Any, block: bool = True) -> Any:  # noqa: ARG002
        """Stores an item and returns its id. If this is cancelled the item may be stored or not."""
        queue = await self._opened()
        row = await _to_its_end(lambda: queue.put(item))
        self._news.set()
        return row

    async def put_nowait(self, item: Any) -> Any:
        """The same as `put`."""
        return await self.put(item)

    async def get(
        self,
        block: bool = True,
        timeout: float | None = None,
        id: int | dict[str, Any] | None = None,  # noqa: A002
        raw: bool = False,
    ) -> Any:
        """Takes the next item, or the one of that id, for which it does not wait.

        With `raw` it is a dict with `pqid`, `data` and `timestamp`. Raises Empty, and ValueError if `timeout` is negative.
        """
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        deadline = None if timeout is None else time.monotonic() + timeout
        queue, row = await self._opened(), row_id(id)
        pause, longest = _PAUSES
        while True:
            self._news.clear()
            found = await self._taken(queue, row)
            if found is not None:
                return found.handed_out(raw)
            left = pause if deadline is None else min(pause, deadline - time.monotonic())
            if not block or row is not None or left <= 0:
                raise Empty(f"{self.path}: nothing to get")
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                pause = min(pause * 2, longest)

    async def _taken(self, queue: SQLiteQueue, row: int | None) -> Row | None:
        taken: list[Row | None] = []

        def take() -> Row | None:
            taken.append(queue._take(row))  # noqa: SLF001
            return taken[0]

        try:
            return await _to_its_end(take)
        except asyncio.CancelledError:
            found = taken[0] if taken else None
            if found is not None:
                await _to_its_end(lambda: queue._put_back(found))  # noqa: SLF001
                self._news.set()
            raise

    async def get_nowait(self, id: int | dict[str, Any] | None = None, raw: bool = False) -> Any:  # noqa: A002
        """`get(block=False)`."""
        return await self.get(False, id=id, raw=raw)

    async def update(self, item: Any, id: int | None = None) -> int:  # noqa: A002
        """Replaces an item; see `SQLiteQueue.update`."""
        queue = await self._opened()
        return await _to_its_end(lambda: queue.update(item, id))

    async def task_done(self) -> None:
        """With `auto_commit` off: what this object got is done and gone."""
        queue = await self._opened()
        await _to_its_end(queue.task_done)

    async def qsize(self) -> int:
        """How many items wait, those of other processes included."""
        queue = await self._opened()
        return await asyncio.to_thread(queue.qsize)

    async def empty(self) -> bool:
        return await self.qsize() == 0

    async def full(self) -> bool:
        """Never: the disk is the limit."""
        return False

    async def close(self) -> None:
        """Closes the file; what was got and is not done comes back. Using the object again opens it again."""
        async with self._opening:
            queue, self._conn = self._conn, None
            if queue is not None:
                await asyncio.to_thread(queue.close)

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _to_its_end(work: Callable[[], T]) -> T:
    """`work` in a thread. A cancellation is passed on, once the thread has ended: threads cannot be stopped half-way."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:  # told below
            break
    if cancelled is not None:
        raise cancelled
    return running.result()


class AsyncFIFOSQLiteQueue(AsyncSQLiteQueue):
    """First in, first out."""


class AsyncFILOSQLiteQueue(AsyncSQLiteQueue):
    """First in, last out."""

    _KIND = _Filo


class AsyncUniqueQ(AsyncSQLiteQueue):
    """First in, first out; `put` returns None for an item that is in it already."""

    _KIND = _Unique
