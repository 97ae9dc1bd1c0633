"""`Queue`: the directory-backed queue that processes share. The work is done by `producer` and `consumer`."""

from __future__ import annotations

import os
import time
from typing import Any

from segq._core.background.release_idle import recall
from segq._core.base.serializers import Serializer, codec, name_of
from segq._core.base.settings import Settings, validated, whole_number
from segq._core.directory import tally
from segq._core.directory.catalog import Catalog
from segq._core.directory.creation import absolute, settle
from segq._core.directory.index import LOOK_AGAIN
from segq._core.put.producer import Producer
from segq._core.take.consumer import Consumer
from segq._core.take.dead_letter_writer import Burial
from segq.handles.dead import DeadLetters
from segq.handles.getting import Getting
from segq.handles.handle import Parts, check_timeout
from segq.handles.putting import Putting


class QueueParts(Parts):
    """A producer and a consumer."""

    producer: Producer
    consumer: Consumer
    dead: DeadLetters

    def __init__(
        self, path: str, settings: Settings, serializer: str | Serializer | None, prefetch: int | None, oldest_first: bool
    ) -> None:
        dumps, loads = codec(settings.serializer, serializer)
        super().__init__(path, settings, Catalog)
        counts = tally.Tally(self.catalog)
        self.producer = Producer(self.catalog, self.owner, settings, dumps, counts, self.keeper, self.tidier)
        loads_items = None if settings.serializer == "raw" else loads
        self.dead = DeadLetters(path, settings, loads, self.producer.put_stored)
        burial = Burial(self.dead, settings.serializer, None)
        if self.rescued:
            burial.rescue()
        self.consumer = Consumer(
            self.catalog, self.index.items, self.owner, settings, loads_items, prefetch, self.keeper, burial,
            oldest_first=oldest_first,
        )  # fmt: skip


class Queue(Putting, Getting):
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
        max_deliveries: how often an item is handed out at most (1 to 255); one that came back so often, given back or because
            its consumer died, goes to `dead` with the reason. None (default): no limit. A queue created without it may be
            opened with it: it holds for what that handle is handed then.
        allow_network_fs: whether to open one on a network file system, where the guarantees hold for one host at most.
        oldest_first: whether this handle gets from the oldest segment there is, whoever put it. False (default): it takes turns
            with the producers, so that consumers spread out and no producer waits for another's backlog.

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
        max_deliveries: int | None = None,
        *,
        allow_network_fs: bool = False,
        oldest_first: bool = False,
    ) -> None:
        place = absolute(path)
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
                "max_deliveries": max_deliveries,
            }
        )
        settings = settle(place, "queue", given, create=create, allow_network_fs=allow_network_fs)
        self._describe(place, settings)
        self._serializer, self._prefetch, self._allow_network_fs = serializer, prefetch, allow_network_fs
        self._oldest_first = oldest_first
        self._open()

    def _assemble(self) -> QueueParts:
        return QueueParts(self.path, self.settings, self._serializer, self._prefetch, self._oldest_first)

    @property
    def dead(self) -> DeadLetters:
        """What was given up: rejected, or handed out `max_deliveries` times in vain; see `segq.DeadLetters`."""
        parts: QueueParts = self._open()
        return parts.dead

    # --- counting and stopping ---

    def qsize(self) -> int:
        """How many items wait to be handed out, roughly, as others go on. Those received and not acknowledged do not wait."""
        parts: QueueParts = self._open()
        with parts.tally_lock:
            stored, handed = parts.tally.stored()
        return stored - handed

    def full(self) -> bool:
        """Whether `put` would have to wait just now: the capacity is taken by items not acknowledged yet."""
        parts: QueueParts = self._open()
        with parts.tally_lock:
            return parts.tally.full(self.settings)

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
            check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            parts = self._open()
            heard = parts.index.listen_for_done()
            if not self._unfinished():
                return
            left = LOOK_AGAIN if deadline is None else min(LOOK_AGAIN, deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"{self.path}: still {self._unfinished()} unfinished after {timeout} s")
            parts.index.joins.sleep(heard, left)
            parts.consumer.look_after_others()

    def _unfinished(self) -> int:
        """How many items `join` waits for just now."""
        parts: QueueParts = self._open()
        with parts.tally_lock:
            stored, _ = parts.tally.stored()
        return stored + tally.outstanding(parts.catalog)  # in this order: an item may be got in between

    def stats(self) -> tally.Stats:
        """What the queue holds and who works on it; see `segq.Stats`."""
        parts = self._open()
        with parts.tally_lock:
            return tally.collect(parts.catalog, parts.tally, "queue", self.settings)

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
        parts.catalog.bell.ring_all()
        parts.index.room.ring_all()

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self._serializer, self._prefetch, self._allow_network_fs, self._oldest_first)
        return described, (self.path, self.settings, *state)


def described(
    path: str,
    settings: Settings,
    serializer: str | Serializer | None,
    prefetch: int | None,
    allow_network_fs: bool,
    oldest_first: bool = False,
) -> Queue:
    """A handle that was sent to this process, not open yet: its first use opens it.

    Not before: multiprocessing unpickles what it hands to a child before the child's exit handlers can be registered.
    """
    handle = Queue.__new__(Queue)
    handle._describe(path, settings)  # noqa: SLF001
    handle._serializer, handle._prefetch, handle._allow_network_fs = serializer, prefetch, allow_network_fs  # noqa: SLF001
    handle._oldest_first = oldest_first  # noqa: SLF001
    return handle
