"""A background thread of a handle that gives back claims and reservations that its process does not use.

For speed, a consumer claims several items at a time, and a producer far from a full queue reserves room for many. Other
processes could not take these away without a lock in the hot path, so the handle gives them back itself. It frees claimed
items that were not handed out within `HOLD_SECONDS` (the consumer is in a long task). It frees unused room after the same
time, or at once when another producer asks for it (`RECALL_WAKE`).

The handle starts the thread when it first holds something; the thread sleeps while the handle holds nothing. It needs the
GIL: a process that computes in C without releasing the GIL gives back when it has finished.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from segq._core.directory.index import EVERYBODY, Index

log = logging.getLogger("segq")

HOLD_SECONDS = 0.05


class Holder(Protocol):
    """An object that claims or reserves in advance."""

    def holding(self) -> bool: ...
    def give_back(self, *, recalled: bool) -> None: ...


class Keeper:
    """The thread of one handle. It keeps weak references to its holders, so it keeps no dropped handle alive."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._holders: list[weakref.ref[Holder]] = []
        self._thread: threading.Thread | None = None
        self._work = threading.Event()
        self._stopped = False

    def add(self, holder: Holder) -> None:
        self._holders.append(weakref.ref(holder, self._forget))

    def attend(self) -> bool:
        """Tells the thread that something is held. False if no thread can be started: then nothing may be held."""
        if self._work.is_set() or self._stopped:
            return True
        self._work.set()
        if self._thread is None:
            self._thread = started("segq-keeper", _run, weakref.ref(self), self._work)
            if self._thread is None:
                self._work.clear()
        return self._thread is not None

    def stop(self) -> None:
        """Stops the thread; returns when it has ended."""
        self._stopped = True
        self._work.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            recall(self._index)  # wakes the thread if it sleeps there
            thread.join()

    def _forget(self, _holder: object) -> None:
        self._stopped = True
        self._work.set()

    def turn(self) -> bool:
        """Does one round; returns False when the thread must end."""
        if self._stopped:
            return False
        holders = [holder for ref in self._holders if (holder := ref()) is not None]
        if not any(holder.holding() for holder in holders):
            self._work.clear()
            if not any(holder.holding() for holder in holders):  # was something taken between the check and the clear?
                return True
            self._work.set()
        recalls = self._index.recalls
        heard = recalls.listen()
        if not self._stopped:
            recalls.sleep(heard, HOLD_SECONDS)
        recalled = recalls.rung_since(heard)
        for holder in holders:
            if not self._stopped:
                holder.give_back(recalled=recalled)
        return True


def started(name: str, target: Callable[..., None], *arguments: Any) -> threading.Thread | None:
    """Starts a daemon thread; None if no thread can be started now (a limit, or out of memory).

    This is no reason to raise: the caller may hold items.
    """
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        log.warning("%s: %s", name, error)
        return None
    return thread


def _run(reference: weakref.ref[Keeper], work: threading.Event) -> None:
    while True:
        work.wait()
        keeper = reference()
        if keeper is None or not keeper.turn():
            return
        del keeper


def recall(index: Index) -> None:
    """Asks all handles to give back the claims and room that they do not use."""
    index.recalls.ring(EVERYBODY)
