"""Operations one after the other in a thread of the queue's, and what a caller has of them meanwhile."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

V = TypeVar("V")
_LOOK_AGAIN = 0.1  # seconds; nobody sleeps longer on a wake that was lost


class Outcome(Generic[V]):
    """What one operation comes to."""

    __slots__ = ("done", "error", "value")

    value: V
    error: BaseException | None

    def __init__(self) -> None:
        self.done = threading.Lock()  # held until it is there
        self.done.acquire()


class Reply(Generic[V]):
    """The outcome of one operation, which can be had once."""

    __slots__ = ("_outcome", "_taking")

    _outcome: Outcome[V] | None
    _taking: threading.Lock

    def __init__(self) -> None:
        raise TypeError(f"No constructor defined for {type(self).__name__}")

    @classmethod
    def to(cls, outcome: Outcome[V]) -> Self:
        reply = cls.__new__(cls)
        reply._wait_for(outcome)  # noqa: SLF001 - there is no constructor
        return reply

    def _wait_for(self, outcome: Outcome[V]) -> None:
        self._outcome, self._taking = outcome, threading.Lock()

    @property
    def is_ready(self) -> bool:
        """Whether the outcome is there to be had."""
        outcome = self._outcome
        return outcome is not None and not outcome.done.locked()

    def try_get(self) -> V | None:
        """The outcome, if it is there; raises what went wrong. RuntimeError if it was had before."""
        outcome = self._outcome
        return None if outcome is not None and outcome.done.locked() else self._take()

    def get(self) -> V:
        """The outcome, as soon as it is there; raises what went wrong. RuntimeError if it was had before."""
        outcome = self._outcome
        if outcome is not None:
            with outcome.done:
                pass
        return self._take()

    def _take(self) -> V:
        with self._taking:
            outcome, self._outcome = self._outcome, None
        if outcome is None:
            raise RuntimeError("Failed to get response: it was had before")
        if outcome.error is not None:
            raise outcome.error
        return outcome.value


Operation = tuple[Callable[[], Any], Outcome[Any]]


class Operations:
    """At most so many wait for their turn; who wants another one to waits itself."""

    def __init__(self, most: int) -> None:
        self._most, self._pid = max(1, most), 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._fewer = threading.Condition(self._lock)

    def begin(self, work: Callable[[], V]) -> Outcome[V]:
        """What `work` will return or raise."""
        if self._pid != os.getpid():
            self._start()
        outcome: Outcome[V] = Outcome()
        with self._lock:
            while self._queue.qsize() >= self._most:
                self._fewer.wait(_LOOK_AGAIN)
            self._queue.put((work, outcome))
        return outcome

    def _start(self) -> None:
        """In a forked child there is no thread, and what its parent had in flight is the parent's."""
        if self._pid and self._pid != os.getpid():
            self._begin_anew()
        with self._lock:
            if self._pid != os.getpid():
                self._thread = threading.Thread(target=_run, args=(self._queue, self._most, self._fewer), daemon=True)
                self._thread.name = "segq-rocksq"
                self._thread.start()
                self._pid = os.getpid()

    def __len__(self) -> int:
        return self._queue.qsize()

    def close(self) -> None:
        """What was begun is finished."""
        if self._thread is not None and self._pid == os.getpid() and self._thread is not threading.current_thread():
            self._queue.put(None)
            self._thread.join()


def _run(operations: queue.SimpleQueue[Operation | None], most: int, fewer: threading.Condition) -> None:
    while (operation := operations.get()) is not None:
        if operations.qsize() == most - 1:
            with fewer:
                fewer.notify_all()
        work, outcome = operation
        try:
            outcome.value = work()
            outcome.error = None
        except BaseException as error:  # goes to whoever asks
            outcome.error = error
        outcome.done.release()
        del operation, work, outcome
