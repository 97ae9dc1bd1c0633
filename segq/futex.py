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
from collections.abc import Callable

_WAIT, _WAKE = 0, 1
_SYSCALL = {"x86_64": 202, "aarch64": 98, "riscv64": 422, "ppc64le": 221, "s390x": 238}.get(platform.machine())


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def address_of(view: memoryview, offset: int) -> int:
    """The address of byte `offset` of a mapping. The caller keeps the mapping alive as long as it uses the address."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view, offset))


def _futex() -> tuple[Callable[[int, memoryview, int, int, float], None], Callable[[int, int], int]]:
    libc = ctypes.CDLL(None, use_errno=True)
    call, quick = libc.syscall, ctypes.PyDLL(None).syscall  # a wake never blocks: keeping the GIL for it is cheaper
    number, zero = ctypes.c_long(_SYSCALL or 0), ctypes.c_void_p(0)
    wait_operation, wake_operation, unused = ctypes.c_int(_WAIT), ctypes.c_int(_WAKE), ctypes.c_int(0)

    def wait(address: int, _words: memoryview, _at: int, expected: int, seconds: float) -> None:
        """Sleeps up to `seconds` while the u32 at `address` is `expected`; may return early for no reason."""
        limit = _Timespec(int(seconds), int(seconds % 1 * 1e9))
        word, value = ctypes.c_void_p(address), ctypes.c_uint(expected)
        result = call(number, word, wait_operation, value, ctypes.byref(limit), zero, unused)
        if result < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
            time.sleep(min(seconds, 0.001))  # a kernel that refuses futexes: become a poller rather than spin

    def wake(address: int, count: int) -> int:
        """Wakes up to `count` sleepers; returns how many there were to wake."""
        return max(0, int(quick(number, ctypes.c_void_p(address), wake_operation, ctypes.c_int(count), zero, zero, unused)))

    return wait, wake


def _polling() -> tuple[Callable[[int, memoryview, int, int, float], None], Callable[[int, int], int]]:
    def wait(_address: int, words: memoryview, at: int, expected: int, seconds: float) -> None:
        end, pause = time.monotonic() + seconds, 0.0002
        while words[at] == expected and (left := end - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.01)

    def wake(_address: int, count: int) -> int:
        return count  # nobody can be counted; the word has changed, and that is what pollers look at

    return wait, wake


wait, wake = _futex() if sys.platform == "linux" and _SYSCALL else _polling()
