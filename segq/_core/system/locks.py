"""The locks between processes. All are the kernel's: it lets go of them when the holder dies, however it dies.

* `StructureLock` guards names: create, seal, resume, rescue, retire, rebuild. Held for a few milliseconds, rarely, so the
  50 µs of `filelock` do not matter, nor that it polls when contended: of those who wait only one does, the others wait for
  their turn to, asleep in a flock of the queue's directory (a hundred that poll leave the holder no processor).
* `FileMutex` guards the words of one mapped file (a ledger, the index). Held for a microsecond or two by whoever claims or
  reserves; waiting is the kernel's blocking flock on a descriptor kept open, about 0.9 µs a turn. flock belongs to the open
  file description, which threads share, so a `threading.Lock` comes first; a forked child shares it too, which is why
  handles do not survive a fork but are opened anew there (see `queue`).

Order, where more than one is held: a handle's own lock, then by `Rank`: structure, index, ledger. Taken the other way round,
two processes would wait for each other for ever. With SEGQ_CHECK_LOCK_ORDER set (tests set it), every acquisition is checked.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import filelock

from segq._core.base.errors import NotAQueueError, QueueError, StorageError
from segq._core.format import format as fmt
from segq._core.system.fs import open_regular, storage_errors

_POLL_SECONDS = 0.001  # a structural step takes about this long
_PATIENCE_SECONDS = 60.0  # a repair of a large queue may hold it for some of them


class Rank(enum.IntEnum):
    """The order of the locks between processes: a thread takes them from low to high."""

    STRUCTURE = 1
    INDEX = 2
    LEDGER = 3


class StructureLock:
    """`queue.lock`. Reentrant within a thread; threads of one process exclude each other too."""

    rank = Rank.STRUCTURE

    def __init__(self, queue: str) -> None:
        path = os.path.join(queue, fmt.LOCK_FILE)
        self._queue, self._path = queue, path
        self._lock = filelock.FileLock(path, mode=0o600, poll_interval=_POLL_SECONDS)

    def __enter__(self) -> None:
        if not os.path.isdir(self._queue):  # filelock would make it anew
            raise NotAQueueError(f"{self._queue} is gone: it was removed while this handle was open", path=self._queue)
        with storage_errors(self._path):
            try:
                self._lock.acquire(blocking=False)
            except filelock.Timeout:
                with _turn(self._queue):
                    self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()


@contextlib.contextmanager
def _turn(queue: str) -> Iterator[None]:
    """One at a time of those who wait for a queue's structure lock. The kernel ends the turn of who dies."""
    descriptor = os.open(queue, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _turns.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        _turns.discard(descriptor)
        os.close(descriptor)


_turns: set[int] = set()


def _end_turns_in_child() -> None:
    """A forked child must not go on holding the turn of a thread of its parent."""
    while _turns:
        os.close(_turns.pop())


os.register_at_fork(after_in_child=_end_turns_in_child)


class LookingLock:
    """The same lock, for those who must leave no trace: the file is not created, and opened for reading only.

    Where there is none nobody holds it, and whoever comes makes a new one: then this locks nothing.
    """

    rank = Rank.STRUCTURE

    def __init__(self, queue: str) -> None:
        self._queue, self._path = queue, os.path.join(queue, fmt.LOCK_FILE)
        self._descriptor = -1

    def __enter__(self) -> None:
        end = time.monotonic() + _PATIENCE_SECONDS
        try:
            with storage_errors(self._path):
                self._descriptor = open_regular(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return
        while not try_lock(self._descriptor):
            if time.monotonic() > end:
                self.__exit__(None, None, None)
                raise QueueError(
                    f"{self._queue}: somebody has held {fmt.LOCK_FILE} for {_PATIENCE_SECONDS:g} s; nobody needs it for longer"
                    " than a moment. Look for a process of this queue that was stopped (`segq stats` hangs as well)",
                    path=self._queue,
                )
            time.sleep(_POLL_SECONDS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class FileMutex:
    """An exclusive flock on a descriptor that its owner keeps open."""

    __slots__ = ("_descriptor", "_threads", "rank")

    def __init__(self, descriptor: int, rank: Rank) -> None:
        self._descriptor = descriptor
        self.rank = rank
        self._threads = threading.Lock()

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            self._threads.release()


def try_lock(descriptor: int) -> bool:
    """Takes the lock of an owner's file if nobody alive holds it; it stays held until the descriptor is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise StorageError(f"cannot lock: {error.strerror}", errno=error.errno) from error
    return True


class LockOrderError(AssertionError):
    """A lock was taken out of order: two processes that do so can wait for each other for ever. Raised in tests only."""


_held = threading.local()


def _check_order(kind: Any) -> None:
    """Makes every acquisition of this kind of lock check that the thread holds none of a higher rank."""
    enter, leave = kind.__enter__, kind.__exit__

    def checked_enter(self: Any) -> None:
        held: list[tuple[Rank, Any]] = _held.__dict__.setdefault("locks", [])
        higher = [rank for rank, lock in held if rank > self.rank]
        if higher and not any(lock is self for _, lock in held):  # a lock that is held already is not waited for
            raise LockOrderError(f"{self.rank.name} lock taken while the {higher[0].name} lock is held")
        enter(self)
        held.append((self.rank, self))

    def checked_leave(self: Any, *error: Any) -> None:
        held = _held.locks
        for at in reversed(range(len(held))):
            if held[at][1] is self:
                del held[at]
                break
        leave(self, *error)

    kind.__enter__, kind.__exit__ = checked_enter, checked_leave


if os.environ.get("SEGQ_CHECK_LOCK_ORDER"):
    for _kind in (StructureLock, LookingLock, FileMutex):
        _check_order(_kind)
