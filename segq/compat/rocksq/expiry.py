"""`expired`: whether elements ran out of time before a label had them, told once.

segq counts what a label missed, for good; how much of it the label was told is kept in a file beside the queue's directory, and
only written when something was missed. Counting takes a look at every segment, so it is done only where something can have been
missed: nothing unread can be older than the time to live while the label was known to have nothing unread, or nothing so old.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from segq import Subscription


class Expiries:
    """Of one label, in one process."""

    def __init__(self, path: str, label: str, ttl: float) -> None:
        self._file, self._label, self._ttl = _file(path), label, ttl
        self._safe_until = 0.0  # nothing can have expired unread before

    def told(self, subscription: Subscription, *, drained: bool, since: float) -> bool:
        """Whether there is something to tell. `drained`: nothing was unread at `since` (monotonic seconds)."""
        expired = False
        if time.monotonic() >= self._safe_until:
            stats = subscription.stats()
            told = _read(self._file)
            expired = stats.missed > told.get(self._label, 0)
            if stats.missed != told.get(self._label, 0):
                told[self._label] = stats.missed
                _write(self._file, told)
            self._safe_until = time.monotonic() + self._ttl - stats.lag_seconds
        if drained:
            self._safe_until = since + self._ttl
        return expired


def forget_label(path: str, label: str) -> None:
    """It is removed; one of the same name begins anew."""
    told = _read(_file(path))
    if told.pop(label, None) is not None:
        _write(_file(path), told)


def forget_expiries(path: str) -> None:
    """The queue is removed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_file(path))


def _file(path: str) -> str:
    return os.path.abspath(path) + ".expired.json"


def _read(file: str) -> dict[str, int]:
    try:
        with open(file, encoding="utf-8") as text:
            return {str(label): int(count) for label, count in json.load(text).items()}
    except (OSError, ValueError, AttributeError, TypeError):  # not there, or not ours: tell once more rather than not at all
        return {}


def _write(file: str, told: dict[str, int]) -> None:
    unfinished = f"{file}.{os.getpid()}"
    with open(unfinished, "w", encoding="utf-8") as text:
        json.dump(told, text)
    os.replace(unfinished, file)
