"""The thread in which one side of a handle, putting or getting, does what may ask the disk: one thing after the other.

It is started when there is something for it to do, which for small items is once in some thousands. RocksDB's binding keeps
the interpreter's lock while it opens, writes and syncs, so the loop stands still for that all the same; renaming, deleting,
allocating, reading directories, and waiting for other processes' locks do not hold it up.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

from segq._core.base.errors import ClosedError

T = TypeVar("T")


class Worker:
    """Used in one loop's thread, but for `later`."""

    def __init__(self, name: str) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        #: what it is at work at: while that is not empty, the locks of its side are not free
        self.pending: set[concurrent.futures.Future[object]] = set()

    def submit(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Raises ClosedError after `stop`."""
        try:
            future = self._executor.submit(work)
        except RuntimeError:
            raise ClosedError("this handle is closed; open the queue again") from None
        self.pending.add(future)  # type: ignore[arg-type]  # the set does not look into them
        future.add_done_callback(self.pending.discard)
        return future

    async def run(self, work: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """What `work` returns. Cancelled meanwhile, it goes on, and `undo` gets what it returned, in the thread."""
        future = self.submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if undo is not None:
                future.add_done_callback(lambda done: _undo(done, undo))
            raise

    def later(self, work: Callable[[], None]) -> None:
        """For whoever has no time for it now; from any thread."""
        try:
            self.submit(work)
        except ClosedError:
            work()

    def stop(self) -> None:
        """What was begun is finished; returns at once."""
        self._executor.shutdown(wait=False)


def _undo(done: concurrent.futures.Future[T], undo: Callable[[T], None]) -> None:
    if not done.cancelled() and done.exception() is None:
        undo(done.result())
