"""A terminal taken over for as long as a queue is watched: keys, its size, and giving it back whatever happens."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

from rich.console import Console
from rich.live import Live

from segq.watch.history import History
from segq.watch.remote import RemoteWatcher
from segq.watch.screen import Screen
from segq.watch.watcher import Watcher

_QUIT = frozenset(b"qQ\x03\x1b")


def show(watcher: Watcher | RemoteWatcher, console: Console, interval: float) -> None:
    """The full-screen view, until q, Escape, Ctrl-C, SIGTERM or SIGHUP."""
    history, screen = History(), Screen(console, interval)
    taken_over = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    with _wakened() as (bell, stopped), _keys() as keys, taken_over as live:
        due = time.monotonic()
        while not stopped:
            if time.monotonic() >= due:
                history.add(watcher.look())
                due = max(due + interval, time.monotonic())
            live.update(screen.draw(history), refresh=True)
            if _pressed(keys, bell, max(0.0, due - time.monotonic())):
                return


def _pressed(keys: int | None, bell: int, seconds: float) -> bool:
    """Waits for that long, a signal or a key; whether it was one to quit with."""
    ready, _, _ = select.select([bell] if keys is None else [bell, keys], [], [], seconds)
    if bell in ready:
        os.read(bell, 4096)
    if keys is None or keys not in ready:
        return False
    pressed = os.read(keys, 64)
    return not pressed or (pressed[0] in _QUIT and (pressed[0] != 0x1B or len(pressed) == 1))  # an arrow begins with Escape


@contextlib.contextmanager
def _wakened() -> Iterator[tuple[int, list[int]]]:
    """(a descriptor to read from after a signal, those signals that ask to end)"""
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)

    def resized(_number: int, _frame: FrameType | None) -> None:
        """The pipe wakes the loop, which draws anew."""

    handlers = {signal.SIGTERM: stop, signal.SIGHUP: stop, signal.SIGINT: stop, signal.SIGWINCH: resized}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    try:
        yield read_end, stopped
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_end)
        os.close(write_end)


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """The terminal's keys, one by one; None where standard input is no terminal."""
    if not sys.stdin.isatty():
        yield None
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
