"""Watching a queue: what the screen, the metrics and the page show, gathered once and without changing anything.

>>> from segq.watch import Watcher
>>> Watcher("/nowhere/at/all").look().state
'missing'
"""

from segq.watch.snapshot import Event, Flow, LabelView, ProcessView, Snapshot
from segq.watch.watcher import Watcher

__all__ = ["Event", "Flow", "LabelView", "ProcessView", "Snapshot", "Watcher"]
