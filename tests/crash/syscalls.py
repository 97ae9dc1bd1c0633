"""Lets the kernel strike at one system call after the other: `python syscalls.py PLACE WORK SETTINGS STRIKE WHICH FIRST STEP`.

STRIKE is `kill` (SIGKILL as the call is entered: it is not made, all before it was) or the name of an error that the call
returns instead of being made. A child of fork does the work (see `works.py`) while strace watches it, attached before the first
step, so that the calls are counted from there. They are first counted without a strike; those of the main thread that concern
the queue's directory are the points. WHICH: `all` of them, or the `structural` ones; every STEP-th from FIRST on.

After each strike a process that had nothing to do with it closes the account. Prints each strike that was not survived, and
last what was done.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import errno
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from works import WORKS, close_accounts, died_before

MAKING = ("rename", "renameat", "renameat2", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "ftruncate", "fallocate")
SYNCING = ("fsync", "fdatasync", "msync")
WRITING = ("write", "pwrite64", "mmap", "openat")
STRUCTURAL, ALL = MAKING + SYNCING, MAKING + SYNCING + WRITING
FAILING = ("write", "pwrite64", "fsync", "fdatasync", "openat", "mmap", "fallocate", "ftruncate", "mkdir", "rename")
PATIENCE = 60.0
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


class NotPermitted(Exception):
    """strace is missing, or may not watch another process here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """The `number`-th time that the main thread makes this call."""

    call: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.call} {self.number}: {self.what}"


# --- a child, and who watches it --------------------------------------------------------------------------------------


def in_child(work: Callable[[], None], output: Path, *, watched: tuple[str, ...] = ()) -> int:
    """Runs `work` in a child of fork, under strace if there are arguments for it; returns how it ended."""
    ready, go = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(go)
        _live(work, output, ready)
    os.close(ready)
    try:
        strace = _watch(pid, watched) if watched else None
        os.write(go, b"!")
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(go)
    code = _ended(pid)
    if strace is not None:
        strace.communicate(timeout=PATIENCE)
    return code


def _live(work: Callable[[], None], output: Path, ready: int) -> None:
    code = 1
    try:
        with contextlib.suppress(OSError, AttributeError):  # where only parents may watch, strace is made an exception
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if os.read(ready, 1):
            work()
            code = 0
    except BaseException:
        os.writev(2, [traceback.format_exc().encode()])
    finally:
        os._exit(code)


def _watch(pid: int, arguments: tuple[str, ...]) -> subprocess.Popen[str]:
    """Attached when this returns: the child waits to be told to begin, and strace says when it has it."""
    if shutil.which("strace") is None:
        raise NotPermitted("strace is not installed")
    command = ["strace", "-f", "-p", str(pid), *arguments]
    strace = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    readable, _, _ = select.select([strace.stderr], [], [], PATIENCE)
    said = strace.stderr.readline() if readable else "nothing"
    if "attached" not in said:
        strace.kill()
        strace.communicate()
        raise NotPermitted(f"strace cannot watch a process here: {said.strip()}")
    return strace


def _ended(pid: int) -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"the work does not end within {PATIENCE} s")


# --- the calls of one work --------------------------------------------------------------------------------------------


class Attempt:
    """A directory of its own for one run of a work."""

    def __init__(self, place: Path, kind: str, settings: dict[str, Any]) -> None:
        place.mkdir(parents=True)
        self.place, self.kind, self.settings = place, kind, settings
        self.output, self.trace = place / "output", place / "trace"

    def prepare(self) -> None:
        code = in_child(lambda: died_before(self.place, self.kind, self.settings), self.output)
        assert code == -signal.SIGKILL, f"what was to be there before: ended with {code}"
        assert not self.troubled(), f"what was to be there before:\n{self.said()}"

    def work(self, *watched: str) -> int:
        return in_child(self._work, self.output, watched=("-y", "-o", str(self.trace), *watched))

    def _work(self) -> None:
        kind, steps = WORKS[self.kind]
        work = kind(self.place, self.settings)
        for _ in steps(work):
            pass
        work.end()

    def close(self) -> None:
        judging = self.place / "judge"
        code = in_child(lambda: close_accounts(self.place, self.kind, self.settings), judging)
        assert code == 0, f"the account does not close:\n{judging.read_text()}"

    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def troubled(self) -> bool:
        """Whether something raised; what is logged (who was rescued) is as it should be."""
        return "raised: " in self.said() or "Traceback" in self.said() or " failed: " in self.said()

    def calls(self) -> Iterator[Point]:
        """Those of the main thread that concern the queue, as the trace has them."""
        counts: collections.Counter[str] = collections.Counter()
        lines = self.trace.read_text(errors="replace").splitlines()
        main = lines[0].split()[0]
        for n, line in enumerate(lines):
            if (found := _CALL.match(line)) is None or found[1] != main:
                continue
            text, call = found[3], found[2]
            counts[call] += 1
            if text.endswith("<unfinished ...>"):
                later = (_RESUMED.match(other) for other in lines[n:])
                text += next((other[3] for other in later if other is not None and other[1] == main), "")
            if str(self.place / self.kind) in text or "/proc/self/fd/" in text:
                yield Point(call, counts[call], text.replace(str(self.place), ""))


def points(place: Path, kind: str, settings: dict[str, Any], calls: tuple[str, ...]) -> list[Point]:
    """What there is to strike at: one run without a strike, whose account has to close as well."""
    attempt = Attempt(place / "counted", kind, settings)
    attempt.prepare()
    code = attempt.work("-e", _named("trace", calls))
    assert code == 0, f"without a strike the work ended with {code}:\n{attempt.said()}"
    assert not attempt.troubled(), f"without a strike it said:\n{attempt.said()}"
    attempt.close()
    return list(attempt.calls())


def _named(what: str, calls: tuple[str, ...]) -> str:
    return f"{what}={','.join('?' + call for call in calls)}"  # not every processor has every call


# --- striking ---------------------------------------------------------------------------------------------------------


def kill_at(attempt: Attempt, point: Point) -> bool:
    """Whether it was killed (the same call comes at another number where the clock has a say; then it may end well)."""
    code = attempt.work("-e", _named("trace", (point.call,)), "-e", f"inject={point.call}:signal=KILL:when={point.number}")
    assert code in (0, -signal.SIGKILL), f"the work ended with {code}:\n{attempt.said()}"
    assert not attempt.troubled(), f"before it was killed it said:\n{attempt.said()}"
    attempt.close()
    return code != 0


def fail_at(attempt: Attempt, point: Point, error: str) -> bool:
    """Whether the call failed."""
    code = attempt.work("-e", _named("trace", (point.call,)), "-e", f"inject={point.call}:error={error}:when={point.number}")
    assert code == 0, f"the work ended with {code}:\n{attempt.said()}"
    assert "Traceback" not in attempt.said(), f"something foreign was raised:\n{attempt.said()}"
    attempt.close()
    return "(INJECTED)" in attempt.trace.read_text(errors="replace")


@dataclasses.dataclass(slots=True)
class Sweep:
    """One kind of strike at some points of a work."""

    place: Path
    kind: str
    settings: dict[str, Any]
    strike: str
    struck: int = 0
    wrong: int = 0

    def at(self, chosen: list[Point]) -> None:
        for n, point in enumerate(chosen):
            attempt = Attempt(self.place / str(n), self.kind, self.settings)
            try:
                attempt.prepare()
                self.struck += self._strike(attempt, point)
            except NotPermitted:
                raise
            except Exception as error:
                self.wrong += 1
                print(f"--- {self.strike} at {point}\n{error}", flush=True)
            else:
                shutil.rmtree(attempt.place)

    def _strike(self, attempt: Attempt, point: Point) -> bool:
        return kill_at(attempt, point) if self.strike == "kill" else fail_at(attempt, point, self.strike)


def main(place: str, kind: str, durability: str, strike: str, which: str, first: str, step: str) -> None:
    begun = time.monotonic()
    assert strike == "kill" or strike in errno.errorcode.values(), strike
    calls = FAILING if strike != "kill" else STRUCTURAL if which == "structural" else ALL
    settings = {"durability": durability}
    try:
        every = points(Path(place), kind, settings, calls)
        chosen = every[int(first) :: int(step)]
        sweep = Sweep(Path(place), kind, settings, strike)
        sweep.at(chosen)
    except NotPermitted as error:
        print(error)
        sys.exit(77)
    counts = collections.Counter(point.call for point in every)
    print(f"{kind} {durability} {strike}: {len(every)} calls ({dict(counts)}), {len(chosen)} points, struck {sweep.struck},"
          f" {sweep.wrong} not survived, {time.monotonic() - begun:.1f} s")  # fmt: skip
    assert sweep.struck * 10 >= len(chosen) * 9 or sweep.wrong, "too many calls were not met again"
    sys.exit(1 if sweep.wrong else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
