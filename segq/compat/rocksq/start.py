"""Where a label begins."""

from __future__ import annotations

import enum


class StartPosition(enum.IntEnum):
    """Where `next` begins for a label that is not there yet: with the oldest element, or with the newest."""

    Oldest = 0
    Newest = 1

    def __repr__(self) -> str:
        return f"StartPosition.{self.name}"

    __str__ = __repr__


def checked_start(start_position: object) -> str:
    """What segq calls it."""
    if not isinstance(start_position, StartPosition):
        kind = type(start_position).__name__
        raise TypeError(f"argument 'start_position': '{kind}' object cannot be converted to 'StartPosition'")
    return start_position.name.lower()
