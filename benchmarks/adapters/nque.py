"""nque: a ring in LMDB, one transaction for each call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError
from benchmarks.adapters.polling import PAUSE, waiting

MOST_ITEMS, MOST_BYTES = 1_000_000, 200
MOST_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str

    def open(self) -> Handle:
        from nque import FifoBasicQueueLmdb  # type: ignore[import-not-found, unused-ignore]
        from nque.exceptions import TryLater  # type: ignore[import-not-found, unused-ignore]

        logging.getLogger("nque").setLevel(logging.CRITICAL)
        queue = FifoBasicQueueLmdb(self.path, items_count_max=MOST_ITEMS, item_bytes_max=MOST_BYTES)

        def again(call: Callable[[Any], Any], argument: Any) -> Any:
            while True:
                try:
                    return call(argument)
                except TryLater:
                    time.sleep(PAUSE)

        def take() -> Any:
            found = again(queue.pop, 1)
            return found[0] if found else None

        return Handle(
            put=lambda item: again(queue.put, [item]),
            get=waiting(take),
            put_many=lambda items: again(queue.put, items),
            get_many=lambda most: waiting(lambda: again(queue.pop, most) or None)(),
            close=lambda: None,
            drained=lambda: not again(queue.get, 1),
        )


@dataclass(frozen=True, slots=True)
class Nque:
    """`nque.FifoBasicQueueLmdb`, which has to be told its size: a million items of up to 200 bytes."""

    version: str
    name: str = "nque"
    survives: str = "every item whose put returned, loss of power included"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        return _Ticket(str(directory / "lmdb"))


def adapter() -> Nque:
    try:
        import nque  # noqa: F401 - whether it can be
    except ImportError as error:
        raise UnavailableError(f"nque is not installed ({error}): pip install nque") from error
    return Nque(version("nque"))
