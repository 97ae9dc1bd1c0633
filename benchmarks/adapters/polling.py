"""For contestants whose `get` does not wait: it is asked again until there is something."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PAUSE = 0.0001


def waiting(take: Callable[[], Any], nothing: object = None) -> Callable[[], Any]:
    """`take`, asked until it returns something else than `nothing`."""

    def get() -> Any:
        while (item := take()) is nothing:
            time.sleep(PAUSE)
        return item

    return get
