"""`Queue`: persist-queue's file queue, over a `segq.Queue`.

persist-queue keeps what was got until `task_done` and counts it as gone meanwhile. Here it is received, and acknowledged by
`task_done`. It is not counted as stored while somebody has it, so `maxsize` is not segq's capacity, which counts it; who puts
into a queue with a `maxsize` looks and puts under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import io
import logging
import os
import pickle
import threading
import time
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import segq
from segq.compat.persistqueue.exceptions import Empty, Full
from segq.compat.persistqueue.serializers import arrived, portable
from segq.compat.persistqueue.serializers import json as json_serializer
from segq.compat.persistqueue.serializers import pickle as pickle_serializer

log = logging.getLogger(__name__)

_LOOK_AGAIN = 0.02  # seconds between looks of a put that waits for room: another process may have made it


class FileSerializer:
    """`dump(value, fp)` and `load(fp)` of persist-queue, as `dumps` and `loads`."""

    def __init__(self, serializer: Any) -> None:
        self._serializer = serializer

    def dumps(self, item: Any, /) -> bytes:
        file = io.BytesIO()
        self._serializer.dump(item, file)
        return file.getvalue()

    def loads(self, data: bytes, /) -> Any:
        return self._serializer.load(io.BytesIO(data))


def stored_as(serializer: Any) -> Any:
    """What a `segq.Queue` takes for this serializer; pickle by its name, so that segq refuses unsafe directories."""
    if inspect.iscoroutinefunction(serializer.dump) or inspect.iscoroutinefunction(serializer.load):
        raise TypeError(f"the dump and load of {serializer!r} are coroutines; plain functions are wanted")
    if serializer is pickle_serializer or serializer is pickle:
        return "pickle"
    if serializer is json_serializer:
        return json_serializer
    return FileSerializer(serializer)


class Queue:
    """A persistent queue that processes and threads share.

    Args:
        path: the directory; created if it is missing.
        maxsize: how many items may wait; 0 or less for no limit. Not stored: each who puts says it.
        chunksize: of no meaning here.
        tempdir: has to be on the file system of `path`, and is not used.
        serializer: an object with `dump(value, fp)` and `load(fp)`.
        autosave: whether what `get` returns is gone at once. Otherwise it comes back when this process dies, or closes the
            queue, before `task_done`.

    Raises segq.NotAQueueError where persist-queue itself left its files: `segq import` brings them over.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        maxsize: int = 0,
        chunksize: int = 100,
        tempdir: str | None = None,
        serializer: Any = pickle_serializer,
        autosave: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        self.maxsize = maxsize
        self.chunksize = chunksize
        self.tempdir = tempdir
        self.serializer = serializer
        self.autosave = autosave
        self._refuse_persist_queue()
        self._queue = segq.Queue(self.path, serializer=stored_as(serializer))
        refuse_tempdir(self.path, tempdir)
        self._settle()

    def _settle(self) -> None:
        """Anew in a forked child: what its parent got is its parent's to finish."""
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._got: dict[object, list[segq.Message]] = {}  # by who got them
        self._owed = 0  # calls of task_done, for what this object handed out
        _queues.add(self)

    def _refuse_persist_queue(self) -> None:
        if not os.path.lexists(os.path.join(self.path, "queue.json")) and os.path.lexists(os.path.join(self.path, "info")):
            raise segq.NotAQueueError(
                f"{self.path} holds files of persist-queue itself; move the directory away and bring them over:"
                f" segq import --from persist-queue --serializer pickle MOVED {self.path}",
                path=self.path,
            )

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Stores `item`; once this returns it survives the death of any process.

        Raises:
            Full: no room (in time). ValueError: `timeout` is negative. segq.SerializationError, segq.StorageError.
        """
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if self.maxsize <= 0:
            self._queue.put(item)
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._put_if_room(item):
            left = _LOOK_AGAIN if deadline is None else min(_LOOK_AGAIN, deadline - time.monotonic())
            if not block or left <= 0:
                raise Full(f"{self.path} holds {self.maxsize} items", path=self.path)
            with self._changed:
                self._changed.wait(left)

    def _put_if_room(self, item: Any) -> bool:
        with self._mutex, _locked(self.path):
            if self._queue.qsize() >= self.maxsize:
                return False
            self._queue.put(item)
            return True

    def put_nowait(self, item: Any) -> None:
        """`put(item, block=False)`."""
        self.put(item, False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes an item, which stays in the queue, and comes back if this process dies, until `task_done` (unless `autosave`).

        Raises Empty: there is none (in time). ValueError: `timeout` is negative.
        """
        return self.get_for(threading.get_ident(), block, timeout)

    def get_for(self, who: object, block: bool = True, timeout: float | None = None) -> Any:
        """`get`, on behalf of `who` instead of the calling thread: an asyncio task, say."""
        if self.autosave:
            value = self._queue.get(block, timeout)
        else:
            message = self._queue.receive(block, timeout)
            value, message.value = message.value, None
        with self._changed:
            if not self.autosave:
                self._got.setdefault(who, []).append(message)
            self._owed += 1
            self._changed.notify_all()
        return value

    def get_nowait(self) -> Any:
        """`get(block=False)`."""
        return self.get(False)

    def task_done(self) -> None:
        """What the calling thread got is done and gone; if it got nothing, what all threads of this process got.

        Raises ValueError if called more often than `get`.
        """
        self.task_done_for(threading.get_ident())

    def task_done_for(self, who: object) -> None:
        """`task_done`, on behalf of `who`."""
        with self._changed:
            if self._owed == 0:
                raise ValueError("task_done() called too many times.")
            self._owed -= 1
            mine = self._got.pop(who, None)
            done = mine if mine is not None else [message for messages in self._got.values() for message in messages]
            if mine is None:
                self._got.clear()
            for message in done:
                message.ack()
            self._changed.notify_all()
        if self.autosave:
            self._queue.task_done()

    def join(self) -> None:
        """Waits until everything put, by any process, was got and is done."""
        while True:
            self._queue.join()
            with self._changed:
                if self._owed == 0:
                    return
                self._changed.wait(_LOOK_AGAIN)

    @property
    def unfinished_tasks(self) -> int:
        """How many items wait, or are with somebody who has not called `task_done`."""
        return self._queue.stats().items

    @property
    def unfinished(self) -> bool:
        """Whether `join` would wait just now."""
        return self._owed > 0 or self.unfinished_tasks > 0

    def qsize(self) -> int:
        """How many items wait, those of other processes included."""
        return self._queue.qsize()

    def empty(self) -> bool:
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether `maxsize` items wait."""
        return 0 < self.maxsize <= self.qsize()

    def close(self) -> None:
        """Gives back what is not done, and closes the queue. persist-queue closes when the object is dropped; so does this."""
        self._queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # it may have failed to open, or the interpreter be half gone
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("path", "maxsize", "chunksize", "tempdir", "autosave")
        return {name: getattr(self, name) for name in kept} | {"serializer": portable(self.serializer)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**{**state, "serializer": arrived(state["serializer"])})  # type: ignore[misc]  # a child opens its own


_queues: weakref.WeakSet[Queue] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for queue in list(_queues):
        queue._settle()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork_in_child)


def refuse_tempdir(path: str, tempdir: str | None) -> None:
    """Raises ValueError as persist-queue does, whose renames need the two on one file system."""
    if tempdir and os.stat(path).st_dev != os.stat(tempdir).st_dev:
        raise ValueError("tempdir has to be located on same path filesystem")


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """The kernel's lock on `queue.json`, which segq itself does not lock (it does the directory).

    Held for a look and a put, and let go of by the kernel if the process dies.
    """
    descriptor = os.open(os.path.join(directory, "queue.json"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # not by closing alone: a child forked meanwhile has a copy of the descriptor
        os.close(descriptor)


__all__ = ["Empty", "Full", "Queue"]
