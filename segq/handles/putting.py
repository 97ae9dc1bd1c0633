"""What a queue and a topic have in common for whoever puts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from segq.handles.handle import Handle, check_timeout


class Putting(Handle):
    """The putting methods of a handle."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None, ttl: float | None = None) -> None:
        """Stores `item`; once this returns it survives the death of any process.

        Waits for room up to `timeout` seconds (None: for ever), or not at all if `block` is false. An item with a time to live
        (`ttl`, in seconds) is not handed out any more when that is over, to the millisecond of this machine's clock.

        Raises:
            Full: no room (in time). ShutDown, ClosedError. SerializationError, ItemTooLarge: the item's fault.
            StorageError: the disk's. In every case nothing was stored.
        """
        if timeout is not None:
            check_timeout(timeout)
        if ttl is None:
            self._producer.put(item, block, timeout)
        else:
            self._producer.put_many((item,), block, timeout, ttl)

    def put_nowait(self, item: Any) -> None:
        """`put(item, block=False)`."""
        self._producer.put(item, False)

    def put_many(
        self, items: Iterable[Any], block: bool = True, timeout: float | None = None, ttl: float | None = None
    ) -> None:
        """Stores all of `items` as one write: contiguous, in order, all or none. Raises as `put` does."""
        if timeout is not None:
            check_timeout(timeout)
        self._producer.put_many(items, block, timeout, ttl)
