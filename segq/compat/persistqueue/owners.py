"""Who is alive: a handle keeps a file locked, and the kernel lets go of it when the handle's process dies.

What a handle has taken out of a database and not finished is noted there under its owner's name. Whoever gets the lock on an
owner's file, or finds it gone, has proved that its notes are nobody's any more. A process id proves nothing: it may be
another's by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid


class Owner:
    """This handle, while `close` was not called and its process lives."""

    def __init__(self, directory: str) -> None:
        self.name = uuid.uuid4().hex
        self._directory = directory
        self._descriptor = self._lock()

    def _lock(self) -> int:
        path = os.path.join(self._directory, self.name)
        while True:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # the last one to leave has just removed the directory
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
            os.close(descriptor)  # somebody swept it away between its creation and its lock

    def close(self) -> None:
        bury(self._directory, self.name)
        self.forget()

    def forget(self) -> None:
        """In a forked child: the file is the parent's, who still has it locked."""
        os.close(self._descriptor)


def is_dead(directory: str, name: str) -> bool:
    """Whether the owner `name` has ended. Not for one's own name."""
    try:
        descriptor = os.open(os.path.join(directory, name), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def bury(directory: str, name: str) -> None:
    """Removes the file of an owner that has ended, and the directory with the last one."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(directory, name))
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def sweep(directory: str) -> None:
    """Removes the files of all who died without notes in the database."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            if is_dead(directory, name):
                bury(directory, name)
