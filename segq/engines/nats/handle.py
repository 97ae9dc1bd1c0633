"""The handles of the NATS engine: the API of `segq.Queue`, `segq.Topic` and `segq.Subscription`, for any thread.

Opened when made, and again on first use in a forked child or where they were unpickled; closed at the end of the process.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NoReturn, Self

from segq._core.base.errors import ClosedError, Empty, QueueError, ReceiptError, ShutDown, UnsupportedError
from segq._core.base.message import Message
from segq._core.base.settings import Settings, positive_seconds, whole_number
from segq._core.directory.tally import Stats
from segq.engines.address import Address
from segq.engines.nats import loop
from segq.engines.nats.connection import Pool
from segq.engines.nats.core import Core, Plan
from segq.engines.nats.message import NatsMessage
from segq.engines.nats.reader import ACK
from segq.handles.handle import check_timeout
from segq.handles.sized import Sized

_handles: weakref.WeakSet[NatsHandle] = weakref.WeakSet()
_pools: dict[int, Pool] = {}  # by process
_closing: set[Future[None]] = set()


class NatsHandle(Sized):
    """A core, opened on the loop of this process."""

    path: str
    settings: Settings

    def __init__(self, plan: Plan) -> None:
        self._describe(plan)
        self._open()

    def _describe(self, plan: Plan) -> None:
        self._plan = plan
        self.path = plan.shown
        self._closed = False
        self._core: Core | None = None
        self._opening = threading.Lock()  # the first to use it opens it; others wait for a connection's time

    def _assemble(self, pool: Pool) -> Coroutine[Any, Any, Core]:
        return Core.open(pool, self._plan)

    def _open(self) -> Core:
        core = self._core
        if core is not None:
            return core
        if self._closed:
            raise ClosedError(f"{self.path}: this handle is closed; open it again", path=self.path)
        with self._opening:
            if self._core is None:
                core = loop.of_process().call(self._assemble(_pool()))
                self.settings = core.settings
                self._core = core
                _handles.add(self)
                weakref.finalize(self, _abandon, core, os.getpid()).atexit = False
                _close_at_exit_of_children()
            assert self._core is not None
            return self._core

    @staticmethod
    def _call(work: Coroutine[Any, Any, Any]) -> Any:
        return loop.of_process().call(work)

    def close(self) -> None:
        """Gives back what this handle holds; what is stored stays. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        core, self._core = self._core, None
        _handles.discard(self)
        if core is not None:
            self._call(core.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _described, (type(self), self._plan.address, self._plan.kind, self._plan.given_as, self._more())

    def _more(self) -> dict[str, Any]:
        return {}

    def _forked(self) -> None:
        """In a forked child: let go of what is the parent's without touching it."""
        self._opening = threading.Lock()
        if self._core is not None:
            loop.park(self._core)
            self._core = None

    def _cannot(self, what: str, instead: str) -> NoReturn:
        raise UnsupportedError(f"the NATS engine cannot do {what}: {instead}", path=self.path)


class NatsPutting(NatsHandle):
    """The putting methods."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None, ttl: float | None = None) -> None:
        """Stores `item`; the server (of a replicated stream: a majority) has confirmed it when this returns.

        Waits for room as `segq.Queue.put` does, and up to `patience` seconds for the server.

        Raises:
            Full: no room (in time); nothing was stored. SerializationError, ItemTooLarge: the item's fault.
            UnreachableError: no confirmation in time; the item may be stored or not.
        """
        core = self._open()
        check_arguments(timeout, ttl)
        self._call(core.publisher.put(core.dumped((item,))[0], block, timeout, ttl))

    def put_nowait(self, item: Any) -> None:
        """`put(item, block=False)`."""
        self.put(item, False)

    def put_many(
        self, items: Iterable[Any], block: bool = True, timeout: float | None = None, ttl: float | None = None
    ) -> None:
        """Stores all of `items` as one write: contiguous, in order, all or none; up to 1,000 of them.

        With `atomic=False` any number, in order: after an error the first of them may be stored. Raises as `put` does;
        UnsupportedError for too many, or a server before 2.12.
        """
        core = self._open()
        check_arguments(timeout, ttl)
        self._call(core.publisher.put_many(core.dumped(items), block, timeout, ttl))

    def put_many_as(self, ids: Sequence[str], items: Sequence[Any], timeout: float | None = None) -> None:
        """Stores the items, in order, except those whose id was stored within the stream's `duplicate_window`.

        After Full or UnreachableError the first of them may be stored; to do it again with the same ids is harmless.
        """
        core = self._open()
        check_arguments(timeout)
        self._call(core.publisher.put_many_as(ids, core.dumped(items), timeout))

    def full(self) -> bool:
        """Whether `put` would have to wait just now."""
        return bool(self._call(self._open().full()))

    def stats(self) -> Stats:
        """What is stored; `unknown` names the fields that this engine cannot tell."""
        found: Stats = self._call(self._open().stats())
        return found

    def shutdown(self, immediate: bool = False) -> NoReturn:  # noqa: ARG002  # the signature of the local one
        """UnsupportedError: a server does not know who has a queue open."""
        self._cannot("shutdown", "put an item that your consumers understand as the end, or stop them")


class NatsGetting(NatsHandle):
    """The getting methods."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes an item out of the queue; its acknowledgement was confirmed when this returns. Waits and raises as a local one.

        Raises UnreachableError when there has been no server for `patience` seconds.
        """
        return self._get(1, block, timeout)[0]

    def get_nowait(self) -> Any:
        """`get(block=False)`."""
        return self.get(False)

    def get_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        """Up to `max_items` items at once; waits for the first, and takes what is there then."""
        return self._get(whole_number("max_items", max_items), block, timeout)

    def receive(self, block: bool = True, timeout: float | None = None) -> Message:
        """Hands out an item that stays in the queue until you `ack` it."""
        return self._receive(1, block, timeout)[0]

    def receive_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Message]:
        """Up to `max_items` messages at once; waits for the first, and takes what is there then."""
        return self._receive(whole_number("max_items", max_items), block, timeout)

    def ack_many(self, messages: Sequence[Message]) -> None:
        """Acknowledges messages of this handle, with one confirmation for all. Raises ReceiptError if one was lost before."""
        core = self._open()
        deliveries = [message._delivery for message in messages if isinstance(message, NatsMessage)]  # noqa: SLF001
        assert core.reader is not None
        if lost := self._call(core.reader.settle(deliveries, ACK)):
            raise ReceiptError(
                f"{len(lost)} of {len(messages)} messages were given up by the server before; they may come again"
            )

    def messages(self, timeout: float | None = None) -> Iterator[Message]:
        """One message after the other, each acknowledged when you come for the next, given back after an exception."""
        self._open()
        return self._messages(timeout)

    def _messages(self, timeout: float | None) -> Iterator[Message]:
        while True:
            try:
                message = self.receive(timeout=timeout)
            except (Empty, ShutDown):
                return
            with message:
                yield message

    def peek(self, n: int = 1) -> list[Any]:
        """The values of up to `n` items that were never handed out, oldest first; what was given back is not among them."""
        found: list[Any] = self._call(self._open().peek(whole_number("n", n)))
        return found

    def purge(self) -> int:
        """Drops all items that wait, and leaves what others have in hand to them; returns how many."""
        core = self._open()
        assert core.reader is not None
        return int(self._call(core.reader.purge()))

    def qsize(self) -> int:
        """How many items were never handed out."""
        return int(self._call(self._open().waiting()))

    def _get(self, most: int, block: bool, timeout: float | None) -> list[Any]:
        core = self._open()
        check_arguments(timeout)
        found: list[Any] = self._call(core.get(most, block, timeout))
        return found

    def _receive(self, most: int, block: bool, timeout: float | None) -> list[Message]:
        core = self._open()
        check_arguments(timeout)
        found = self._call(core.receive(most, block, timeout))
        return [NatsMessage(core, self._call, delivery, value) for delivery, value in found]


def check_arguments(timeout: float | None, ttl: float | None = None) -> None:
    if timeout is not None:
        check_timeout(timeout)
    if ttl is not None:
        positive_seconds("ttl", ttl)


def _pool() -> Pool:
    return _pools.setdefault(os.getpid(), Pool())


def _described(kind: type[NatsHandle], address: Address, of: str, settings: dict[str, Any], more: dict[str, Any]) -> NatsHandle:
    """A handle that was sent to this process; its first use opens it."""
    handle = kind.__new__(kind)
    handle.__dict__.update(more)
    handle._describe(Plan(address, of, settings))  # noqa: SLF001
    return handle


def _abandon(core: Core, process: int) -> None:
    """A handle was dropped without `close`: no more signs of life, and what it held goes back. (A closed one closes again.)"""
    if process == os.getpid() and not core.closed:
        closing = asyncio.run_coroutine_threadsafe(core.close(), loop.of_process().loop)
        _closing.add(closing)  # a loop keeps no task alive by itself
        closing.add_done_callback(_closing.discard)


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle._forked()  # noqa: SLF001
    _handles.clear()
    for pool in _pools.values():
        loop.park(pool)
    _pools.clear()


def close_all() -> None:
    """At the end of the process."""
    for handle in list(_handles):
        with contextlib.suppress(QueueError, OSError):
            handle.close()
    loop.end()


_registered_in = 0


def _close_at_exit_of_children() -> None:
    """multiprocessing ends its children without `atexit`; it has a register of its own."""
    global _registered_in  # noqa: PLW0603
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None and _registered_in != os.getpid():
        _registered_in = os.getpid()
        util.Finalize(None, close_all, exitpriority=100)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(close_all)
