"""Queues and topics for ordinary code that must not wait: each operation returns a `concurrent.futures.Future`.

>>> import tempfile
>>> with Queue(tempfile.mkdtemp() + "/jobs") as q:
...     later = q.get()
...     stored = q.put("a")
...     later.result()
'a'

What has to wait for nobody is done at once, in the caller's thread (some microseconds; some milliseconds once in a segment),
and its future is done when it is returned. What waits, for an item, for room or for an fsync, does so in one event loop in a
thread of the process, on `segq.aio`: a thousand that wait take no thread each. At most `max_in_flight` operations of a handle
are under way; whoever begins another one waits until one of them is over.

Items are stored in the order in which their puts were begun: one that waits for room holds up those after it. With
`durability="power"` those that wait for the disk go as one write.

`future.cancel()` works as long as the operation waits: a get has then taken nothing, a put stored nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self

from segq import aio
from segq._core.base.errors import ClosedError, Empty
from segq._core.base.message import Message
from segq._core.base.settings import whole_number
from segq._core.put.producer import NotAtOnceError
from segq._core.take.consumer import Consumer, Run
from segq.aio.commits import Entry
from segq.aio.handle import limit

__all__ = ["Queue", "Subscription", "Topic"]

_MOST_TOGETHER = 4096


class _Handle:
    """At most `max_in_flight` operations at a time. `handle` is used in the loop of this module's thread only."""

    def __init__(self, handle: Any, max_in_flight: int) -> None:
        self._handle = handle
        self._max = whole_number("max_in_flight", max_in_flight)
        self._sync: Any = handle._now()
        self._closed = False
        self._synced = self._sync.settings.durability == "power"
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._free = threading.BoundedSemaphore(self._max)
        self._running: set[Future[Any]] = set()
        self._putting: set[Future[Any]] = set()

    @property
    def in_flight(self) -> int:
        """How many operations are under way."""
        return len(self._running)

    def _admitted(self) -> Future[Any]:
        """The future of one more operation; waits while there are too many."""
        self._refuse_if_closed()
        self._free.acquire()
        future: Future[Any] = Future()
        self._running.add(future)
        future.add_done_callback(self._over)
        return future

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r}: open another one to go on")
        if self._pid != os.getpid():  # in a forked child: what was under way is the parent's
            self._begin_anew()

    def _over(self, future: Future[Any]) -> None:
        self._running.discard(future)
        self._free.release()

    def _run(self, work: Callable[[Future[Any]], Coroutine[Any, Any, Any]]) -> Future[Any]:
        future = self._admitted()
        _loop().call_soon_threadsafe(_begin, future, work)
        return future

    def _elsewhere(self, name: str, *arguments: Any) -> Future[Any]:
        """An operation of the asynchronous API."""
        return self._run(lambda _: getattr(self._handle, name)(*arguments))

    def stats(self) -> Future[Any]:
        """See the synchronous API's."""
        return self._elsewhere("stats")

    def close(self, wait: bool = True) -> None:
        """Cancels gets that wait, and closes the handle; closing twice is fine.

        Puts that were begun are waited for, or cancelled where they are not being written yet, if `wait` is false.
        """
        if self._closed:
            return
        self._closed = True
        if wait and self._pid == os.getpid():
            concurrent.futures.wait(list(self._putting))
        for future in list(self._running):
            future.cancel()
        if self._pid == os.getpid():
            asyncio.run_coroutine_threadsafe(self._handle.close(), _loop()).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(wait=kind is None)

    def __repr__(self) -> str:
        return f"<segq.futures.{type(self).__name__} of {self._handle!r}>"


class _Putting(_Handle):
    """The putting operations."""

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._entries: deque[tuple[Future[Any], Entry, bool, float | None]] = deque()
        self._draining = False
        self._lock = threading.Lock()

    def put(self, item: Any, block: bool = True, timeout: float | None = None, ttl: float | None = None) -> Future[None]:
        """Stores `item`: when the future is done it survives the death of any process. The item is serialised at once.

        Raises SerializationError, ClosedError; what else `segq.Queue.put` raises, the future does.
        """
        self._refuse_if_closed()
        producer = self._sync._producer
        if ttl is None and not self._draining:
            try:
                producer.put(item, None)
            except NotAtOnceError as error:
                if self._synced or not producer.store([error.data], producer.ttl_ms(None)):
                    return self._put([error.data], block, timeout, ttl)
            return _Done(None)
        return self._put(producer.serialised((item,)), block, timeout, ttl)

    def put_many(
        self, items: Iterable[Any], block: bool = True, timeout: float | None = None, ttl: float | None = None
    ) -> Future[None]:
        """Stores all of `items` as one write: contiguous, in order, all or none."""
        self._refuse_if_closed()
        return self._put(self._sync._producer.serialised(items), block, timeout, ttl)

    def _put(self, data: list[bytes], block: bool, timeout: float | None, ttl: float | None) -> Future[None]:
        limit(block, timeout)
        entry = Entry(data, self._sync._producer.ttl_ms(ttl))
        future = self._admitted()
        self._putting.add(future)
        future.add_done_callback(self._putting.discard)
        with self._lock:
            self._entries.append((future, entry, block, timeout))
            begin, self._draining = not self._draining, True
        if begin:
            asyncio.run_coroutine_threadsafe(self._drain(), _loop())
        return future

    async def _drain(self) -> None:
        """In the loop: stores what is to be put, in order, as long as there is something."""
        while True:
            with self._lock:
                together = self._together()
                if not together:
                    self._draining = False
                    return
            if len(together) > 1 and await self._stored(together):
                continue
            for future, entry, block, timeout in together:
                if not future.cancelled():
                    task = asyncio.ensure_future(self._put_one(entry, block, timeout))
                    _chain(future, task)
                    await asyncio.wait([task])

    def _together(self) -> list[tuple[Future[Any], Entry, bool, float | None]]:
        entries = self._entries
        together = [entries.popleft()] if entries else []
        items = len(together[0][1].data) if together else 0
        while entries and entries[0][1].ttl_ms == together[0][1].ttl_ms and items < _MOST_TOGETHER:
            together.append(entries.popleft())
            items += len(together[-1][1].data)
        return together

    async def _stored(self, together: list[tuple[Future[Any], Entry, bool, float | None]]) -> bool:
        """Stores all that was not cancelled as one; False, and nothing is stored, if it cannot be done so."""
        begun = [(future, entry) for future, entry, *_ in together if not future.cancelled()]
        if not begun:
            return True
        items = [item for _, entry in begun for item in entry.data]
        try:
            bound = await self._handle._open()
            stored = await bound.commits.store(Entry(items, begun[0][1].ttl_ms))
        except Exception:  # whoever's fault it is: each is tried by itself
            return False
        for future, _ in begun if stored else []:
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled while it was written
                future.set_result(None)
        return bool(stored)

    async def _put_one(self, entry: Entry, block: bool, timeout: float | None) -> None:
        bound = await self._handle._open()
        if entry.data:
            await self._handle._store_entry(bound, entry, block, timeout)
        else:
            bound.producer.put_many(())


class _Getting(_Handle):
    """The getting operations."""

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._getting: set[Future[Any]] = set()

    def get(self, block: bool = True, timeout: float | None = None) -> Future[Any]:
        """Takes an item out of the queue; handed over is acknowledged. Raises, in the future, what `segq.Queue.get` raises."""
        return self._get(Consumer.get, block, timeout)

    def receive(self, block: bool = True, timeout: float | None = None) -> Future[Message]:
        """Hands out an item that stays in the queue until you `ack` it."""
        return self._get(Consumer.receive, block, timeout)

    def get_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> Future[list[Any]]:
        """Up to `max_items` items at once; waits for the first."""
        return self._get_many(Consumer.got, max_items, block, timeout)

    def receive_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> Future[list[Message]]:
        """Up to `max_items` messages at once; waits for the first."""
        return self._get_many(Consumer.received, max_items, block, timeout)

    def _get(self, take: Callable[[Consumer, bool], Any], block: bool, timeout: float | None) -> Future[Any]:
        self._refuse_if_closed()
        limit(block, timeout)
        consumer: Consumer = self._sync._consumer
        if not self._getting:  # opening a segment holds the interpreter's lock: another thread would be no help
            try:
                return _Done(take(consumer, False))
            except Empty as error:
                if not block:
                    return _Done(None, error)
        return self._wait(lambda future: self._handle._one(partial(_one, future, take), block, timeout))

    def _get_many(
        self, take: Callable[[Consumer, list[Run]], list[Any]], max_items: int, block: bool, timeout: float | None
    ) -> Future[Any]:
        self._refuse_if_closed()
        limit(block, timeout)
        most = whole_number("max_items", max_items)
        return self._wait(lambda future: self._handle._many(partial(_many, future, take), most, block, timeout))

    def _wait(self, work: Callable[[Future[Any]], Coroutine[Any, Any, Any]]) -> Future[Any]:
        future = self._run(work)
        self._getting.add(future)
        future.add_done_callback(self._getting.discard)
        return future


class Queue(_Putting, _Getting):
    """`segq.Queue`, each operation a future. Args: those of `segq.Queue`, and `max_in_flight`. Raises as it does."""

    def __init__(self, path: str | os.PathLike[str], *arguments: Any, max_in_flight: int = 1000, **options: Any) -> None:
        super().__init__(aio.Queue(path, *arguments, **options), max_in_flight)

    def join(self, timeout: float | None = None) -> Future[None]:
        """Done when every item is finished, by all processes; TimeoutError after `timeout` seconds."""
        limit(True, timeout)
        return self._elsewhere("join", timeout)

    def task_done(self) -> None:
        """The work on an item that this handle got is finished."""
        self._refuse_if_closed()
        self._sync.task_done()

    def qsize(self) -> int:
        """How many items wait to be handed out, roughly."""
        self._refuse_if_closed()
        size: int = self._sync.qsize()
        return size

    def shutdown(self, immediate: bool = False) -> None:
        """See `segq.Queue.shutdown`."""
        self._refuse_if_closed()
        self._sync.shutdown(immediate)


class Topic(_Putting):
    """`segq.Topic`, each operation a future."""

    def __init__(self, path: str | os.PathLike[str], *arguments: Any, max_in_flight: int = 1000, **options: Any) -> None:
        super().__init__(aio.Topic(path, *arguments, **options), max_in_flight)


class Subscription(_Getting):
    """`segq.Subscription`, each operation a future."""

    def __init__(
        self, path: str | os.PathLike[str], label: str, *arguments: Any, max_in_flight: int = 1000, **options: Any
    ) -> None:
        super().__init__(aio.Subscription(path, label, *arguments, **options), max_in_flight)


class _Done(Future[Any]):
    """A future that is done when it is made: its lock, which takes longer to make than an item to put, only if it is asked for.

    `Future`'s own attributes, so that `wait` and `as_completed`, which look at them, work.
    """

    def __init__(self, result: Any, error: Exception | None = None) -> None:
        self._state, self._result, self._exception = "FINISHED", result, error
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name != "_condition":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        made: threading.Condition = self.__dict__.setdefault("_condition", threading.Condition())
        return made

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        if self._exception is not None:
            raise self._exception
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:  # noqa: ARG002
        return self._exception


# --- in the loop ---


def _begin(future: Future[Any], work: Callable[[Future[Any]], Coroutine[Any, Any, Any]]) -> None:
    if not future.cancelled():
        _chain(future, asyncio.ensure_future(work(future)))


def _chain(future: Future[Any], task: asyncio.Task[Any]) -> None:
    """What becomes of `task` becomes of `future`; cancelling that cancels the task."""
    loop = asyncio.get_running_loop()
    task.add_done_callback(partial(_settle, future))
    future.add_done_callback(lambda done: done.cancelled() and loop.call_soon_threadsafe(task.cancel))


def _settle(future: Future[Any], task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled at this moment
        if task.cancelled():
            future.cancel()
        elif error := task.exception():
            future.set_exception(error)
        else:
            future.set_result(task.result())


def _one(future: Future[Any], take: Callable[[Consumer, bool], Any], consumer: Consumer, block: bool) -> Any:
    """Takes an item for `future`, which cannot be cancelled any more then. Raises Empty or ShutDown."""
    consumer.claim_ahead()
    if consumer.has_ahead():
        _keep(future)
    elif not consumer.over():
        raise Empty
    return take(consumer, block)


def _many(
    future: Future[Any], take: Callable[[Consumer, list[Run]], list[Any]], consumer: Consumer, runs: list[Run]
) -> list[Any]:
    try:
        _keep(future)
    except asyncio.CancelledError:
        consumer.put_back(runs)
        raise
    return take(consumer, runs)


def _keep(future: Future[Any]) -> None:
    if not future.running() and not future.set_running_or_notify_cancel():
        raise asyncio.CancelledError


class _Thread:
    """An event loop in a thread, for all handles of the process; started when it is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="segq-futures", daemon=True).start()
            return self._loop


_threads = [_Thread()]  # the last is this process's; a forked child keeps those of its parents, untouched


def _loop() -> asyncio.AbstractEventLoop:
    return _threads[-1].loop()


os.register_at_fork(after_in_child=lambda: _threads.append(_Thread()))
