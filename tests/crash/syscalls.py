"""Lets the kernel strike at one system call or another: `python syscalls.py PLACE WORK SETTINGS STRIKES CALLS COUNT SEED`.

A strike is `kill` (SIGKILL as the call is entered: it is not made, all before it was) or the name of an error that the call
returns instead of being made; `EMFILE*20`: as that one and the 19 after it do. A child of fork does the work (see `works.py`) while strace watches it, attached before the first
step, so that calls are counted from there. They are first counted without a strike. Points are those of the main thread that
concern the queue's directory; to be killed at, only those that change something on the disk, since before the others it is as
before the next of these.

STRIKES are separated by commas and used in turn. CALLS: `structural`, `failing` or `all`. Of what there is COUNT points are
taken, chosen by SEED, at least one of each kind (call and file) if there are enough; 0: every one.

After each strike a process that had nothing to do with it closes the account. Prints each strike that was not survived, and
last what was done.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import logging
import os
import random
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

from works import WORKS, close_accounts, died_before, home

MAKING = ("rename", "renameat", "renameat2", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "ftruncate", "fallocate")
SYNCING = ("fsync", "fdatasync", "msync")
WRITING = ("write", "pwrite64", "mmap", "openat")
FAILING = ("write", "pwrite64", "fsync", "fdatasync", "openat", "mmap", "fallocate", "ftruncate", "mkdir", "rename")
CALLS = {"structural": MAKING + SYNCING, "failing": FAILING, "all": MAKING + SYNCING + WRITING}
NOT_PERMITTED = 77  # what this process ends with where strace cannot do its work
PATIENCE = 60.0
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_PATH = re.compile(r"""(?<=[<"])/[^>"]*""")
_NUMBERS = re.compile(r"\d{19}_[0-9a-f]{12}|\d+|[0-9a-f]{8}$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


class NotPermitted(Exception):
    """strace is missing, or may not watch another process here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """The `number`-th time that the main thread makes this call; `what` it was in the run without a strike."""

    call: str
    number: int
    what: str

    @property
    def changes(self) -> bool:
        """Whether the disk is another after it than before."""
        return "= -1 E" not in self.what and (self.call != "openat" or "O_CREAT" in self.what or "O_TRUNC" in self.what)

    @property
    def sort(self) -> str:
        """What points have in common that are much the same: the call and the kind of file."""
        paths = _PATH.findall(self.what)
        path = paths[-1] if self.call in ("openat", "mmap") and paths else paths[0] if paths else ""
        return f"{self.call} {'O_RDONLY' in self.what} {_NUMBERS.sub('#', path)}"

    def takes(self, strike: str) -> bool:
        """Not many mmaps in a row: that is a process without memory, which RocksDB ends by itself."""
        return self.changes if strike == "kill" else self.call in FAILING and not ("*" in strike and self.call == "mmap")

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


class QuietLog(logging.Handler):
    """Writes with a call that no sweep lets fail."""

    def emit(self, record: logging.LogRecord) -> None:
        os.writev(2, [f"{record.getMessage()}\n".encode()])


def _live(work: Callable[[], None], output: Path, ready: int) -> None:
    code = 1
    try:
        with contextlib.suppress(OSError, AttributeError):  # where only parents may watch, strace is made an exception
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        logging.getLogger("segq").addHandler(QuietLog())
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
        self.trouble_lasts = False

    def prepare(self) -> None:
        code = in_child(lambda: died_before(self.place, self.kind, self.settings), self.output)
        assert code == -signal.SIGKILL, f"what was to be there before: ended with {code}"
        assert not self.troubled(), f"what was to be there before:\n{self.said()}"

    def work(self, *watched: str) -> int:
        return in_child(self.work_unwatched, self.output, watched=("-y", "-o", str(self.trace), *watched))

    def work_unwatched(self) -> None:
        kind, steps = WORKS[self.kind]
        work = kind(self.place, self.settings, trouble_lasts=self.trouble_lasts)
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
            if str(home(self.place, self.kind)) in text or "/proc/self/fd/" in text:
                yield Point(call, counts[call], text.replace(str(self.place), ""))


def points(place: Path, kind: str, settings: dict[str, Any]) -> list[Point]:
    """What there is to strike at: one run without a strike, whose account has to close as well."""
    attempt = Attempt(place / "counted", kind, settings)
    attempt.prepare()
    code = attempt.work("-e", _named("trace", CALLS["all"]))
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
    error, _, times = error.partition("*")
    attempt.trouble_lasts = bool(times)
    when = f"{point.number}..{point.number + int(times or 1) - 1}"
    code = attempt.work("-e", _named("trace", (point.call,)), "-e", f"inject={point.call}:error={error}:when={when}")
    assert code == 0, f"the work ended with {code}:\n{attempt.said()}"
    assert "Traceback" not in attempt.said(), f"something foreign was raised:\n{attempt.said()}"
    attempt.close()
    return "(INJECTED)" in attempt.trace.read_text(errors="replace")


def chosen(every: list[Point], strikes: list[str], count: int, seed: int) -> list[tuple[Point, str]]:
    """Which points are struck, and how."""
    dice = random.Random(seed)
    left = [(point, strikes[n % len(strikes)]) for n, point in enumerate(dice.sample(every, len(every)))]
    left = [(point, strike) for point, strike in left if point.takes(strike)]
    if not count:
        return left
    sorts: dict[tuple[str, str], tuple[Point, str]] = {}
    for point, strike in left:
        sorts.setdefault((point.sort, "kill" if strike == "kill" else "error"), (point, strike))
    first = list(sorts.values())
    dice.shuffle(first)
    return (first + [pair for pair in left if pair not in first])[:count]


def struck(place: Path, kind: str, settings: dict[str, Any], point: Point, strike: str) -> bool:
    """Whether the call was met again. Fails if the work or the account does."""
    attempt = Attempt(place, kind, settings)
    attempt.prepare()
    met = kill_at(attempt, point) if strike == "kill" else fail_at(attempt, point, strike)
    shutil.rmtree(place)
    return met


def sweep(place: Path, kind: str, settings: dict[str, Any], strikes: list[str], calls: str, count: int, seed: int) -> int:
    """Returns how many strikes were not survived."""
    begun, met, wrong = time.monotonic(), 0, 0
    every = [point for point in points(place, kind, settings) if point.call in CALLS[calls]]
    pairs = chosen(every, strikes, count, seed)
    for n, (point, strike) in enumerate(pairs):
        try:
            met += struck(place / str(n), kind, settings, point, strike)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            wrong += 1
            print(f"--- {n}: {strike} at {point}\n{error}\n", flush=True)
    counts = ", ".join(f"{n} {call}" for call, n in collections.Counter(point.call for point in every).most_common())
    print(
        f"{kind} {settings}: {len(every)} calls ({counts}); {len(pairs)} struck with {strikes} (seed {seed}), {met} met again,"
        f" {wrong} not survived; {time.monotonic() - begun:.0f} s"
    )
    assert wrong or met * 2 >= len(pairs), "too many calls were not met again: the work is another each time"
    return wrong


def main(place: str, kind: str, durability: str, strikes: str, calls: str, count: str, seed: str) -> None:
    try:
        wrong = sweep(Path(place), kind, {"durability": durability}, strikes.split(","), calls, int(count), int(seed))
    except NotPermitted as error:
        print(error)
        sys.exit(NOT_PERMITTED)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
