"""A background thread of a handle that removes expired items even when no process puts or gets.

Only handles that know of items with a time to live have this thread. It looks twenty times in the shortest time to live, so a
segment is gone within a tenth of that time after its last item expired. One handle looks for all.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import Protocol

from segq._core.background.release_idle import started
from segq._core.base.errors import NotAQueueError, QueueError
from segq._core.directory.catalog import Catalog

log = logging.getLogger("segq")

_LOOKS, _SOONEST, _LATEST = 20, 0.01, 1.0


class Holder(Protocol):
    """An object that keeps a segment open."""

    def let_go_of_expired(self) -> None: ...


class Tidier:
    """The expiry thread of one handle."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._holder: weakref.ref[Holder] | None = None
        self._seconds = _LATEST
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, holder: Holder) -> None:
        self._holder = weakref.ref(holder)

    def attend(self, ttl: float) -> None:
        """Tells the thread that there are items that expire after `ttl` seconds; starts it if necessary."""
        self._seconds = max(_SOONEST, min(self._seconds, ttl / _LOOKS))
        if self._thread is None and not self._stop.is_set():
            self._thread = started("segq-tidier", _run, weakref.ref(self), self._stop)

    @property
    def attending(self) -> bool:
        """Whether the thread runs; False also if it could not be started."""
        return self._thread is not None

    def turn(self) -> float:
        """Looks once; returns the seconds until the next look."""
        try:
            holder = self._holder() if self._holder is not None else None
            if holder is not None:
                holder.let_go_of_expired()
            if self._catalog.index.turn_to_tidy(self._seconds / 2):
                self._catalog.tidy()
        except NotAQueueError:  # the queue was removed
            self._stop.set()
        except QueueError as error:
            log.warning("%s: what has expired cannot be removed yet: %s", self._catalog.queue, error)
        return self._seconds

    def stop(self) -> None:
        """Stops the thread; returns when it has ended."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


def _run(reference: weakref.ref[Tidier], stop: threading.Event) -> None:
    seconds = _SOONEST
    while not stop.wait(seconds):
        tidier = reference()
        if tidier is None:
            return
        seconds = tidier.turn()
        del tidier
