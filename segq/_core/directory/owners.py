"""Who is alive. An owner is one open handle of one process; it holds the kernel's lock on `owners/<slot>`.

Whoever obtains that lock has proved the owner dead; a lock that cannot be obtained means alive, whatever else is
suspected (the habit of failing closed is tox-dev/filelock's). PIDs are recorded for people to read and decide nothing:
they repeat, and differ between containers.
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
    """What an owner wrote about itself, for people: `started` and `opened` are seconds of the epoch."""

    slot: int
    pid: int
    started: float
    opened: float
    command: str


_UNNAMED = ".new"  # what an owner's file is called until it is locked
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@functools.cache
def boot_epoch() -> int:
    """A number that differs from boot to boot.

    Raises StorageError where it cannot be read just now: another number would make all that is stored look as if power had
    been lost since, and then RocksDB's log is believed, in which a put that failed may be found.
    """
    try:
        return zlib.crc32(fs.read_file(_BOOT_ID).strip())
    except StorageError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
    except (FileNotFoundError, DamagedError):  # macOS; or it is hidden from everybody here, as from who may not read it
        pass
    import psutil

    return int(psutil.boot_time())


class Owner:
    """This handle's slot. Taken under the structure lock; let go by `close` or by the death of the process."""

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
        unnamed = path + _UNNAMED  # locked before it gets the name under which others look for the dead
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with fs.storage_errors(path):
            descriptor = os.open(unnamed, flags, 0o600)
            try:
                try_lock(descriptor)
                with contextlib.suppress(
                    OSError
                ):  # for people only: on a full disk a consumer must be able to come all the same
                    os.write(descriptor, _describe())
                fs.rename(unnamed, path)
            except BaseException:
                os.close(descriptor)
                fs.unlink(unnamed)
                raise
        return cls(queue, slot, descriptor)

    def scratch(self) -> str:
        """A new directory for throw-away files of this handle; removed with it."""
        if self._scratch is None:
            parent = os.path.join(self.queue, fmt.OWNERS_DIR)
            self._scratch = fs.scratch_directory(parent, fmt.slot_name(self.slot) + fmt.SCRATCH_SUFFIX)
        self._scratches += 1
        return os.path.join(self._scratch, str(self._scratches))

    def forget(self) -> None:
        """Lets go of the lock, or of the copy of it that a forked child has: there the lock stays the parent's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)  # closing a copy does not unlock
            self._descriptor = -1

    def close(self) -> None:
        """Gives the slot back. Everything it held must have been given back before; under the structure lock."""
        if self._descriptor < 0:
            return
        forget_slot(self.queue, self.slot)
        os.close(self._descriptor)
        self._descriptor = -1

    def __del__(self) -> None:
        self.forget()  # a handle dropped without `close` is dead: others rescue what it held


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def _forget_in_child() -> None:
    for owner in list(_owners):
        owner.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def entries(queue: str) -> list[str]:
    """What lies in `owners/`; nothing if that was deleted."""
    try:
        return fs.listing(os.path.join(queue, fmt.OWNERS_DIR))
    except FileNotFoundError:
        return []


def slots(queue: str) -> list[int]:
    """All slots that are taken, by the living or the dead."""
    found = (fmt.parse_slot(name) for name in entries(queue))
    return sorted(slot for slot in found if slot is not None)


@contextlib.contextmanager
def proven_dead(queue: str, slot: int) -> Iterator[bool]:
    """Whether the owner is dead; while the body runs nobody else can come to the same proof."""
    try:
        descriptor = os.open(_owner_path(queue, slot), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield False  # gone meanwhile, or not ours to say
        return
    try:
        # A rescuer may have removed the file after we opened it, and another handle taken the slot: then the lock of the old
        # file proves nothing. While we hold the lock of the file that the name leads to, nobody can do either.
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
    """Removes the files of a slot that holds nothing any more."""
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
    """Whether somebody is taking a slot, or died while doing so."""
    return any(entry.endswith(_UNNAMED) for entry in entries(queue))


def forget_unnamed(queue: str) -> None:
    """Files of those who died while they took a slot. Under the structure lock, so that nobody is taking one."""
    place = os.path.join(queue, fmt.OWNERS_DIR)
    with contextlib.suppress(StorageError):
        for entry in fs.listing(place):
            if entry.endswith(_UNNAMED):
                fs.unlink(os.path.join(place, entry))


def _owner_path(queue: str, slot: int) -> str:
    return os.path.join(queue, fmt.OWNERS_DIR, fmt.slot_name(slot))


def _describe() -> bytes:
    import psutil  # 30 ms to import: only those who open a queue pay for it, once

    me = psutil.Process()
    with contextlib.suppress(psutil.Error):
        command, started = " ".join(me.cmdline())[:300], me.create_time()
        return json.dumps({"pid": me.pid, "started": started, "opened": time.time(), "command": command}).encode()
    return json.dumps({"pid": os.getpid(), "started": 0, "opened": time.time(), "command": sys.argv[0]}).encode()
