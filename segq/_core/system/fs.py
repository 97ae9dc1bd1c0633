"""The only module that creates, renames, fsyncs, lists, deletes or quarantines files (those mapped into memory: `mapped`).

Durability. A function with `durable=True` returns after the change survives loss of power: files are fsynced before
they are renamed into place, and the parent directory after. With `durable=False` the change survives the death of every
process (it is in the kernel), and nothing more; that is what durability="process" promises, so the missing fsync is meant.

All errors of the operating system leave here as `StorageError` with their errno, except FileNotFoundError, which callers
use to learn that somebody else was faster.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator

from segq._core.base.errors import DamagedError, NetworkFileSystemError, NotAQueueError, StorageError, UnsafeDirectoryError
from segq._core.format import format as fmt
from segq._core.format.format import SegmentName, State

_REMEDY = {
    errno.ENOSPC: "the disk is full; free some space and try again",
    errno.EDQUOT: "the disk quota is used up; free some space and try again",
    errno.EACCES: "permission denied; the queue's directory must belong to this user",
    errno.EPERM: "not permitted; the queue's directory must belong to this user",
    errno.EROFS: "the file system is read-only; segq has to write to the queue even to read from it",
    errno.EMFILE: "this process has too many open files; raise the limit (ulimit -n)",
    errno.ENFILE: "the machine has too many open files",
    errno.ENOMEM: "out of memory or mappings",
    errno.EIO: "the disk reports an input/output error",
}


def storage_error(error: OSError, path: str) -> StorageError:
    """`error` in segq's own words: what failed, where, what to do."""
    reason = _REMEDY.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"{path}: {reason}", errno=error.errno, path=path)


@contextlib.contextmanager
def storage_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, StorageError):
        raise
    except OSError as error:
        raise storage_error(error, path) from error


# --- directories and whole files --------------------------------------------------------------------------------------


def make_directory(path: str) -> None:
    with storage_errors(path):
        os.mkdir(path, 0o700)


def make_queue_directory(path: str) -> None:
    """`path`, with its parents; existing ones are left as they are. The names survive loss of power when this returns."""
    with storage_errors(path):
        last = parent = os.path.dirname(path) or "."
        while not os.path.isdir(last) and os.path.dirname(last) != last:
            last = os.path.dirname(last) or "."
        os.makedirs(parent, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        sync_directory(parent)
        while parent != last:
            parent = os.path.dirname(parent) or "."
            sync_directory(parent)


def listing(path: str) -> list[str]:
    with storage_errors(path):
        return os.listdir(path)


def locate(queue: str, name: SegmentName) -> SegmentName | None:
    """A segment under the name it has now; None if it is gone."""
    for state in (name.state, State.LOADING, State.READY, State.CHOSEN):
        candidate = name.in_state(state)
        if os.path.isdir(os.path.join(queue, str(candidate))):
            return candidate
    return None


def directories(path: str) -> list[str]:
    """The names of the directories in it; links to directories are none."""
    with storage_errors(path), os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def refuse_other_than_files(path: str, but: tuple[str, ...]) -> None:
    """Raises DamagedError if the directory holds anything but regular files, names that begin with one of `but` aside.

    RocksDB would follow a link out of the queue, wait for ever at a FIFO, read a device without end.
    """
    with storage_errors(path), os.scandir(path) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False) and not entry.name.startswith(but):
                raise DamagedError(f"{os.path.join(path, entry.name)} is not a regular file", path=path)


def refuse_other_than_directories(path: str, names: tuple[str, ...]) -> None:
    """Refuses a queue that has something else where one of these directories belongs: what is moved there would leave it."""
    for name in names:
        place = os.path.join(path, name)
        if os.path.lexists(place) and (os.path.islink(place) or not os.path.isdir(place)):
            raise NotAQueueError(f"{place} is not a directory; move it elsewhere, nothing was touched", path=path)


def refuse_other_than_file(path: str, name: str) -> None:
    """Refuses a queue in which something else lies where this file belongs."""
    place = os.path.join(path, name)
    if os.path.lexists(place) and (os.path.islink(place) or not os.path.isfile(place)):
        raise NotAQueueError(f"{place} is not a regular file; move it elsewhere, nothing was touched", path=path)


def read_file(path: str, most: int = 1 << 20) -> bytes:
    """The contents of a regular file (never of a link or a FIFO), at most `most` bytes of it."""
    with storage_errors(path):
        descriptor = open_regular(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(most)


def write_file(path: str, data: bytes, *, durable: bool = False) -> None:
    """Creates or replaces `path` as a whole: a reader, or a crash, sees the old contents or the new."""
    with storage_errors(path):
        temporary = f"{path}.{os.getpid()}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if durable:
            sync_directory(os.path.dirname(path))


def rename(source: str, target: str) -> None:
    """One atomic step; `sync_directory` makes it last. FileNotFoundError: somebody renamed or removed `source` before."""
    with storage_errors(source):
        os.rename(source, target)


def sync_directory(path: str) -> None:
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class HeldDescriptor:
    """A descriptor that is closed with its holder, at the latest when that is forgotten."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            self.close()


class Directory(HeldDescriptor):
    """A directory held open, and a `path` that leads to it whatever it is called by now (on Linux).

    Elsewhere the path is the one given, and a rename while it is being used is met by opening again.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        """Raises FileNotFoundError."""
        with storage_errors(path):
            super().__init__(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
        stable = f"/proc/self/fd/{self.descriptor}"
        self.path = stable if os.path.isdir(stable) else path


def unlink(path: str) -> None:
    """Removes a file; it does not matter if it is gone already."""
    with storage_errors(path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: str) -> None:
    """Removes a directory and all in it; several processes may do so at once. Links are removed, not followed."""
    shutil.rmtree(path, ignore_errors=True)


def quarantine(queue: str, name: str, reason: str) -> str:
    """Moves `<queue>/<name>` into quarantine with `reason` beside it; returns where it is now."""
    target = _free_place(queue, os.path.basename(name))
    rename(os.path.join(queue, name), target)
    write_file(target + ".reason", reason.encode("utf-8", "replace") + b"\n")
    return target


def clear_away(queue: str, name: str, reason: str) -> None:
    """Makes place for a file that can be made anew: what lies there is removed, or set aside if it is a directory."""
    path = os.path.join(queue, name)
    if os.path.isdir(path) and not os.path.islink(path):
        quarantine(queue, name, reason)
    else:
        unlink(path)


def quarantine_bytes(queue: str, name: str, data: bytes, reason: str) -> str:
    """Stores `data`, which could not be understood, as a file in quarantine with `reason` beside it."""
    target = _free_place(queue, name)
    write_file(target, data)
    write_file(target + ".reason", reason.encode("utf-8", "replace") + b"\n")
    return target


def _free_place(queue: str, name: str) -> str:
    place = os.path.join(queue, fmt.QUARANTINE_DIR)
    with contextlib.suppress(FileExistsError):
        os.mkdir(place, 0o700)
    target, number = os.path.join(place, name), 0
    while os.path.lexists(target):
        number += 1
        target = os.path.join(place, f"{name}.{number}")
    return target


def scratch_directory(parent: str, name: str) -> str:
    """A directory for files that mean nothing after a restart (RocksDB's secondary instances log there)."""
    with storage_errors(parent):
        try:
            os.mkdir(os.path.join(parent, name), 0o700)
        except FileExistsError:
            return tempfile.mkdtemp(dir=parent, prefix=name)
        return os.path.join(parent, name)


def size_of(path: str) -> int:
    """Bytes in a file, or in all files below a directory; what vanishes meanwhile counts nothing."""
    total = 0
    with contextlib.suppress(OSError):
        if not os.path.isdir(path) or os.path.islink(path):
            return os.lstat(path).st_size
        for entry in os.listdir(path):
            total += size_of(os.path.join(path, entry))
    return total


@contextlib.contextmanager
def shadow(source: str, names: list[str], *, copied: bool = False) -> Iterator[str]:
    """A directory elsewhere (where temporary files go) with links to, or copies of, these files of `source`; gone afterwards.

    What insists on writing beside the files that it reads is given this in the place of `source`.
    """
    with tempfile.TemporaryDirectory(prefix="segq-") as place:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if copied:
                    shutil.copyfile(os.path.join(source, name), os.path.join(place, name))
                else:
                    os.symlink(os.path.join(source, name), os.path.join(place, name))
        yield place


def shorten(descriptor: int, size: int) -> None:
    """Cuts off what a failed write left. Never for a file that anybody maps."""
    os.ftruncate(descriptor, size)


# --- opening ----------------------------------------------------------------------------------------------------------


def open_regular(path: str, flags: int) -> int:
    """Opens (or with O_CREAT creates) a regular file and nothing else: no links, and no waiting at the other end of a FIFO."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise DamagedError(f"{path} is not a regular file", path=path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedError(f"{path} is not a regular file", path=path)
    return descriptor


# --- where a queue may live -------------------------------------------------------------------------------------------

_NETWORK = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs",
        "fuse.rclone", "fuse.gcsfuse", "lustre", "gpfs", "beegfs", "orangefs", "ocfs2", "gfs2", "virtiofs", "davfs",
        "fuse.davfs",
    }
)  # fmt: skip


def file_system_type(path: str) -> str:
    """The type of the file system that `path` (or its nearest existing parent) lies on, as mountinfo names it."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    path = os.path.realpath(path)
    best, kind = -1, ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                point = fields.split(" ")[4].replace("\\040", " ")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= best:
                    best, kind = len(point), rest.split(" ")[0]
    except OSError:  # not Linux: nothing is known
        return ""
    return kind


def refuse_network(path: str) -> None:
    kind = file_system_type(path)
    if kind in _NETWORK:
        raise NetworkFileSystemError(
            f"{path} lies on a network file system ({kind}), where mapped files and kernel locks do not hold between"
            " hosts: items could be lost or delivered twice. Use a local directory, or pass allow_network_fs=True if"
            " only this one host ever opens the queue",
            path=path,
        )


def refuse_non_directory(path: str) -> None:
    parent = os.path.dirname(path)
    while parent and not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if parent and not os.path.isdir(parent):
        raise NotAQueueError(f"{path} cannot be: {parent} is not a directory", path=path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise NotAQueueError(f"{path} is not a directory; a queue is one", path=path)


def refuse_unsafe(path: str, *, code: bool) -> None:
    """Refuses a queue that others could have filled; `code`: its serializer may run what it reads (pickle)."""
    status = os.stat(path)
    foreign = status.st_uid not in (os.geteuid(), 0)
    open_to_others = bool(status.st_mode & 0o022)
    if code and (foreign or open_to_others):
        who = f"belongs to user {status.st_uid}" if foreign else f"can be written by others (mode {status.st_mode & 0o777:o})"
        raise UnsafeDirectoryError(
            f'{path} {who}, and serializer="pickle" runs code found in it; chmod it to 700, or use serializer="msgpack"',
            path=path,
        )
