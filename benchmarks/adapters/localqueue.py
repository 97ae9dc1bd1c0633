"""localqueue: jobs in SQLite behind a Rust extension, with leases and acknowledgement."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError

LONG = 3600.0


class _AsItIs:
    """Bytes are bytes."""

    def dumps(self, item: bytes, /) -> bytes:
        return item

    def loads(self, data: bytes, /) -> bytes:
        return data


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str

    def open(self) -> Handle:
        from localqueue import SimpleQueue  # type: ignore[import-not-found, unused-ignore]

        queue: Any = SimpleQueue(self.path, serializer=_AsItIs())

        def take() -> Any:
            job = queue.get(timeout=LONG)
            queue.ack(job)
            return job.data

        def drained() -> bool:
            counts = queue.stats()
            return not counts["ready"] and not counts["processing"]

        return Handle(put=queue.put, get=take, receive=take, put_many=queue.put_many, close=queue.close, drained=drained)


@dataclass(frozen=True, slots=True)
class LocalQueue:
    """`localqueue.SimpleQueue` with its default durability."""

    version: str
    name: str = "localqueue"
    survives: str = "every item whose put returned"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        ticket = _Ticket(str(directory / "jobs"))
        ticket.open().close()
        return ticket


def adapter() -> LocalQueue:
    try:
        import localqueue  # noqa: F401 - whether it can be
    except ImportError as error:
        raise UnavailableError(f"localqueue is not installed ({error}): pip install localqueue") from error
    return LocalQueue(version("localqueue"))
