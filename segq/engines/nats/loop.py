"""The event loop on which all NATS handles of this process work, in one background thread.

A forked child makes its own on first use and keeps its parent's where nothing collects it: the epoll instance and the
sockets are shared with the parent, and closing them in the child would reach into it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    """An event loop in a daemon thread; coroutines are handed to it from any other thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="segq nats", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it to its end. What interrupts the wait (Ctrl-C) cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


_current: Loop | None = None
_inherited: list[object] = []
_choosing = threading.Lock()  # held for microseconds; threads that use their first NATS handle at the same moment wait


def of_process() -> Loop:
    """This process's loop, started if there is none yet."""
    global _current  # noqa: PLW0603
    found = _current
    if found is None:
        with _choosing:
            if _current is None:
                _current = Loop()
            found = _current
    return found


def end() -> None:
    """At the end of the process: the thread ends, so that no warning about a running loop is left."""
    global _current
    found, _current = _current, None
    if found is not None:
        found.stop()


def park(inherited: object) -> None:
    """Keeps something of the parent's from being collected in a forked child."""
    _inherited.append(inherited)


def _after_fork_in_child() -> None:
    global _current, _choosing  # noqa: PLW0603
    _choosing = threading.Lock()
    if _current is not None:
        park(_current)
        _current = None


os.register_at_fork(after_in_child=_after_fork_in_child)
