"""`rocksq.nonblocking`: each method returns a response at once, and a thread of the queue does the work, in order.

At most `max_inflight_ops` wait for their turn; then the caller waits. What goes wrong comes out of the response's `get` (RocksQ
says nothing of a push that failed).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from segq.compat.rocksq import blocking
from segq.compat.rocksq.arguments import encoded, text, usize
from segq.compat.rocksq.limit import NO_LIMIT
from segq.compat.rocksq.operations import Operations, Reply
from segq.compat.rocksq.start import StartPosition, checked_start

__all__ = ["MpmcQueue", "MpmcResponse", "MpmcResponseVariant", "PersistentQueueWithCapacity", "Response", "ResponseVariant"]


class ResponseVariant:
    """What an operation on a `PersistentQueueWithCapacity` brought; None where it was another kind of operation."""

    __slots__ = ("data", "len", "size")

    data: list[bytes] | None
    len: int | None
    size: int | None

    def __init__(self) -> None:
        raise TypeError(f"No constructor defined for {type(self).__name__}")


class MpmcResponseVariant:
    """What an operation on an `MpmcQueue` brought; None where it was another kind of operation."""

    __slots__ = ("data", "labels", "len", "removed_label", "size")

    data: tuple[list[bytes], bool] | None
    labels: list[str] | None
    removed_label: bool | None
    len: int | None
    size: int | None

    def __init__(self) -> None:
        raise TypeError(f"No constructor defined for {type(self).__name__}")


V = TypeVar("V", ResponseVariant, MpmcResponseVariant)


class Response(Reply[ResponseVariant]):
    """An operation on a `PersistentQueueWithCapacity`."""

    __slots__ = ()


class MpmcResponse(Reply[MpmcResponseVariant]):
    """An operation on an `MpmcQueue`."""

    __slots__ = ()


class PersistentQueueWithCapacity:
    """`blocking.PersistentQueueWithCapacity`, in another thread."""

    def __init__(self, path: str, max_elements: int = NO_LIMIT, max_inflight_ops: int = 1000) -> None:
        self._operations = Operations(usize("max_inflight_ops", max_inflight_ops))
        self._queue = blocking.PersistentQueueWithCapacity(path, max_elements)

    def _begin(self, work: Callable[[], Any], kind: str | None = None) -> Response:
        return Response.to(self._operations.begin(partial(_answer, ResponseVariant, kind, work)))

    def push(self, items: list[bytes], no_gil: bool = True) -> Response:  # noqa: ARG002
        """Adds all of `items`, or none: then `get` raises RuntimeError."""
        return self._begin(partial(self._queue.push, encoded(items)))

    def pop(self, max_elements: int = 1, no_gil: bool = True) -> Response:  # noqa: ARG002
        """Up to `max_elements` items: the `data` of the response."""
        return self._begin(partial(self._queue.pop, usize("max_elements", max_elements)), "data")

    @property
    def inflight_ops(self) -> int:
        """How many operations wait for their turn."""
        return len(self._operations)

    @property
    def disk_size(self) -> Response:
        """The `size` of the response."""
        return self._begin(partial(getattr, self._queue, "disk_size"), "size")

    @property
    def payload_size(self) -> Response:
        """The `size` of the response."""
        return self._begin(partial(getattr, self._queue, "payload_size"), "size")

    @property
    def len(self) -> Response:
        """The `len` of the response."""
        return self._begin(partial(getattr, self._queue, "len"), "len")

    def __del__(self) -> None:
        _finish(self)


class MpmcQueue:
    """`blocking.MpmcQueue`, in another thread."""

    def __init__(self, path: str, ttl: int, max_inflight_ops: int = 1000) -> None:
        self._operations = Operations(usize("max_inflight_ops", max_inflight_ops))
        self._queue = blocking.MpmcQueue(path, ttl)

    def _begin(self, work: Callable[[], Any], kind: str | None = None) -> MpmcResponse:
        return MpmcResponse.to(self._operations.begin(partial(_answer, MpmcResponseVariant, kind, work)))

    def add(self, items: list[bytes], no_gil: bool = True) -> MpmcResponse:  # noqa: ARG002
        """Adds all of `items`, or none: then `get` raises RuntimeError."""
        return self._begin(partial(self._queue.add, encoded(items)))

    def next(
        self,
        label: str,
        start_position: StartPosition,
        max_elements: int = 1,
        no_gil: bool = True,  # noqa: ARG002
    ) -> MpmcResponse:
        """Up to `max_elements` that the label has not had, and whether some expired: the `data` of the response."""
        name, most = text("label", label), usize("max_elements", max_elements)
        checked_start(start_position)
        return self._begin(partial(self._queue.next, name, start_position, most), "data")

    @property
    def inflight_ops(self) -> int:
        """How many operations wait for their turn."""
        return len(self._operations)

    @property
    def disk_size(self) -> MpmcResponse:
        """The `size` of the response."""
        return self._begin(partial(getattr, self._queue, "disk_size"), "size")

    @property
    def len(self) -> MpmcResponse:
        """The `len` of the response."""
        return self._begin(partial(getattr, self._queue, "len"), "len")

    @property
    def labels(self) -> MpmcResponse:
        """The `labels` of the response."""
        return self._begin(partial(getattr, self._queue, "labels"), "labels")

    def remove_label(self, label: str, no_gil: bool = True) -> MpmcResponse:  # noqa: ARG002
        """Whether there was such a label: the `removed_label` of the response."""
        return self._begin(partial(self._queue.remove_label, text("label", label)), "removed_label")

    def __del__(self) -> None:
        _finish(self)


def _answer(variant: type[V], kind: str | None, work: Callable[[], Any]) -> V:
    answer, value = object.__new__(variant), work()
    for name in variant.__slots__:
        setattr(answer, name, value if name == kind else None)
    return answer


def _finish(owner: Any) -> None:
    operations = owner.__dict__.get("_operations")
    if operations is not None:
        with contextlib.suppress(Exception):  # nobody could be told
            operations.close()
