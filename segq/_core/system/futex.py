"""Sleeping on a word of shared memory, and waking who sleeps there.

On Linux this is the futex system call on the mapping (`FUTEX_WAIT`/`FUTEX_WAKE` without the private flag, so it works
between processes): a wake costs about a microsecond, and wakes as many sleepers as asked. Elsewhere the sleeper polls,
from 0.2 ms up to 10 ms apart. Callers bound every sleep, so a lost wake costs time and never an item.

`wait_any` sleeps on several words at once (`futex_waitv`, Linux 5.16), so that one thread can wait for many who have none.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
import time
from collections.abc import Sequence

_WAIT, _WAKE = 0, 1
_NUMBER = {"x86_64": 202, "aarch64": 98, "riscv64": 422, "ppc64le": 221, "s390x": 238}.get(platform.machine())


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class FutexWord:
    """The u32 `halves[at]` of a mapping, which it keeps alive."""

    __slots__ = ("_address", "_at", "_halves", "_sleep", "_wake", "address")

    def __init__(self, halves: memoryview, at: int) -> None:
        self._halves, self._at = halves, at
        address = ctypes.addressof(ctypes.c_char.from_buffer(halves.cast("B"), 4 * at))
        self._address = ctypes.c_void_p(address)
        self.address = address
        self._sleep = ctypes.CDLL(None, use_errno=True).syscall
        self._wake = ctypes.PyDLL(None).syscall  # never blocks: keeping the GIL for it is cheaper

    @property
    def value(self) -> int:
        return self._halves[self._at]

    def wait(self, expected: int, seconds: float) -> None:
        """Sleeps up to `seconds` while the word is `expected`; may return early for no reason."""
        limit = _Timespec(int(seconds), int(seconds % 1 * 1e9))
        result = self._sleep(_CALL, self._address, _WAIT_OPERATION, ctypes.c_uint(expected), ctypes.byref(limit), _NULL, _ZERO)
        if result < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
            time.sleep(min(seconds, 0.001))  # a kernel that refuses futexes: become a poller rather than spin

    def wake(self, count: int) -> int:
        """Wakes up to `count` sleepers; returns how many there were to wake."""
        how_many = _ONE if count == 1 else ctypes.c_int(count)
        return max(0, int(self._wake(_CALL, self._address, _WAKE_OPERATION, how_many)))


_CALL, _NULL = ctypes.c_long(_NUMBER or 0), ctypes.c_void_p(0)
_WAIT_OPERATION, _WAKE_OPERATION = ctypes.c_int(_WAIT), ctypes.c_int(_WAKE)
_ZERO, _ONE = ctypes.c_int(0), ctypes.c_int(1)


class PolledWord:
    """The same by looking again and again."""

    __slots__ = ("_at", "_halves")

    def __init__(self, halves: memoryview, at: int) -> None:
        self._halves, self._at = halves, at

    @property
    def value(self) -> int:
        return self._halves[self._at]

    def wait(self, expected: int, seconds: float) -> None:
        end, pause = time.monotonic() + seconds, 0.0002
        while self._halves[self._at] == expected and (left := end - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.01)

    def wake(self, count: int) -> int:
        return count  # nobody can be counted; the word has changed, and that is what pollers look at


class _WaitEntry(ctypes.Structure):
    """`struct futex_waitv`."""

    _fields_ = (
        ("expected", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


MOST_WORDS = 128  # the kernel's limit for one sleep
_WAIT_ANY = ctypes.c_long(449)  # the same number on every architecture
_FUTEX_32 = 2
_monotonic = ctypes.c_int(time.CLOCK_MONOTONIC)
_can_wait_any = (
    sys.platform == "linux" and _NUMBER is not None
)  # until the kernel, or a container's filter, says that it is not


def wait_any(words: Sequence[FutexWord | PolledWord], expected: Sequence[int], seconds: float) -> None:
    """Sleeps up to `seconds` while each of `words` (128 at most) is as expected; may return early for no reason.

    Where the kernel cannot do that (before 5.16, or a container that forbids it) the words are looked at again and again.
    """
    global _can_wait_any  # noqa: PLW0603
    if _can_wait_any:
        entries = (_WaitEntry * len(words))()
        for entry, word, value in zip(entries, words, expected, strict=True):
            assert isinstance(word, FutexWord)
            entry.expected, entry.address, entry.flags = value, word.address, _FUTEX_32
        end = time.monotonic() + seconds
        limit = _Timespec(int(end), int(end % 1 * 1e9))
        result = _syscall(_WAIT_ANY, ctypes.byref(entries), ctypes.c_uint(len(words)), _ZERO, ctypes.byref(limit), _monotonic)
        if result >= 0 or ctypes.get_errno() in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
            return
        _can_wait_any = False
    end, pause = time.monotonic() + seconds, 0.0002
    while (left := end - time.monotonic()) > 0 and all(map(_is, words, expected)):
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.01)


def _is(word: FutexWord | PolledWord, value: int) -> bool:
    return word.value == value


_syscall = ctypes.CDLL(None, use_errno=True).syscall

Word: type[FutexWord | PolledWord] = FutexWord if sys.platform == "linux" and _NUMBER else PolledWord
