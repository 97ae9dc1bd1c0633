"""What happened between two looks, told by what is different."""

from __future__ import annotations

import os

import psutil

from segq._core.base.errors import QueueError
from segq._core.format import format as fmt
from segq._core.system import fs
from segq.watch.snapshot import Event, ProcessView, Snapshot

_MOST_REASON = 300


class Events:
    """Finds out what is new. What was there when the watch began is not."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._set_aside: set[str] | None = None

    def set_aside(self) -> int:
        """How many things lie in quarantine."""
        return len(self._entries())

    def between(self, before: Snapshot | None, now: Snapshot) -> tuple[Event, ...]:
        told = self._quarantine(now.time)
        if before is not None:
            told += self._deaths(now, {(each.pid, each.started) for each in before.processes if not each.alive})
            told += self._rescues(before, now)
            told += _labels(before, now)
            if now.shutdown and not before.shutdown:
                told.append(Event(time=now.time, kind="shutdown", text="the queue was shut down"))
        return tuple(told)

    def _deaths(self, now: Snapshot, known: set[tuple[int, float]]) -> list[Event]:
        found = [each for each in now.processes if not each.alive and (each.pid, each.started) not in known]
        return [Event(time=now.time, kind="died", text=f"{_who(each)} died, {_held(each)}") for each in found]

    def _rescues(self, before: Snapshot, now: Snapshot) -> list[Event]:
        rescues, again = now.rescues - before.rescues, now.redelivered - before.redelivered
        if rescues > 0:
            here = {(each.pid, each.started) for each in now.processes}
            left = [each for each in before.processes if (each.pid, each.started) not in here and not _runs(each.pid)]
            back = f"{again:,} {_items(again)} will be delivered again" if again > 0 else "it held nothing"
            whose = f"rescued what process {', '.join(str(each.pid) for each in left)} held"
            if not left:
                whose = "rescued what a dead process held" if rescues == 1 else f"rescued what {rescues:,} dead processes held"
            text = f"{whose}: {back}" + (f" ({left[0].command})" if len(left) == 1 else "")
            return [Event(time=now.time, kind="rescue", text=text)]
        if again > 0:
            text = f"{again:,} {_items(again)} will be delivered again (leases ran out)"
            return [Event(time=now.time, kind="redelivery", text=text)]
        return []

    def _quarantine(self, now: float) -> list[Event]:
        entries = self._entries()
        new = sorted(entries - self._set_aside) if self._set_aside is not None else []
        self._set_aside = entries
        return [Event(time=now, kind="quarantine", text=f"{entry}: {self._reason(entry)}") for entry in new]

    def _entries(self) -> set[str]:
        try:
            listed = fs.listing(os.path.join(self._queue, fmt.QUARANTINE_DIR))
        except (FileNotFoundError, QueueError):
            return set()
        return {entry for entry in listed if not entry.endswith((".reason", ".new"))}

    def _reason(self, entry: str) -> str:
        try:
            data = fs.read_file(os.path.join(self._queue, fmt.QUARANTINE_DIR, f"{entry}.reason"), _MOST_REASON)
        except (FileNotFoundError, QueueError):
            return "no reason is noted"
        return data.decode(errors="replace").strip()


def _labels(before: Snapshot, now: Snapshot) -> list[Event]:
    old, new = {label.label for label in before.labels}, {label.label for label in now.labels}
    told = [Event(time=now.time, kind="label", text=f"label {label!r} began") for label in sorted(new - old)]
    return told + [Event(time=now.time, kind="label", text=f"label {label!r} was removed") for label in sorted(old - new)]


def _who(process: ProcessView) -> str:
    return f"process {process.pid} ({process.command})" if process.command else f"process {process.pid}"


def _held(process: ProcessView) -> str:
    return f"with {process.holds:,} {_items(process.holds)} in hand" if process.holds else "with nothing in hand"


def _items(count: int) -> str:
    return "item" if count == 1 else "items"


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.pid_exists(pid))
    except (ValueError, OverflowError):
        return False
