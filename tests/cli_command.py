"""How the tests run the command: as a user would, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEGQ = [sys.executable, "-m", "segq"]
PATIENCE = 30.0  # seconds; far more than anything takes, so that a busy machine does not fail a test


def environment(**more: str) -> dict[str, str]:
    """This process's, with the repository on the path, whatever directory the command runs in."""
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"} | more


def segq(*arguments: object, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Runs `segq ARGUMENTS` to its end. No test expects a traceback."""
    ended = subprocess.run(
        [*SEGQ, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=PATIENCE * 2,
        check=False,
        cwd=cwd,
        env=environment(),
    )
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    return ended


def started(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Starts `segq ARGUMENTS` with pipes on all three sides."""
    defaults: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([*SEGQ, *map(str, arguments)], **({"env": environment()} | defaults | options))


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Returns once the condition holds; fails the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not true after {seconds:g} s"
        time.sleep(0.01)
