"""`segq.aio.Topic` and `segq.aio.Subscription`: topics for asyncio."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import segq
from segq._core.base.serializers import Serializer
from segq._core.directory.tally import LabelStats
from segq.aio.getting import Getting
from segq.aio.putting import Putting
from segq.handles.subscription import Lag


class Subscription(Getting):
    """`segq.Subscription` for asyncio. Opened, and its label begun, on first use or by `async with`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        label: str,
        start: str = "oldest",
        prefetch: int | None = None,
        *,
        serializer: str | Serializer | None = None,
        max_deliveries: int | None = None,
        allow_network_fs: bool = False,
        oldest_first: bool = False,
    ) -> None:
        self._arguments = (path, label, start, prefetch)
        self._options: dict[str, Any] = {
            "serializer": serializer, "max_deliveries": max_deliveries, "allow_network_fs": allow_network_fs,
            "oldest_first": oldest_first,
        }  # fmt: skip
        self.label = label
        super().__init__(partial(segq.Subscription, *self._arguments, **self._options))

    async def stats(self) -> LabelStats:
        """How far the label is; see `segq.LabelStats`."""
        stats: LabelStats = await self._in_thread(lambda: self._now().stats())
        return stats

    async def lag(self) -> Lag:
        """How far the label is behind, in items and in seconds."""
        found = await self.stats()
        return Lag(found.lag, found.lag_seconds)

    async def missed(self) -> int:
        """How many items expired or were dropped before this label had them, since it began; exact."""
        return (await self.stats()).missed

    async def qsize(self) -> int:
        """How many items wait to be handed out to this label."""
        return (await self.stats()).waiting

    async def empty(self) -> bool:
        """Whether `get` would have to wait just now."""
        return await self.qsize() == 0

    def __repr__(self) -> str:
        return f"<segq.aio.Subscription {self.label!r} of {self._arguments[0]!r}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _described, (Subscription, self._arguments, self._options)


class Topic(Putting):
    """`segq.Topic` for asyncio: each label gets every item. Args: those of `segq.Topic`; opened as `segq.aio.Queue` is."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        ttl: float | None = None,
        capacity: int | None = None,
        max_bytes: int | None = None,
        on_full: str | None = None,
        retain: str | None = None,
        serializer: str | Serializer | None = None,
        durability: str | None = None,
        lease: float | None = None,
        segment_items: int | None = None,
        segment_bytes: int | None = None,
        create: bool = True,
        max_deliveries: int | None = None,
        *,
        allow_network_fs: bool = False,
    ) -> None:
        self._arguments = (
            path, ttl, capacity, max_bytes, on_full, retain, serializer, durability, lease,
            segment_items, segment_bytes, create, max_deliveries,
        )  # fmt: skip
        self._serializer = serializer
        self._options: dict[str, Any] = {"allow_network_fs": allow_network_fs}
        super().__init__(partial(segq.Topic, *self._arguments, **self._options))

    async def subscribe(
        self, label: str, start: str = "oldest", prefetch: int | None = None, *, max_deliveries: int | None = None
    ) -> Subscription:
        """A handle that gets the items of `label`; close it when done. See `segq.Topic.subscribe`.

        The label is there when this returns.
        """
        await self._open()
        subscription = Subscription(
            self._arguments[0], label, start, prefetch,
            serializer=self._serializer, max_deliveries=max_deliveries, **self._options,
        )  # fmt: skip
        await subscription._open()  # noqa: SLF001
        return subscription

    async def labels(self) -> list[str]:
        """The labels there are, in the order of their text."""
        labels: list[str] = await self._in_thread(lambda: self._now().labels())
        return labels

    async def remove_label(self, label: str) -> None:
        """Removes a label and frees what only it held back. Raises KeyError if there is no such label."""
        await self._in_thread(lambda: self._now().remove_label(label))

    def shutdown(self, immediate: bool = False) -> None:
        """For all handles: `put` raises ShutDown from now on, `get` once its label has nothing left. See `segq.Topic`."""
        self._now().shutdown(immediate)

    def __repr__(self) -> str:
        return f"<segq.aio.Topic {self._arguments[0]!r}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _described, (Topic, self._arguments, self._options)


def _described(kind: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return kind(*arguments, **options)
