"""How fast, and how many at a time: of one process, or of all processes that name the same file.

Shared limits need nobody to run: the rate is one number in a file (the time at which the next request may go, as in the
generic cell rate algorithm of ATM networks), moved on under a lock held for a microsecond; the places for requests under way
are locks on single bytes of the same file, which the kernel takes back from a process that dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import mmap
import os
import random
import struct
import time
from collections.abc import AsyncIterator
from itertools import chain

import segq

_PLACES_AT = 64  # first of the bytes that stand for places; the file's first 8 are the time
_LOOK = (0.005, 0.05)  # seconds between looks for a free place, by chance: the kernel wakes no coroutine
_FLOCK = "hhqqi"  # struct flock of 64-bit Linux, with the padding that the compiler puts there


class Limits:
    """At most `rate` requests a second and `concurrency` under way; None for no limit.

    `share`: a file; its limits hold for all processes that name it together (they should agree on them). None: for this
    process alone. Made if it is missing.
    """

    def __init__(self, rate: float | None, concurrency: int | None, share: str | os.PathLike[str] | None = None) -> None:
        self._interval: int = 0 if rate is None else max(1, round(1e9 / rate))
        self._shared = None if share is None else _SharedFile(os.fspath(share))
        self._next = 0
        self._concurrency = concurrency
        self._places = None if self._shared is not None or concurrency is None else asyncio.Semaphore(concurrency)

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """The time in which one request is made: comes when it may go, and counts as under way until it is left."""
        async with self._place():
            await self._turn()
            yield

    async def _turn(self) -> None:
        if not self._interval:
            return
        wait = self._reserve() if self._shared is None else self._shared.reserve(self._interval)
        if wait > 0:
            await asyncio.sleep(wait / 1e9)

    def _reserve(self) -> int:
        now = time.monotonic_ns()
        mine = max(now, self._next)
        self._next = mine + self._interval
        return mine - now

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._places is not None:
            async with self._places:
                yield
        elif self._shared is not None and self._concurrency is not None:
            place = await self._shared.take(self._concurrency)
            try:
                yield
            finally:
                self._shared.release(place)
        else:
            yield

    def close(self) -> None:
        """Lets go of the file."""
        if self._shared is not None:
            self._shared.close()


class _SharedFile:
    """The file that processes share. Descriptors are not inherited; a forked child does not use it."""

    def __init__(self, path: str) -> None:
        if not hasattr(fcntl, "F_OFD_SETLK"):  # pragma: no cover  # macOS
            raise segq.SettingsError("limits can be shared between processes on Linux only; leave `share` out")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if os.fstat(self._descriptor).st_size < mmap.PAGESIZE:
                os.posix_fallocate(self._descriptor, 0, mmap.PAGESIZE)
        except OSError as error:
            raise segq.StorageError(f"{path}: cannot share limits: {error.strerror}", errno=error.errno, path=path) from error
        self._map = mmap.mmap(self._descriptor, mmap.PAGESIZE)
        self._words: memoryview[int] = memoryview(self._map).cast("Q")
        self._taken: set[int] = set()

    def reserve(self, interval: int) -> int:
        """Takes the next turn, `interval` nanoseconds after the last; returns how many nanoseconds it is away."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            now = time.monotonic_ns()
            following: int = self._words[0]
            if following > now + 3_600_000_000_000:  # of an earlier boot, whose clock had come further
                following = 0
            mine: int = max(now, following)
            self._words[0] = mine + interval
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return mine - now

    async def take(self, places: int) -> int:
        """Waits for one of the places and takes it."""
        while True:
            first = random.randrange(places)  # noqa: S311  # spreads those who look
            for number in chain(range(first, places), range(first)):
                if number not in self._taken and self._lock(number, fcntl.F_WRLCK):
                    self._taken.add(number)
                    return number
            await asyncio.sleep(random.uniform(*_LOOK))  # noqa: S311

    def release(self, number: int) -> None:
        """Gives a place back."""
        self._lock(number, fcntl.F_UNLCK)
        self._taken.discard(number)

    def _lock(self, number: int, kind: int) -> bool:
        wanted = struct.pack(_FLOCK, kind, os.SEEK_SET, _PLACES_AT + number, 1, 0)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, wanted)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def close(self) -> None:
        """The kernel takes back what is still held."""
        self._words.release()
        self._map.close()
        os.close(self._descriptor)
