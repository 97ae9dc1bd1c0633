"""How full a queue certainly was, going by what its users reported and when."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from accounts import events


def stored_at_most(reports: Iterable[str | os.PathLike[str]]) -> tuple[int, Counter[str]]:
    """The most items that were certainly stored at one moment, and what the reports count.

    Certainly stored: its put had returned, and no ack of it (or get that may have taken it) had begun.
    """
    changes: list[tuple[int, int]] = []
    counts: Counter[str] = Counter()
    for report in reports:
        said = events(report)
        begun = 0
        for event in said:
            counts[event.what] += len(event.ids)
            if event.what == "stored":
                changes.append((event.when, len(event.ids)))
            elif event.what == "acking":
                changes.append((event.when, -1))
            elif event.what == "getting":
                begun = event.when
            elif event.what == "got":
                changes.append((begun, -len(event.ids)))
        if said and said[-1].what == "getting":
            changes.append((said[-1].when, -int(said[-1].ids[0])))
    most = level = 0
    for _, change in sorted(changes):
        level += change
        most = max(most, level)
    return most, counts
