"""RocksQ's capacity: an argument of whoever opens the queue, not a setting of the queue.

So it cannot be segq's, which is stored. Whoever pushes counts what is there, one at a time over all processes: under the
kernel's lock on the directory's `queue.json`, which a death lets go of. Held for some ten microseconds.
"""

from __future__ import annotations

import fcntl
import os
import threading
from types import TracebackType

NO_LIMIT = 1_000_000_000  # RocksQ's default; nobody counts up to there


class PushLock:
    """One at a time, of threads and processes."""

    def __init__(self, path: str) -> None:
        self._file = os.path.join(path, "queue.json")
        self._threads = threading.Lock()
        self._descriptor, self._pid = -1, 0

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            if self._pid != os.getpid():  # a forked child would share its parent's lock
                self.close()
                self._descriptor, self._pid = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC), os.getpid()
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        descriptor, self._descriptor, self._pid = self._descriptor, -1, 0
        if descriptor >= 0:
            os.close(descriptor)
