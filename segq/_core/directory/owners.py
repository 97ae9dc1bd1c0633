"""Liveness of owners. An owner is one open handle of one process; it holds a kernel lock on `owners/<slot>`.

A process that obtains this lock has proven the owner dead. If the lock cannot be obtained, the owner counts as alive,
whatever else suggests otherwise (it fails closed, an idea of tox-dev/filelock). PIDs are recorded for people only and
decide nothing: the kernel reuses them, and they differ between containers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import sys
import time
import weakref
import zlib
from collections.abc import Iterator

from segq._core.base.errors import DamagedError, QueueError, StorageError, TooManyHandles
from segq._core.format import format as fmt
from segq._core.system import fs
from segq._core.system.locks import try_lock


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRecord:
    """What an owner wrote about itself, for people. `started` and `opened` are seconds since the epoch."""

    slot: int
    pid: int
    started: float
    opened: float
    command: str


_UNNAMED = ".new"  # suffix of an owner's file until it is locked
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@functools.cache
def boot_epoch() -> int:
    """A number that differs from boot to boot.

    Raises StorageError if it cannot be read now. A different number would look like power loss since the last put; recovery
    would then trust RocksDB's log, which may contain a put that failed.
    """
    try:
        return zlib.crc32(fs.read_file(_BOOT_ID).strip())
    except StorageError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
    except (FileNotFoundError, DamagedError):  # macOS, or hidden from every process here, like a file without read permission
        pass
    import psutil

    return int(psutil.boot_time())


class Owner:
    """This handle's slot. Taken under the structure lock; released by `close` or by the death of the process."""

    def __init__(self, queue: str, slot: int, descriptor: int) -> None:
        self.queue = queue
        self.slot = slot
        self._descriptor = descriptor
        self._scratch: str | None = None
        self._scratches = 0
        _owners.add(self)

    @classmethod
    def register(cls, queue: str) -> Owner:
        """Takes the lowest free slot. The caller holds the structure lock. Raises TooManyHandles."""
        if not os.path.lexists(os.path.join(queue, fmt.OWNERS_DIR)):
            fs.make_directory(os.path.join(queue, fmt.OWNERS_DIR))
        taken = set(slots(queue))
        slot = next((n for n in range(1, fmt.MAX_OWNERS) if n not in taken), None)
        if slot is None:
            raise TooManyHandles(f"{queue}: all {fmt.MAX_OWNERS - 1} handles are open; close some", path=queue)
        forget_unnamed(queue)
        path = _owner_path(queue, slot)
        unnamed = path + _UNNAMED  # locked before it gets the name that recovery looks for
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with fs.storage_errors(path):
            descriptor = os.open(unnamed, flags, 0o600)
            try:
                try_lock(descriptor)
                with contextlib.suppress(OSError):  # for people only: a consumer must be able to open a queue on a full disk
                    os.write(descriptor, _describe())
                fs.rename(unnamed, path)
            except BaseException:
                os.close(descriptor)
                fs.unlink(unnamed)
                raise
        return cls(queue, slot, descriptor)

    def scratch(self) -> str:
        """A new directory for temporary files of this handle; removed together with the slot."""
        if self._scratch is None:
            parent = os.path.join(self.queue, fmt.OWNERS_DIR)
            self._scratch = fs.scratch_directory(parent, fmt.slot_name(self.slot) + fmt.SCRATCH_SUFFIX)
        self._scratches += 1
        return os.path.join(self._scratch, str(self._scratches))

    def forget(self) -> None:
        """Releases the lock. In a forked child it closes only the child's copy: the parent keeps the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)  # closing a copy does not unlock
            self._descriptor = -1

    def close(self) -> None:
        """Frees the slot, which must hold nothing any more. Under the structure lock."""
        if self._descriptor < 0:
            return
        forget_slot(self.queue, self.slot)
        os.close(self._descriptor)
        self._descriptor = -1

    def __del__(self) -> None:
        self.forget()  # a handle dropped without `close` is dead: recovery frees what it held


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def _forget_in_child() -> None:
    for owner in list(_owners):
        owner.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def entries(queue: str) -> list[str]:
    """The entries of `owners/`; empty if it was deleted."""
    try:
        return fs.listing(os.path.join(queue, fmt.OWNERS_DIR))
    except FileNotFoundError:
        return []


def slots(queue: str) -> list[int]:
    """All slots in use, by living or dead owners."""
    found = (fmt.parse_slot(name) for name in entries(queue))
    return sorted(slot for slot in found if slot is not None)


@contextlib.contextmanager
def proven_dead(queue: str, slot: int) -> Iterator[bool]:
    """Whether the owner is dead. While the body runs, no other process can obtain the same proof."""
    try:
        descriptor = os.open(_owner_path(queue, slot), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield False  # gone, or we have no permission to tell
        return
    try:
        # After our open, a recovery may remove the file and another handle take the slot: then a lock on the old file proves
        # nothing. While we hold the lock on the file that has the name now, neither can happen.
        yield try_lock(descriptor) and _leads_to(_owner_path(queue, slot), descriptor)
    finally:
        os.close(descriptor)


def _leads_to(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def is_alive(queue: str, slot: int) -> bool:
    with proven_dead(queue, slot) as dead:
        return not dead


def forget_slot(queue: str, slot: int) -> None:
    """Removes the files of a slot that holds nothing."""
    path = _owner_path(queue, slot)
    if os.path.isdir(path + fmt.SCRATCH_SUFFIX):
        fs.remove_tree(path + fmt.SCRATCH_SUFFIX)
    fs.unlink(path)


def record(queue: str, slot: int) -> OwnerRecord | None:
    """What the owner wrote about itself; None if it is gone or cannot be read."""
    try:
        facts = json.loads(fs.read_file(_owner_path(queue, slot)))
        return OwnerRecord(
            slot=slot,
            pid=int(facts["pid"]),
            started=float(facts["started"]),
            opened=float(facts["opened"]),
            command=str(facts["command"]),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, QueueError):
        return None


def has_unnamed(queue: str) -> bool:
    """Whether a process is taking a slot, or died while taking one."""
    return any(entry.endswith(_UNNAMED) for entry in entries(queue))


def forget_unnamed(queue: str) -> None:
    """Removes files of processes that died while taking a slot. Under the structure lock, so no process is taking one."""
    place = os.path.join(queue, fmt.OWNERS_DIR)
    with contextlib.suppress(StorageError):
        for entry in fs.listing(place):
            if entry.endswith(_UNNAMED):
                fs.unlink(os.path.join(place, entry))


def _owner_path(queue: str, slot: int) -> str:
    return os.path.join(queue, fmt.OWNERS_DIR, fmt.slot_name(slot))


def _describe() -> bytes:
    import psutil  # takes 30 ms to import: only a process that opens a queue pays this, once

    me = psutil.Process()
    with contextlib.suppress(psutil.Error):
        command, started = " ".join(me.cmdline())[:300], me.create_time()
        return json.dumps({"pid": me.pid, "started": started, "opened": time.time(), "command": command}).encode()
    return json.dumps({"pid": os.getpid(), "started": 0, "opened": time.time(), "command": sys.argv[0]}).encode()
