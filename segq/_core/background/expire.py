"""The handle's own thread that sees to it that what has expired goes, though nobody puts or gets.

It is there only in handles that know of items with a time to live, and looks twenty times in the shortest of these, so that a
segment is gone within a tenth of it after its last item expired. One handle looks on behalf of all.
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
    """Something that keeps a segment open."""

    def let_go_of_expired(self) -> None: ...


class Tidier:
    """One for each handle."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._holder: weakref.ref[Holder] | None = None
        self._seconds = _LATEST
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, holder: Holder) -> None:
        self._holder = weakref.ref(holder)

    def attend(self, ttl: float) -> None:
        """From now on there are items that expire after this many seconds."""
        self._seconds = max(_SOONEST, min(self._seconds, ttl / _LOOKS))
        if self._thread is None and not self._stop.is_set():
            self._thread = started("segq-tidier", _run, weakref.ref(self), self._stop)

    @property
    def attending(self) -> bool:
        """Whether there is a thread; none could be started before, perhaps."""
        return self._thread is not None

    def turn(self) -> float:
        """One look; returns the seconds until the next."""
        try:
            holder = self._holder() if self._holder is not None else None
            if holder is not None:
                holder.let_go_of_expired()
            if self._catalog.index.turn_to_tidy(self._seconds / 2):
                self._catalog.tidy()
        except NotAQueueError:  # removed
            self._stop.set()
        except QueueError as error:
            log.warning("%s: what has expired cannot be removed yet: %s", self._catalog.queue, error)
        return self._seconds

    def stop(self) -> None:
        """Returns once the thread does nothing any more."""
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
