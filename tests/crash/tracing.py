"""Stops a process at each of its system calls, by ptrace: what strace does, without needing strace. Linux on x86-64.

`Tracer.run` forks, runs the work in the child, and calls `entered` and `left` around each system call of any of its threads
while that thread stands still. Whoever is called can look at the files as they are at that moment.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_SYSGOOD, _FORK, _VFORK, _CLONE, _EXITKILL = 1, 2, 4, 8, 0x100000
_WALL = 0x40000000
_ENTRY, _EXIT = 1, 2

NUMBERS = {
    "write": 1, "open": 2, "close": 3, "mmap": 9, "pwrite64": 18, "writev": 20, "msync": 26, "flock": 73, "fsync": 74,
    "fdatasync": 75, "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87,
    "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264, "sync_file_range": 277, "fallocate": 285,
    "pwritev": 296, "renameat2": 316,
}  # fmt: skip
_NAMES = {number: name for name, number in NUMBERS.items()}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, as far as it is looked at. `first` is the call's number on entry, its result on exit."""

    _fields_ = (
        ("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32), ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64), ("first", ctypes.c_int64), ("args", ctypes.c_uint64 * 6), ("rest", ctypes.c_uint64),
    )  # fmt: skip


def _ptrace(request: int, thread: int, address: int = 0, data: object = 0) -> int:
    result = int(_libc.ptrace(request, thread, address, data))
    if result < 0 and (code := ctypes.get_errno()):
        raise OSError(code, f"ptrace({request:#x}): {os.strerror(code)}")
    return result


def why_not() -> str:
    """Why nothing can be traced here; empty if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "tracing system calls is written for Linux on x86-64"
    try:
        code = Tracer().run(lambda: None)
    except OSError as error:
        return f"ptrace is not permitted here: {error}"
    return "" if code == 0 else "ptrace is not permitted here"


def why_not_asked() -> str:
    """The same, from a process with threads, which had better not fork: another is asked."""
    asked = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=60, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else f"cannot trace: {asked.stderr.strip()[-200:]}"


class Tracer:
    """Base of whoever wants to look; these two look at nothing."""

    def entered(self, thread: int, call: str, args: list[int]) -> None:
        """`thread` is about to make a system call of `NUMBERS`."""

    def left(self, thread: int, call: str, result: int) -> None:
        """It has come back from the call."""

    def run(self, work: Callable[[], None]) -> int:
        """Runs `work` in a traced child; returns its exit code (negative: the signal)."""
        child = os.fork()
        if not child:
            code = 1
            try:
                _ptrace(_TRACEME, 0)
                os.kill(os.getpid(), signal.SIGSTOP)
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        _ptrace(_SETOPTIONS, child, 0, _SYSGOOD | _CLONE | _FORK | _VFORK | _EXITKILL)
        _ptrace(_SYSCALL, child)
        return self._follow(child)

    def _follow(self, child: int) -> int:
        calls: dict[int, str | None] = {}
        info = _Info()
        while True:
            thread, status = os.waitpid(-1, _WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if thread == child:
                    return os.waitstatus_to_exitcode(status)
                continue
            signal_number = os.WSTOPSIG(status)
            pass_on = 0
            if signal_number == signal.SIGTRAP | 0x80:
                _ptrace(_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
                if info.op == _ENTRY:
                    call = calls[thread] = _NAMES.get(info.first)
                    if call is not None:
                        self.entered(thread, call, list(info.args))
                elif info.op == _EXIT and (call := calls.pop(thread, None)) is not None:
                    self.left(thread, call, info.first)
            elif signal_number not in (signal.SIGTRAP, signal.SIGSTOP):
                pass_on = signal_number
            try:
                _ptrace(_SYSCALL, thread, 0, pass_on)
            except ProcessLookupError:  # it was killed meanwhile
                continue


if __name__ == "__main__":
    print(why_not())
