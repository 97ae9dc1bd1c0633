"""`rocksq.blocking`: each method is over when it returns. `no_gil` is taken and means nothing."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import segq
from segq.compat.rocksq.arguments import MOST_ELEMENTS, encoded, seconds, text, usize
from segq.compat.rocksq.expiry import Expiries, forget_label
from segq.compat.rocksq.limit import NO_LIMIT, PushLock
from segq.compat.rocksq.start import StartPosition, checked_start
from segq.compat.rocksq.store import disk_size, failures

__all__ = ["MpmcQueue", "PersistentQueueWithCapacity"]

_COUNTED = 1 << 60  # a limit of bytes that nobody reaches: where there is one, segq counts them
_LONGEST_TTL = 4_294_967  # seconds: 49 days, segq's limit
_MOST_LABELS = 32  # whose subscriptions are kept open


class PersistentQueueWithCapacity:
    """First in, first out, of at most `max_elements`; any number of processes may have it open.

    Raises RuntimeError if the queue could not be created or opened.
    """

    def __init__(self, path: str, max_elements: int = NO_LIMIT) -> None:
        self._path, self._most = text("path", path), usize("max_elements", max_elements)
        if self._most > MOST_ELEMENTS:
            raise RuntimeError(f"Failed to create persistent queue: max_elements can't be greater than {MOST_ELEMENTS}")
        with failures("Failed to create persistent queue"):
            self._queue = segq.Queue(self._path, serializer="raw", max_bytes=_COUNTED, oldest_first=True)
        self._lock = PushLock(self._path)

    def push(self, items: list[bytes], no_gil: bool = True) -> None:  # noqa: ARG002
        """Adds all of `items`, or none: RuntimeError if there is no room for them."""
        data = encoded(items)
        if not data:
            return
        with failures("Failed to push item"):
            if self._most >= NO_LIMIT:
                if len(data) == 1:
                    self._queue.put(data[0])
                else:
                    self._queue.put_many(data)
                return
            with self._lock:
                full = len(data) > self._most or self._queue.qsize() + len(data) > self._most
                if not full:
                    self._queue.put_many(data)
        if full:
            raise RuntimeError("Failed to push item: Queue is full")

    def pop(self, max_elements: int = 1, no_gil: bool = True) -> list[bytes]:  # noqa: ARG002
        """Up to `max_elements` items, the oldest first; none if the queue is empty."""
        most = usize("max_elements", max_elements)
        if not most:
            return []
        with failures("Failed to pop item"):
            try:
                return [self._queue.get_nowait()] if most == 1 else self._queue.get_many(most, block=False)
            except segq.Empty:
                return []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to pop."""
        return self.len == 0

    @property
    def len(self) -> int:
        """How many items there are."""
        with failures("Failed to get length"):
            return self._queue.qsize()

    @property
    def payload_size(self) -> int:
        """The bytes of the items there are."""
        with failures("Failed to get queue size"):
            return self._queue.stats().bytes or 0

    @property
    def disk_size(self) -> int:
        """The bytes that the queue takes on the disk."""
        with failures("Failed to get queue size"):
            return disk_size(self._path)

    def __del__(self) -> None:
        _close(self, "_queue", "_lock")


class MpmcQueue:
    """Each label gets each element, as long as it lives: for `ttl` seconds.

    Raises RuntimeError if the queue could not be created or opened.
    """

    def __init__(self, path: str, ttl: int) -> None:
        self._path = text("path", path)
        self._ttl = min(seconds("ttl", ttl) or _LONGEST_TTL, _LONGEST_TTL)
        with failures("Failed to create mpmc queue"):
            try:
                self._topic = segq.Topic(self._path, ttl=self._ttl, retain="ttl", serializer="raw")
            except segq.SettingsConflict:  # created with another time: elements that are added now live for ours
                self._topic = segq.Topic(self._path, retain="ttl", serializer="raw")
        self._labels: dict[str, tuple[segq.Subscription, Expiries]] = {}

    def add(self, items: list[bytes], no_gil: bool = True) -> None:  # noqa: ARG002
        """Adds all of `items`, or none."""
        data = encoded(items)
        if data:
            with failures("Failed to add items"):
                self._topic.put_many(data, ttl=None if self._topic.settings.ttl == self._ttl else self._ttl)

    def next(
        self,
        label: str,
        start_position: StartPosition,
        max_elements: int = 1,
        no_gil: bool = True,  # noqa: ARG002
    ) -> tuple[list[bytes], bool]:
        """Up to `max_elements` that the label has not had, and whether some expired before it had them, since the last call.

        A label that is not there yet begins at `start_position`.
        """
        name, start, most = text("label", label), checked_start(start_position), usize("max_elements", max_elements)
        with failures("Failed to retrieve items"):
            try:
                return self._next(name, start, most)
            except segq.LabelRemoved:  # by another process
                self._let_go(name)
                return self._next(name, start, most)

    def _next(self, label: str, start: str, most: int) -> tuple[list[bytes], bool]:
        subscription, expiries = self._label(label, start)
        since, items = time.monotonic(), []
        if most:
            with contextlib.suppress(segq.Empty):
                items = [subscription.get_nowait()] if most == 1 else subscription.get_many(most, block=False)
        return items, expiries.told(subscription, drained=len(items) < most, since=since)

    def _label(self, label: str, start: str) -> tuple[segq.Subscription, Expiries]:
        found = self._labels.pop(label, None)
        if found is None:
            if len(self._labels) >= _MOST_LABELS:
                self._let_go(next(iter(self._labels)))
            subscription = segq.Subscription(self._path, label, start, serializer="raw", oldest_first=True)
            found = subscription, Expiries(self._path, label, self._ttl)
        self._labels[label] = found  # the last used is the last
        return found

    def _let_go(self, label: str) -> None:
        found = self._labels.pop(label, None)
        if found is not None:
            found[0].close()

    @property
    def labels(self) -> list[str]:
        """The labels there are."""
        with failures("Failed to get labels"):
            return self._topic.labels()

    def remove_label(self, label: str, no_gil: bool = True) -> bool:  # noqa: ARG002
        """Whether there was such a label; there is none now."""
        name = text("label", label)
        with failures("Failed to remove label"):
            self._let_go(name)
            try:
                self._topic.remove_label(name)
            except KeyError:
                return False
            forget_label(self._path, name)
            return True

    @property
    def is_empty(self) -> bool:
        """Whether no element is alive."""
        return self.len == 0

    @property
    def len(self) -> int:
        """How many elements are alive."""
        with failures("Failed to get length"):
            return self._topic.qsize()

    @property
    def disk_size(self) -> int:
        """The bytes that the queue takes on the disk."""
        with failures("Failed to get queue size"):
            return disk_size(self._path)

    def __del__(self) -> None:
        for label in list(self.__dict__.get("_labels", ())):
            with contextlib.suppress(Exception):
                self._let_go(label)
        _close(self, "_topic")


def _close(owner: Any, *names: str) -> None:
    """RocksQ has no `close`: a queue is closed with the last reference to it, or when the interpreter ends."""
    for name in names:
        part = owner.__dict__.get(name)
        if part is not None:
            with contextlib.suppress(Exception):  # nobody could be told
                part.close()
