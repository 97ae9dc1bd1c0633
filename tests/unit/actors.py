"""Other processes for unit tests: started from a line of code, waited for, killed, and gone when the test is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Any

PATIENCE = 60.0  # seconds; far more than anything takes


class Child:
    """A Python process that runs `code` with `arguments` in sys.argv; `q` is the queue at the first of them.

    It speaks in lines: `say(word)` there is `hear()` here, and `wait()` there returns when `go()` was called here.
    """

    PRELUDE = (
        "import os, sys, time, signal, segq\ndef say(*words): print(*words, flush=True)\ndef wait(): sys.stdin.readline()\n"
    )

    def __init__(self, code: str, *arguments: Any, failpoints: str = "", opens: bool = True) -> None:
        opening = "q = segq.Queue(sys.argv[1])\n" if opens else ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.PRELUDE + opening + code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SEGQ_FAILPOINTS": failpoints},
        )

    def hear(self) -> str:
        """The next line it says; empty when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        """Suspends it, and returns once it is."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def ends(self, code: int = 0) -> str:
        """Waits for its end, demands the exit code and returns what else it said."""
        rest, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code, (self.process.returncode, rest)
        return rest

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def segments(path: str) -> list[str]:
    """The names of all segments, oldest first."""
    names = [name for name in os.listdir(path) if name.partition("_")[0] in ("loading", "ready", "chosen", "removed")]
    return sorted(names, key=lambda name: name.partition("_")[2])


def states(path: str) -> list[str]:
    return [name.partition("_")[0] for name in segments(path)]
