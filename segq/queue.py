"""`Queue`: the directory-backed queue that processes share. This module opens, shares, stops and closes it; the work is done
by `producer` and `consumer`.

A handle survives neither fork nor pickling as it is: in a forked child, and in a child it was sent to, it is a description of
the queue that opens itself on first use. The parent's RocksDB instances, locks and mapped files are never touched there.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from segq import format as fmt
from segq import fs, process, rescue, stats
from segq.catalog import Catalog
from segq.consumer import Consumer
from segq.errors import ClosedError, NotAQueueError, QueueError, SettingsError
from segq.format import IndexWord
from segq.index import EVERYBODY, LOOK_AGAIN, Index
from segq.keeper import Keeper, recall
from segq.locks import StructureLock
from segq.message import Message
from segq.process import Owner
from segq.producer import Producer
from segq.serializers import Serializer, codec, name_of
from segq.settings import Settings, reconciled, validated, whole_number

_handles: weakref.WeakSet[Queue] = weakref.WeakSet()


class _Parts:
    """What an open handle is made of."""

    def __init__(self, path: str, settings: Settings, serializer: str | Serializer | None, prefetch: int | None) -> None:
        dumps, loads = codec(settings.serializer, serializer)
        structure = StructureLock(path)  # the only one of this handle: it is reentrant, two of them would wait for each other
        with structure:
            self.index = Index.open(path)
            self.catalog = Catalog(path, settings, self.index, structure)
            self._settle_the_dead(path)
            self.owner = Owner.register(path)
            self.index.clear_owner(self.owner.slot)
        self.keeper = Keeper(self.index)
        self.tally = stats.Tally(self.catalog)
        self.tally_lock = threading.Lock()
        self.producer = Producer(self.catalog, self.owner, settings, dumps, stats.Tally(self.catalog), self.keeper)
        self.consumer = Consumer(
            self.catalog, self.owner, settings, None if settings.serializer == "raw" else loads, prefetch, self.keeper
        )

    def _settle_the_dead(self, path: str) -> None:
        rescue.rescue(self.catalog, 0)
        rescue.rescue_orphans(self.catalog)
        if not process.slots(path):  # the first handle: a shutdown lasts as long as somebody has the queue open
            self.index.shutdown = 0

    def close(self) -> None:
        self.keeper.stop()
        try:
            self.producer.close()
        finally:
            self.consumer.close()
            with self.catalog.structure:
                self.index.clear_owner(self.owner.slot)
                self.owner.close()
            self.index.freed(EVERYBODY)
            self.index.close()


class Queue:
    """A queue in a directory, shared by any number of processes and threads.

    >>> import tempfile
    >>> with Queue(tempfile.mkdtemp() + "/jobs") as q:
    ...     q.put({"n": 1})
    ...     q.get()
    {'n': 1}

    Args:
        path: the directory; created (mode 0700) if it is missing and `create` is true.
        capacity: how many items may be stored and not acknowledged; None for no limit. Exact over all processes.
        max_bytes: the same for the bytes of the serialised items.
        serializer: "msgpack" (default), "json", "pickle", "raw" (bytes only), or an object with `dumps` and `loads`.
        durability: "process" (default): an item survives the death of any process once `put` has returned. "power": it
            survives loss of power too, at the price of an fsync each put.
        lease: seconds after which a received and not acknowledged message is handed to somebody else; None (default):
            only when its process dies or gives it back.
        prefetch: how many items a consumer claims at once; None (default): about 2 ms of its work, by measurement. Of
            this handle alone, not stored.
        segment_items, segment_bytes: limits of a segment.
        create: whether to create a queue that does not exist.
        allow_network_fs: whether to open one on a network file system, where the guarantees hold for one host at most.

    Settings are stored in the queue: whoever opens it later needs only the path. One that is given again has to agree.

    Raises:
        SettingsError, SettingsConflict: a setting that cannot work, or is not the one the queue was created with.
        NotAQueueError, FormatVersionError, UnsafeDirectoryError, NetworkFileSystemError, TooManyHandles, StorageError.

    The names and their meaning are those of `queue.Queue`; segments renamed from state to state are turbo-queue's idea.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        capacity: int | None = None,
        max_bytes: int | None = None,
        serializer: str | Serializer | None = None,
        durability: str | None = None,
        lease: float | None = None,
        prefetch: int | None = None,
        segment_items: int | None = None,
        segment_bytes: int | None = None,
        create: bool = True,
        *,
        allow_network_fs: bool = False,
    ) -> None:
        place = _absolute(path)
        prefetch = None if prefetch is None else whole_number("prefetch", prefetch)
        given = validated(
            {
                "capacity": capacity,
                "max_bytes": max_bytes,
                "serializer": None if serializer is None else name_of(serializer),
                "durability": durability,
                "lease": lease,
                "segment_items": segment_items,
                "segment_bytes": segment_bytes,
            }
        )
        settings = _settle(place, given, create=create, allow_network_fs=allow_network_fs)
        self._describe(place, settings, serializer, prefetch, allow_network_fs)
        self._open()

    def _describe(
        self, path: str, settings: Settings, serializer: str | Serializer | None, prefetch: int | None, allow_network_fs: bool
    ) -> None:
        self.path, self.settings = path, settings
        self._serializer, self._prefetch, self._allow_network_fs = serializer, prefetch, allow_network_fs
        self._closed = False
        self._parts: _Parts | None = None
        self._pid = os.getpid()
        self._opening = threading.Lock()

    # --- putting ---

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Stores `item`; once this returns it survives the death of any process (guarantee G1).

        Waits for room up to `timeout` seconds (None: for ever), or not at all if `block` is false.

        Raises:
            Full: no room (in time). ShutDown, ClosedError. SerializationError, ItemTooLarge: the item's fault.
            StorageError: the disk's. In every case nothing was stored.
        """
        if timeout is not None:
            _check_timeout(timeout)
        self._producer.put(item, block, timeout)

    def put_nowait(self, item: Any) -> None:
        """`put(item, block=False)`."""
        self._producer.put(item, False)

    def put_many(self, items: Iterable[Any], block: bool = True, timeout: float | None = None) -> None:
        """Stores all of `items` as one write: contiguous, in order, all or none (guarantee G2). Raises as `put` does."""
        if timeout is not None:
            _check_timeout(timeout)
        self._producer.put_many(items, block, timeout)

    # --- getting ---

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes an item out of the queue: handed over is acknowledged. To survive your own death, use `receive`.

        Waits up to `timeout` seconds (None: for ever), or not at all if `block` is false.

        Raises:
            Empty: nothing to hand out (in time). ShutDown: and nothing will come. ClosedError, StorageError.
        """
        if timeout is not None:
            _check_timeout(timeout)
        return self._consumer.get(block, timeout)

    def get_nowait(self) -> Any:
        """`get(block=False)`."""
        return self._consumer.get(False)

    def get_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        """Up to `max_items` items at once; waits for the first as `get` does, and takes what is there then."""
        if timeout is not None:
            _check_timeout(timeout)
        return self._consumer.get_many(whole_number("max_items", max_items), block, timeout)

    def receive(self, block: bool = True, timeout: float | None = None) -> Message:
        """Hands out an item that stays in the queue until you `ack` it. Waits and raises as `get` does."""
        if timeout is not None:
            _check_timeout(timeout)
        return self._consumer.receive(block, timeout)

    def receive_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Message]:
        """Up to `max_items` messages at once; waits for the first, and takes what is there then."""
        if timeout is not None:
            _check_timeout(timeout)
        return self._consumer.receive_many(whole_number("max_items", max_items), block, timeout)

    def peek(self, n: int = 1) -> list[Any]:
        """The values of up to `n` items that wait, oldest first; nothing is claimed."""
        return self._consumer.peek(whole_number("n", n))

    def purge(self) -> int:
        """Drops all items that nobody has claimed; returns how many."""
        return self._consumer.purge()

    # --- counting and stopping ---

    def qsize(self) -> int:
        """How many items wait to be handed out, roughly, as others go on. Those received and not acknowledged do not wait."""
        parts = self._open()
        with parts.tally_lock:
            stored, handed = parts.tally.stored()
        return stored - handed

    def __len__(self) -> int:
        return self.qsize()

    def __bool__(self) -> bool:
        return True  # a queue is one whether or not something is in it

    def empty(self) -> bool:
        """Whether `get` would have to wait just now."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether `put` would have to wait just now: the capacity is taken by items not acknowledged yet."""
        parts, settings = self._open(), self.settings
        with parts.tally_lock:
            taken = parts.tally.taken()
        return (settings.capacity is not None and taken.items - taken.idle >= settings.capacity) or (
            settings.max_bytes is not None and taken.bytes - taken.idle_bytes >= settings.max_bytes
        )

    def task_done(self) -> None:
        """Says that the work on an item that this handle got is finished; `join` waits for it.

        Raises ValueError if called more often than items were got. (A received message is finished by its `ack`.)
        """
        self._consumer.finished()

    def join(self, timeout: float | None = None) -> None:
        """Waits until every item put was acknowledged, and `task_done` was called for every item got, by all processes.

        What a process got and had not finished when it was closed or killed counts as finished: nobody is left to say so.
        Raises TimeoutError after `timeout` seconds, if given.
        """
        if timeout is not None:
            _check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            parts = self._open()
            heard = parts.index.listen_for_done()
            if not self._unfinished(parts):
                return
            left = LOOK_AGAIN if deadline is None else min(LOOK_AGAIN, deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"{self.path}: still {self._unfinished(parts)} unfinished after {timeout} s")
            parts.index.joins.sleep(heard, left)
            parts.consumer.look_after_others()

    def _unfinished(self, parts: _Parts) -> int:
        with parts.tally_lock:
            stored, _ = parts.tally.stored()
        return stored + stats.outstanding(parts.catalog)  # in this order: an item may be got in between

    def stats(self) -> stats.Stats:
        """What the queue holds and who works on it; see `segq.stats.Stats`."""
        parts = self._open()
        with parts.tally_lock:
            return stats.collect(parts.catalog, parts.tally, "queue", self.settings.capacity, self.settings.max_bytes)

    def shutdown(self, immediate: bool = False) -> None:
        """For all handles: `put` raises ShutDown from now on, `get` once the queue is empty; lasts while any handle is open.

        With `immediate` what waits is dropped and `get` raises at once; other processes may still hand out what they
        prefetched for some milliseconds.
        """
        parts = self._open()
        parts.index.shutdown = 2 if immediate else max(1, parts.index.shutdown)
        if immediate:
            recall(parts.index)
            parts.consumer.drop_left()
            parts.consumer.purge()
        for bell in (parts.index.items, parts.index.room):
            bell.words[IndexWord.ITEMS_SLEEPERS] = bell.words[IndexWord.ROOM_SLEEPERS] = 1
            bell.ring(EVERYBODY)

    def close(self) -> None:
        """Seals what this handle wrote and gives back what it holds; the queue itself stays. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        parts, self._parts = self._parts, None
        _handles.discard(self)
        if parts is not None and self._pid == os.getpid():
            del self._producer, self._consumer
            parts.close()

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<segq.Queue {self.path!r}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _described, (self.path, self.settings, self._serializer, self._prefetch, self._allow_network_fs)

    # --- opening on first use ---

    def __getattr__(self, name: str) -> Any:
        """`_producer` and `_consumer` are there once the handle is open in this process; asking for them opens it."""
        if name in ("_producer", "_consumer"):
            parts = self._open()
            return parts.producer if name == "_producer" else parts.consumer
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _open(self) -> _Parts:
        parts = self._parts
        if parts is not None:
            return parts
        if self._closed:
            raise ClosedError(f"{self.path}: this handle is closed; open the queue again", path=self.path)
        with self._opening:
            if self._parts is None:
                parts = _Parts(self.path, self.settings, self._serializer, self._prefetch)
                self._producer, self._consumer = parts.producer, parts.consumer
                self._parts, self._pid = parts, os.getpid()
                _handles.add(self)
                _close_at_exit_of_children()
            assert self._parts is not None
            return self._parts

    def _forked(self) -> None:
        """In a forked child: let go of everything of the parent's without touching it."""
        parts, self._parts = self._parts, None
        self._opening = threading.Lock()
        if parts is not None:
            del self._producer, self._consumer
            parts.owner.forget()
            parts.consumer.forsake()
            _inherited.append(parts)


_inherited: list[_Parts] = []


def _described(
    path: str, settings: Settings, serializer: str | Serializer | None, prefetch: int | None, allow_network_fs: bool
) -> Queue:
    """A handle that was sent to this process, not open yet: its first use opens it.

    Not before: multiprocessing unpickles what it hands to a child before the child's exit handlers can be registered.
    """
    handle = Queue.__new__(Queue)
    handle._describe(path, settings, serializer, prefetch, allow_network_fs)  # noqa: SLF001
    return handle


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle._forked()  # noqa: SLF001
    _handles.clear()


def _close_all() -> None:
    for handle in list(_handles):
        with contextlib.suppress(QueueError, OSError):
            handle.close()


_registered_in = 0


def _close_at_exit_of_children() -> None:
    """multiprocessing ends its children without `atexit`; it has a register of its own."""
    global _registered_in  # noqa: PLW0603
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None and _registered_in != os.getpid():
        _registered_in = os.getpid()
        util.Finalize(None, _close_all, exitpriority=100)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_all)


def _absolute(path: str | os.PathLike[str]) -> str:
    absolute = os.path.abspath(os.fspath(path))
    try:
        absolute.encode()
    except (UnicodeEncodeError, AttributeError):
        raise SettingsError(f"path must be text that UTF-8 can hold (RocksDB takes no other), not {path!r}") from None
    return absolute


def _settle(path: str, given: dict[str, Any], *, create: bool, allow_network_fs: bool) -> Settings:
    """The settings of the queue at `path`, which is created with them if need be."""
    file = os.path.join(path, fmt.QUEUE_FILE)
    fs.refuse_non_directory(path)
    if not allow_network_fs:
        fs.refuse_network(path)
    if not os.path.lexists(file):
        if not create:
            raise NotAQueueError(f"there is no queue at {path}; create it, or look for a mistyped path", path=path)
        _create(path, Settings(**given))
    _, kind, stored = fmt.decode_queue_file(fs.read_file(file), path)
    if kind != "queue":
        raise NotAQueueError(f"{path} is a {kind}, not a queue; open it as what it is", path=path)
    settings = reconciled(stored, given, path)
    fs.refuse_unsafe(path, code=settings.serializer == "pickle")
    return settings


def _create(path: str, settings: Settings) -> None:
    durable = settings.durability == "power"
    fs.make_queue_directory(path)
    fs.refuse_unsafe(path, code=settings.serializer == "pickle")
    foreign = [name for name in fs.listing(path) if name != fmt.LOCK_FILE]
    if foreign and fmt.QUEUE_FILE not in foreign and fmt.OWNERS_DIR not in foreign:
        raise NotAQueueError(
            f"{path} is not empty and holds no queue ({', '.join(sorted(foreign)[:3])}); choose a new directory", path=path
        )
    with StructureLock(path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(path, fmt.OWNERS_DIR), 0o700)
        if not os.path.lexists(os.path.join(path, fmt.QUEUE_FILE)):  # the last step: from here on it is a queue
            document = fmt.encode_queue_file(str(uuid.uuid4()), "queue", settings)
            fs.write_file(os.path.join(path, fmt.QUEUE_FILE), document, durable=durable)
            if durable:
                fs.sync_directory(os.path.dirname(path))


def remove(path: str | os.PathLike[str]) -> None:
    """Deletes the queue at `path` with all that is in it. Raises NotAQueueError for anything else, QueueError if in use."""
    path = os.path.abspath(os.fspath(path))
    fs.refuse_non_directory(path)
    try:
        fmt.decode_queue_file(fs.read_file(os.path.join(path, fmt.QUEUE_FILE)), path)
    except FileNotFoundError:
        raise NotAQueueError(f"there is no queue at {path}; nothing was removed", path=path) from None
    with StructureLock(path):
        in_use = [slot for slot in process.slots(path) if process.is_alive(path, slot)]
        if in_use:
            record = process.record(path, in_use[0])
            raise QueueError(
                f"{path} is open in {len(in_use)} handle(s), one of process {record.pid if record else '?'}; close them first",
                path=path,
            )
        fs.remove_tree(path)


def _check_timeout(timeout: float) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise SettingsError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if timeout < 0:
        raise SettingsError("'timeout' must be a non-negative number")
