"""`segq.aio.Queue`: a queue that processes share, for asyncio."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import segq
from segq._core.base.serializers import Serializer
from segq.aio.getting import Getting
from segq.aio.handle import limit
from segq.aio.line import NOTHING
from segq.aio.putting import Putting


class Queue(Putting, Getting):
    """`segq.Queue` for asyncio: the same directory, names and guarantees; what may wait is awaited.

    Args: those of `segq.Queue`. Nothing is opened before the first use, or `async with`, which raises what `segq.Queue` raises.

    A handle belongs to the event loop that used it first; open one for each loop. It may be handed to another process.
    Not awaited, as in `asyncio.Queue`: `qsize`, `empty`, `full`, `task_done`, `shutdown`, `put_nowait`, `get_nowait`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        capacity: int | None = None,
        max_bytes: int | None = None,
        serializer: str | Serializer | None = None,
        durability: str | None = None,
        lease: float | None = None,
        prefetch: int | None = None,
        segment_items: int | None = None,
        segment_bytes: int | None = None,
        create: bool = True,
        max_deliveries: int | None = None,
        *,
        allow_network_fs: bool = False,
        oldest_first: bool = False,
    ) -> None:
        self._arguments = (
            path, capacity, max_bytes, serializer, durability, lease, prefetch, segment_items, segment_bytes, create,
            max_deliveries,
        )  # fmt: skip
        self._options: dict[str, Any] = {"allow_network_fs": allow_network_fs, "oldest_first": oldest_first}
        super().__init__(partial(segq.Queue, *self._arguments, **self._options))

    def task_done(self) -> None:
        """Says that the work on an item that this handle got is finished. Raises ValueError if called too often."""
        self._now().task_done()

    async def join(self, timeout: float | None = None) -> None:
        """Waits until every item put was acknowledged, and `task_done` was called for every item got, by all processes.

        Raises TimeoutError after `timeout` seconds, if given.
        """
        seconds = limit(True, timeout)
        bound = await self._open()
        if await bound.joins.until(partial(self._finished, bound.handle), seconds, in_turn=False) is NOTHING:
            raise TimeoutError(f"{self._now().path}: items are unfinished after {timeout} s")

    @staticmethod
    async def _finished(queue: Any) -> Any:
        return NOTHING if queue._unfinished() else None  # noqa: SLF001

    def shutdown(self, immediate: bool = False) -> None:
        """For all handles: `put` raises ShutDown from now on, `get` once the queue is empty; lasts while any handle is open.

        With `immediate` what waits is dropped, which may take some milliseconds, and `get` raises at once.
        """
        self._now().shutdown(immediate)

    def __repr__(self) -> str:
        return f"<segq.aio.Queue {os.fspath(self._arguments[0])!r}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _described, (self._arguments, self._options)


def _described(arguments: tuple[Any, ...], options: dict[str, Any]) -> Queue:
    return Queue(*arguments, **options)
