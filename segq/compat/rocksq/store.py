"""The directory: its errors as RocksQ's, its size, its removal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import segq
from segq.compat.rocksq.arguments import text
from segq.compat.rocksq.expiry import forget_expiries


@contextlib.contextmanager
def failures(what: str) -> Iterator[None]:
    """RocksQ's only error is RuntimeError; segq's is behind it, as its cause."""
    try:
        yield
    except (segq.QueueError, OSError) as error:
        raise RuntimeError(f"{what}: {error}") from error


def disk_size(path: str) -> int:
    """The bytes that the files of a queue take on the disk."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # others go on meanwhile
                status = os.lstat(os.path.join(directory, name))
                total += min(status.st_size, status.st_blocks * 512) if status.st_blocks else status.st_size
    return total


def remove_queue(queue_name: str) -> None:
    """Removes the `PersistentQueueWithCapacity` at this path, which nobody may have open; nothing happens if there is none."""
    with failures("Failed to remove persistent queue"):
        _remove(text("queue_name", queue_name))


def remove_mpmc_queue(queue_name: str) -> None:
    """Removes the `MpmcQueue` at this path, which nobody may have open; nothing happens if there is none."""
    with failures("Failed to remove mpmc queue"):
        path = text("queue_name", queue_name)
        _remove(path)
        forget_expiries(path)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.listdir(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        segq.remove(path)
