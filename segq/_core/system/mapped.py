"""Files mapped into memory, in which processes share words and bytes.

A mapping here keeps no descriptor: `mmap.mmap` keeps a copy of the one it is given (up to Python 3.12, where it cannot be told
not to), which would cost one for each segment that is looked at.

And what is locked is never what is mapped. A lock of `flock` belongs to the open file description, and that lives as long as
anything refers to it, a mapping without a descriptor too: a forked child that inherits the mapping would keep the lock of a
process that died. So each file is opened twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import weakref

from segq._core.base.errors import DamagedError
from segq._core.format import format as fmt
from segq._core.system.fs import HeldDescriptor, open_regular, storage_errors


def mapping(descriptor: int, size: int, offset: int = 0) -> mmap.mmap:
    """`size` bytes of a file from `offset` on, shared and writable; the descriptor may be closed. Raises OSError."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, offset=offset, trackfd=False)
    place = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # an address range, which the file takes over
    start = ctypes.addressof(ctypes.c_char.from_buffer(place))
    if _mmap(start, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED, descriptor, offset) != start:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return place


_MAP_FIXED = 0x10  # on Linux and macOS alike
_mmap = ctypes.CDLL(None, use_errno=True).mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)


def allocate(descriptor: int, offset: int, length: int) -> None:
    """Gives a range of a file its place on the disk, so that a store into its mapping cannot meet a full one (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, offset, length)
        return
    end = os.fstat(descriptor).st_size  # pragma: no cover  # macOS: writing is the portable way to allocate
    for at in range(offset, offset + length, fmt.PAGE):  # pragma: no cover
        if at >= end or not os.pread(descriptor, 1, at):
            os.pwrite(descriptor, b"\0" * min(fmt.PAGE, offset + length - at), at)


class MappedFile(HeldDescriptor):
    """A regular file mapped whole, shared and (but for `look`) writable, that no process ever shortens while others have it.

    `map` serves slices, `words` aligned u64 loads and stores (one instruction each: never seen half done), `halves` u32.

    `descriptor`, of a file description of its own, is kept for locking and allocating; closing it leaves the mapping, which
    goes with the last view of it. A forked child closes its copy (below), so a lock dies with the process that took it.
    """

    __slots__ = ("__weakref__", "halves", "map", "path", "view", "words")

    def __init__(self, path: str, descriptor: int, size: int, *, writable: bool = True) -> None:
        super().__init__(-1)
        self.path = path
        try:
            with storage_errors(path):
                self.map = mapping(descriptor, size) if writable else mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
                self.descriptor = _reopened(path, descriptor, os.O_RDWR if writable else os.O_RDONLY)
        finally:
            os.close(descriptor)
        if hasattr(mmap, "MADV_RANDOM"):  # else the first touch of a page may read megabytes around it: a stall of 1 ms seen
            self.map.madvise(mmap.MADV_RANDOM)
        self.view = memoryview(self.map)
        self.words = self.view.cast("Q")
        self.halves = self.view.cast("I")
        _mapped.add(self)

    @classmethod
    def create(cls, path: str, size: int, ranges: list[tuple[int, int]]) -> MappedFile:
        """A new file of `size` bytes, zeroed, of which only `ranges` (offset, length) take place on the disk yet."""
        with storage_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
            try:
                os.ftruncate(descriptor, size)
                for offset, length in ranges:
                    allocate(descriptor, offset, length)
            except BaseException:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    os.unlink(path)
                raise
        return cls(path, descriptor, size)

    @classmethod
    def open(cls, path: str, least: int) -> MappedFile:
        """An existing one of at least `least` bytes. Raises FileNotFoundError, or DamagedError for another kind of file."""
        with storage_errors(path):
            descriptor = open_regular(path, os.O_RDWR)
        size = os.fstat(descriptor).st_size
        if size < least or size % 8:
            os.close(descriptor)
            raise DamagedError(f"{path} has {size} bytes, at least {least} expected", path=path)
        return cls(path, descriptor, size)

    @classmethod
    def look(cls, path: str, least: int) -> MappedFile:
        """An existing one to look at only: opened and mapped for reading, so that nothing in it can be changed by us."""
        with storage_errors(path):
            descriptor = open_regular(path, os.O_RDONLY)
        size = os.fstat(descriptor).st_size
        if size < least or size % 8:
            os.close(descriptor)
            raise DamagedError(f"{path} has {size} bytes, at least {least} expected", path=path)
        return cls(path, descriptor, size, writable=False)

    def part(self, size: int, offset: int) -> mmap.mmap:
        """Another mapping, of a part that begins with a page."""
        with storage_errors(self.path):
            descriptor = _reopened(self.path, self.descriptor, os.O_RDWR)
            try:
                return mapping(descriptor, size, offset)
            finally:
                os.close(descriptor)

    @property
    def size(self) -> int:
        return len(self.view)

    def allocate(self, ranges: list[tuple[int, int]]) -> None:
        with storage_errors(self.path):
            for offset, length in ranges:
                allocate(self.descriptor, offset, length)

    def sync(self) -> None:
        """After this, what the mapping holds survives loss of power."""
        with storage_errors(self.path):
            self.map.flush()
            os.fsync(self.descriptor)

    def same_file(self) -> bool:
        """Whether the path still leads to the file that is mapped."""
        try:
            here, there = os.fstat(self.descriptor), os.stat(self.path)
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


_mapped: weakref.WeakSet[MappedFile] = weakref.WeakSet()


def _close_in_child() -> None:
    for file in list(_mapped):
        file.close()


os.register_at_fork(after_in_child=_close_in_child)


def _reopened(path: str, descriptor: int, flags: int) -> int:
    """A new file description of an open file."""
    flags |= os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except FileNotFoundError:  # not Linux: the path may have been renamed, which the caller meets by trying again
        return os.open(path, flags | os.O_NOFOLLOW)
