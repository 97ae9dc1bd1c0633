"""`segq watch` as its user sees it: on a terminal of its own, in a pipe, with a queue that comes and goes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_command import PATIENCE, SEGQ, environment, segq, started

import segq as library


class Terminal:
    """A pseudo-terminal of a size, the command in it, and all that it wrote."""

    def __init__(self, columns: int, rows: int, *arguments: object) -> None:
        self.end, inner = pty.openpty()
        self.resize(columns, rows)
        more = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "COLUMNS": "", "LINES": ""}
        env = {name: value for name, value in environment(**more).items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.before = termios.tcgetattr(inner)
        self.process = subprocess.Popen(
            [*SEGQ, *map(str, arguments)], stdin=inner, stdout=inner, stderr=inner, env=env, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # so that its keys send it signals
        )  # fmt: skip
        self.inner = inner
        self.written = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def reads(self, text: str) -> str:
        """Reads on until `text` was written (colours apart), and returns what was written since the last such call."""
        deadline = time.monotonic() + PATIENCE
        while text not in re.sub(r"\x1b\[[0-9;]*m", "", self.written):
            assert time.monotonic() < deadline, f"{text!r} was not written: {self.written[-2000:]!r}"
            if select.select([self.end], [], [], 0.1)[0]:
                self.written += os.read(self.end, 1 << 16).decode(errors="replace")
        seen, self.written = self.written, ""
        return seen

    def types(self, keys: bytes) -> None:
        os.write(self.end, keys)

    def ends(self) -> int:
        """Waits for the command's end, reading what it still writes; returns its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([self.end], [], [], 0.05)[0]:
                self.written += os.read(self.end, 1 << 16).decode(errors="replace")
        while select.select([self.end], [], [], 0)[0]:
            self.written += os.read(self.end, 1 << 16).decode(errors="replace")
        return self.process.returncode


@contextmanager
def terminal(columns: int, rows: int, *arguments: object) -> Iterator[Terminal]:
    opened = Terminal(columns, rows, *arguments)
    try:
        yield opened
    finally:
        if opened.process.poll() is None:
            opened.process.kill()
        opened.process.wait()
        os.close(opened.end)
        os.close(opened.inner)


@pytest.mark.parametrize("way", ["q", "ctrl-c", "sigterm"])
def test_the_screen_follows_the_queue_and_gives_the_terminal_back(queue_path: str, way: str) -> None:
    with terminal(80, 24, "watch", queue_path, "--interval", 0.05) as screen:
        screen.reads("there is no queue here")
        with library.Queue(queue_path, capacity=100) as q:
            screen.reads("0% of 100")
            q.put_many(range(25))
            screen.reads("25% of 100")
            screen.resize(132, 40)
            os.kill(screen.process.pid, signal.SIGWINCH)
            screen.reads("loading segments 1")  # said in full where there is place
        if way == "sigterm":
            screen.process.terminate()
        else:
            screen.types(b"q" if way == "q" else b"\x03")
        assert screen.ends() == 0
        assert "\x1b[?1049l" in screen.written  # the other screen is left
        assert "\x1b[?25h" in screen.written  # the cursor is back
        assert "Traceback" not in screen.written
        assert termios.tcgetattr(screen.inner) == screen.before


def test_lines_of_json_come_one_a_look(queue_path: str) -> None:
    watch = started("watch", queue_path, "--json", "--interval", 0.05)
    try:
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["state"] == "missing"
        with library.Queue(queue_path) as q:
            q.put_many(range(5))
            for line in watch.stdout:
                if (seen := json.loads(line))["state"] == "open" and seen["items"]:
                    break
            assert (seen["items"], seen["processes"][0]["pid"]) == (5, os.getpid())
        watch.stdout.close()  # whoever reads it goes away
        assert watch.wait(PATIENCE) == 141
    finally:
        watch.kill()
        watch.communicate()


def test_once_looks_for_an_interval_and_ends(queue_path: str, tmp_path: Path) -> None:
    with library.Queue(queue_path, capacity=10) as q:
        q.put_many(range(3))
    assert b"30% of 10" in segq("watch", queue_path, "--once", "--interval", 0.05).stdout
    seen = json.loads(segq("watch", queue_path, "--once", "--json", "--interval", 0.05).stdout)
    assert seen["items"] == 3
    assert seen["interval"] >= 0.05
    ended = segq("watch", tmp_path / "none", "--once", "--interval", 0.05)
    assert (ended.returncode, ended.stdout) == (3, b"")
    assert b"there is no queue" in ended.stderr


def test_an_address_without_an_engine_is_said_to_be_one() -> None:
    ended = segq("watch", "carrier-pigeon://roof/jobs", "--once", "--interval", 0.05)
    assert (ended.returncode, ended.stdout) == (3, b"")
    assert b"no engine for carrier-pigeon" in ended.stderr


def test_a_pipe_gets_a_line_a_look(queue_path: str) -> None:
    library.Queue(queue_path).close()
    watch = started("watch", queue_path, "--interval", 0.05)
    try:
        assert watch.stdout is not None
        assert all(b"put 0/s  get 0/s  ack 0/s  backlog 0" in watch.stdout.readline() for _ in range(3))
        watch.send_signal(signal.SIGINT)
        assert watch.wait(PATIENCE) == 130
    finally:
        watch.kill()
        watch.communicate()
