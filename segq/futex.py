"""Sleeping on a word of shared memory, and waking who sleeps there.

On Linux this is the futex system call on the mapping (`FUTEX_WAIT`/`FUTEX_WAKE` without the private flag, so it works
between processes): a wake costs about a microsecond, and wakes as many sleepers as asked. Elsewhere the sleeper polls,
from 0.2 ms up to 10 ms apart. Callers bound every sleep, so a lost wake costs time and never an item.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
import time

_WAIT, _WAKE = 0, 1
_NUMBER = {"x86_64": 202, "aarch64": 98, "riscv64": 422, "ppc64le": 221, "s390x": 238}.get(platform.machine())


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class FutexWord:
    """The u32 `halves[at]` of a mapping, which it keeps alive."""

    __slots__ = ("_address", "_at", "_halves", "_sleep", "_wake")

    def __init__(self, halves: memoryview, at: int) -> None:
        self._halves, self._at = halves, at
        address = ctypes.addressof(ctypes.c_char.from_buffer(halves.cast("B"), 4 * at))
        self._address = ctypes.c_void_p(address)
        self._sleep = ctypes.CDLL(None, use_errno=True).syscall
        self._wake = ctypes.PyDLL(None).syscall  # never blocks: keeping the GIL for it is cheaper

    def wait(self, expected: int, seconds: float) -> None:
        """Sleeps up to `seconds` while the word is `expected`; may return early for no reason."""
        limit = _Timespec(int(seconds), int(seconds % 1 * 1e9))
        result = self._sleep(_CALL, self._address, _WAIT_OPERATION, ctypes.c_uint(expected), ctypes.byref(limit), _NULL, _ZERO)
        if result < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
            time.sleep(min(seconds, 0.001))  # a kernel that refuses futexes: become a poller rather than spin

    def wake(self, count: int) -> int:
        """Wakes up to `count` sleepers; returns how many there were to wake."""
        how_many = _ONE if count == 1 else ctypes.c_int(count)
        return max(0, int(self._wake(_CALL, self._address, _WAKE_OPERATION, how_many, _NULL, _NULL, _ZERO)))


_CALL, _NULL = ctypes.c_long(_NUMBER or 0), ctypes.c_void_p(0)
_WAIT_OPERATION, _WAKE_OPERATION = ctypes.c_int(_WAIT), ctypes.c_int(_WAKE)
_ZERO, _ONE = ctypes.c_int(0), ctypes.c_int(1)


class PolledWord:
    """The same by looking again and again."""

    __slots__ = ("_at", "_halves")

    def __init__(self, halves: memoryview, at: int) -> None:
        self._halves, self._at = halves, at

    def wait(self, expected: int, seconds: float) -> None:
        end, pause = time.monotonic() + seconds, 0.0002
        while self._halves[self._at] == expected and (left := end - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.01)

    def wake(self, count: int) -> int:
        return count  # nobody can be counted; the word has changed, and that is what pollers look at


Word: type[FutexWord | PolledWord] = FutexWord if sys.platform == "linux" and _NUMBER else PolledWord
