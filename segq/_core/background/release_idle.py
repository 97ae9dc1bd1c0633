"""The handle's own thread that gives back what its process holds but does not use.

Two things are taken in advance for speed: a consumer claims several items at a time, and a producer far from a full queue
reserves room for many. Neither can be taken away by others without a lock in the hot path; so the handle gives them back
itself: claimed items that were not handed out within `HOLD_SECONDS` (the consumer fell into a long task), and unused room at
once when another producer asks for it (`RECALL_WAKE`) or when it lay unused as long.

The thread sleeps while nothing is held, and is started when something is held for the first time. It needs the GIL: a
process that computes in C without letting go of it gives back when it is done.
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
    """Something that takes in advance."""

    def holding(self) -> bool: ...
    def give_back(self, *, recalled: bool) -> None: ...


class Keeper:
    """One for each handle; knows its holders by weak reference, so that it keeps no forgotten handle alive."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._holders: list[weakref.ref[Holder]] = []
        self._thread: threading.Thread | None = None
        self._work = threading.Event()
        self._stopped = False

    def add(self, holder: Holder) -> None:
        self._holders.append(weakref.ref(holder, self._forget))

    def attend(self) -> bool:
        """Something is held now. False if there is nobody to see to it: then it must not be held."""
        if self._work.is_set() or self._stopped:
            return True
        self._work.set()
        if self._thread is None:
            self._thread = started("segq-keeper", _run, weakref.ref(self), self._work)
            if self._thread is None:
                self._work.clear()
        return self._thread is not None

    def stop(self) -> None:
        """Returns once the thread does nothing any more."""
        self._stopped = True
        self._work.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            recall(self._index)  # it may be asleep there
            thread.join()

    def _forget(self, _holder: object) -> None:
        self._stopped = True
        self._work.set()

    def turn(self) -> bool:
        """One round; False when the thread is to end."""
        if self._stopped:
            return False
        holders = [holder for ref in self._holders if (holder := ref()) is not None]
        if not any(holder.holding() for holder in holders):
            self._work.clear()
            if not any(holder.holding() for holder in holders):  # held between the look and the clear?
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
    """A daemon thread; None if there can be no more of them just now (a limit, or out of memory).

    No reason to fail: whoever asks for it may have items in hand.
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
    """Asks all handles to give back what they hold and do not use."""
    index.recalls.ring(EVERYBODY)
