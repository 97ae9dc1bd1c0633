"""faster-fifo: a ring of bytes in shared memory behind a C++ mutex."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError

RING = 64 << 20  # bytes: it cannot grow, and who puts waits when it is full
LONG = 3600.0


@dataclass(frozen=True, slots=True)
class _Ticket:
    queue: Any

    def open(self) -> Handle:
        import faster_fifo_reduction  # type: ignore[import-not-found, unused-ignore]  # noqa: F401 - registers how it is sent

        queue = self.queue
        return Handle(
            put=lambda item: queue.put(item, True, LONG),
            get=lambda: queue.get(True, LONG),
            put_many=lambda items: queue.put_many(items, True, LONG),
            get_many=lambda most: queue.get_many(True, LONG, most),
            close=lambda: None,
            drained=queue.empty,
        )


@dataclass(frozen=True, slots=True)
class FasterFifo:
    """`faster_fifo.Queue`, with its own pickling."""

    version: str
    name: str = "faster-fifo"
    survives: str = "nothing: items are in memory"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        import faster_fifo  # type: ignore[import-not-found, unused-ignore]
        import faster_fifo_reduction  # noqa: F401 - registers how it is sent

        return _Ticket(faster_fifo.Queue(max_size_bytes=RING))


def adapter() -> FasterFifo:
    try:
        import faster_fifo  # noqa: F401 - whether it can be
    except ImportError as error:
        raise UnavailableError(f"faster-fifo is not installed ({error}): pip install faster-fifo") from error
    return FasterFifo(version("faster-fifo"))
