"""The thread that sleeps at the bells of queues for all the coroutines of this process, and tells their loops.

A bell is rung by a futex wake in a mapped file, which no event loop can sleep on. So one thread sleeps on the words of up to
127 bells at once, and on a word of its own, by which it is told of another bell. It calls back once for each watch, and then
forgets it: while nobody waits, nobody has to be woken, and a put costs no system call.

A ring wakes one sleeper. If it woke this thread on behalf of somebody who is gone by now, it is passed on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from segq._core.directory.index import Bell
from segq._core.system.futex import MOST_WORDS, Word, wait_any

_FOR_EVER = 1e6  # seconds; whoever waits looks again by itself, at least each second


class Watcher:
    """One thread's worth of bells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[Bell, tuple[int, Callable[[], None] | None]] = {}
        self._halves = memoryview(bytearray(8)).cast("I")
        self._told = Word(self._halves, 0)
        self._thread: threading.Thread | None = None

    def watch(self, bell: Bell, heard: int, rung: Callable[[], None]) -> bool:
        """Calls `rung`, once, in this thread, when `bell` is rung after `heard`; False if there is no place for another bell.

        It may raise RuntimeError: then there is nobody left to tell.
        """
        with self._lock:
            if len(self._watched) >= MOST_WORDS - 1 and bell not in self._watched:
                return False
            self._watched[bell] = (heard, rung)
            self._halves[0] = (self._halves[0] + 1) & 0xFFFFFFFF
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="segq-watcher", daemon=True)
                self._thread.start()
        self._told.wake(1)
        return True

    def forget(self, bell: Bell) -> None:
        """Nobody waits there any more. The thread is let sleep: should the bell wake it all the same, it passes that on."""
        with self._lock:
            if bell in self._watched:
                self._watched[bell] = (self._watched[bell][0], None)

    def _run(self) -> None:
        while True:
            with self._lock:
                told = self._halves[0]
                rung = {bell: call for bell, (heard, call) in self._watched.items() if bell.rung_since(heard)}
                for bell in rung:
                    del self._watched[bell]
                words = [self._told, *(bell.word for bell in self._watched)]
                expected = [told, *(heard for heard, _ in self._watched.values())]
            for bell, call in rung.items():
                bell.awake()
                self._tell(bell, call)
            if not rung:
                wait_any(words, expected, _FOR_EVER)

    @staticmethod
    def _tell(bell: Bell, call: Callable[[], None] | None) -> None:
        if call is not None:
            try:
                call()
            except RuntimeError:  # its loop is closed
                pass
            else:
                return
        bell.ring()


_watchers: list[Watcher] = []
_adding = threading.Lock()


def watch(bell: Bell, heard: int, rung: Callable[[], None]) -> None:
    """See `Watcher.watch`."""
    for watcher in _watchers:
        if watcher.watch(bell, heard, rung):
            return
    with _adding:
        _watchers.append(Watcher())
        _watchers[-1].watch(bell, heard, rung)


def forget(bell: Bell) -> None:
    """See `Watcher.forget`."""
    for watcher in _watchers:
        watcher.forget(bell)


def _after_fork_in_child() -> None:
    """The threads are the parent's, and so are their sleepers."""
    global _adding  # noqa: PLW0603
    _watchers.clear()
    _adding = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
