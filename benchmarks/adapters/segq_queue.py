"""segq itself, through its public names only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str

    def open(self) -> Handle:
        import segq  # the children import it here, before the barrier

        queue = segq.Queue(self.path)

        def receive() -> Any:
            message = queue.receive()
            message.ack()
            return message.value

        def lease() -> tuple[Any, Callable[[], object]]:
            message = queue.receive()
            return message.value, message.ack

        return Handle(
            put=queue.put,
            get=queue.get,
            put_many=queue.put_many,
            get_many=queue.get_many,
            receive=receive,
            lease=lease,
            close=queue.close,
            drained=lambda: queue.qsize() == 0,
        )


@dataclass(frozen=True, slots=True)
class SegqQueue:
    """`segq.Queue` with default durability: what `put` accepted survives SIGKILL."""

    version: str
    made: bool = True
    name: str = "segq"
    survives: str = "every item whose put returned"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        import segq

        path = str(directory / "queue")
        if not self.made:
            return _Ticket(path)
        wanted: dict[str, Any] = {"capacity": settings.capacity}
        if settings.serializer is not None:
            wanted["serializer"] = settings.serializer
        # The settings are stored with the queue: the processes need only the path.
        segq.Queue(path, **wanted).close()
        return _Ticket(path)


def adapter() -> SegqQueue:
    try:
        from segq import Queue  # noqa: F401 - whether it can be
    except ImportError as error:
        raise UnavailableError(f"segq cannot be imported: {error}") from error
    try:
        return SegqQueue(version("segq"))
    except PackageNotFoundError:
        return SegqQueue("source tree")


def not_yet_made() -> SegqQueue:
    """The queue is created by who opens it first, with all defaults."""
    return replace(adapter(), made=False, name="segq, not yet made")
