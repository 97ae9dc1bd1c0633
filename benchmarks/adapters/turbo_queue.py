"""turbo-queue: batches as SQLite files, renamed from load to ready to unload.

The names of files made within the same second do not sort as they were made, so it promises no order.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError
from benchmarks.adapters.polling import waiting
from benchmarks.payload import STOP

BATCH = 1000


@dataclass(frozen=True, slots=True)
class _Ticket:
    root: str

    def open(self) -> Handle:
        turbo_queue = _imported()
        enqueue, dequeue = turbo_queue.Enqueue(), turbo_queue.Dequeue()
        for end in (enqueue, dequeue):
            end.root_path, end.queue_name = self.root, "queue"
            end.max_events_per_file, end.max_ready_files = BATCH, 1 << 30
        begun: list[Any] = []
        batch: Iterator[Any] = iter(())

        def put(item: bytes) -> None:
            if not begun:  # only who puts has a file open
                enqueue.start()
                begun.append(enqueue)
            enqueue.add(item.decode("latin-1"))
            if item == STOP:  # nothing follows that would fill its batch
                enqueue._roll_next_batch()

        def take() -> Any:
            nonlocal batch
            item = next(batch, None)
            if item is None:
                batch = dequeue.get()
                item = next(batch, None)
            return None if item is None else item.encode("latin-1")

        def close() -> None:
            if begun and enqueue.row_count:
                enqueue._roll_next_batch()
            with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
                enqueue._close_db()
            enqueue.loop.close()  # it makes one, and leaves it open

        return Handle(put=put, get=waiting(take), close=close, drained=lambda: enqueue.get_ready_length() == 0)


@dataclass(frozen=True, slots=True)
class TurboQueue:
    """`Enqueue` and `Dequeue` with batches of a thousand; it carries JSON, so bytes travel as text."""

    version: str
    name: str = "turbo-queue"
    survives: str = "batches that were full; not the one being filled"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        (directory / "turbo" / "queue").mkdir(parents=True)
        return _Ticket(str(directory / "turbo"))


def _imported() -> Any:
    """The package, kept from logging into the working directory and from having multiprocessing report every process."""
    logging.getLogger().addHandler(logging.NullHandler())  # with a handler, basicConfig does nothing
    import turbo_queue

    multiprocessing.get_logger().setLevel(logging.WARNING)
    return turbo_queue


def adapter() -> TurboQueue:
    try:
        _imported()
    except ImportError as error:
        raise UnavailableError(f"turbo-queue is not installed ({error}): pip install turbo-queue") from error
    return TurboQueue(version("turbo-queue"))
