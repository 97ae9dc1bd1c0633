"""Watching a queue: what the screen, the metrics and the page show, gathered once and without changing anything.

>>> from segq.watch import Watcher
>>> Watcher("/nowhere/at/all").look().state
'missing'
"""

from __future__ import annotations

import os

from segq.engines.address import parse
from segq.watch.remote import RemoteWatcher
from segq.watch.snapshot import Event, Flow, LabelView, ProcessView, Snapshot
from segq.watch.watcher import Watcher

__all__ = ["Event", "Flow", "LabelView", "ProcessView", "RemoteWatcher", "Snapshot", "Watcher", "watcher_of"]


def watcher_of(queue: str | os.PathLike[str]) -> Watcher | RemoteWatcher:
    """Who watches this directory, or what is at this address."""
    where = parse(queue)
    return Watcher(where.path) if where.scheme == "segq" else RemoteWatcher(where.text)
