"""Putting: serialise, make sure of room, append to this handle's loading segment, wake a consumer.

A put that needs nothing special (the half of the open batch has place, room is reserved, the millisecond is the one of the
last put) is a memory copy and three stores; everything else goes the long way, `_put_long`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from segq._core.background.expire import Tidier
from segq._core.background.release_idle import HOLD_SECONDS, Keeper, recall
from segq._core.base.errors import ClosedError, Full, ItemTooLarge, QueueError, SerializationError, ShutDown
from segq._core.base.failpoints import ARMED, reach
from segq._core.base.settings import MAX_ITEM_BYTES, Settings, time_to_live
from segq._core.directory.catalog import Catalog, new_lineage
from segq._core.directory.index import LOOK_AGAIN
from segq._core.directory.owners import Owner, boot_epoch
from segq._core.directory.tally import Tally
from segq._core.format.blocks import LARGE_BYTES
from segq._core.format.format import HALF_BYTES, MOST_ITEMS, IndexWord, LedgerWord, OwnerWord
from segq._core.put.writer import UNLIMITED, LoadingSegment
from segq._core.recovery import recovery
from segq._core.segment.ledger_view import now_ms

_PUBLISHED = int(LedgerWord.PUBLISHED)
_SLEEPERS, _SHUTDOWN = int(IndexWord.ITEMS_SLEEPERS), int(IndexWord.SHUTDOWN)
# Room reserved ahead at once, at most, and at most this share of what is free: with 16 producers reserving at the same
# time half of it is still free.
_AHEAD_ITEMS, _AHEAD_BYTES, _AHEAD_SHARE = 4096, 1 << 20, 32
RECALL_SECONDS = 1.0  # how long unused room of others is waited for before the queue is called full: a busy machine's time
_DEAD_SECONDS = 0.1  # and how long before a look whether they are dead
RECALL_LOOK = 0.0005
_PASS_ON_SECONDS = 0.001  # two producers that both need more than there is must not wake each other without pause


class _NoSegment:
    """Stands in for a segment before the first put and after the last: a single put always goes the long way."""

    __slots__ = ()
    count, end, stop, base = 0, 0, 0, 0
    tick = tock = 0.0
    payload: Any = bytearray()
    ends: Any = bytearray()
    words: Any = bytearray()


_NONE: Any = _NoSegment()


class NotAtOnceError(Exception):
    """`put(block=None)`: storing `data` takes more than a memory copy."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data


class Producer:
    """The putting half of a handle. Threads take turns under one lock; it is never held while waiting for room."""

    def __init__(
        self, catalog: Catalog, owner: Owner, settings: Settings, dumps: Callable[[Any], bytes], tally: Tally, keeper: Keeper,
        tidier: Tidier,
    ) -> None:  # fmt: skip
        self._catalog, self._owner, self._settings, self._dumps = catalog, owner, settings, dumps
        self._index, self._tally, self._keeper = catalog.index, tally, keeper
        self._bell, self._index_words = catalog.bell, catalog.index.words
        self._lock = threading.Lock()
        self._segment: LoadingSegment = _NONE
        self._lineage: str | None = None
        self._limited = settings.capacity is not None or settings.max_bytes is not None
        self._ttl_ms = round(settings.ttl * 1000) if settings.ttl else 0
        self._expiring = bool(self._ttl_ms)  # whether the segments of this handle are for items that expire
        self._direct, self._raw = settings.durability == "power", settings.serializer == "raw"
        self._closed = False
        self._reserved_at = 0.0
        self._puts_at = self._index.owner_word(owner.slot, OwnerWord.PUTS)
        self._puts_before = 0  # items put in earlier segments, less those a resumed one held already
        self._tidier = tidier
        keeper.add(self)
        tidier.add(self)
        if settings.ttl:
            tidier.attend(settings.ttl)

    def put(self, item: Any, block: bool | None = True, timeout: float | None = None) -> None:
        """`block` None: only if that is a memory copy, else NotAtOnceError."""
        try:
            data = self._dumps(item)
        except Exception as error:
            raise unserialisable(item, self._settings.serializer, error) from error
        with self._lock:
            segment = self._segment
            count, start = segment.count, segment.end
            end = start + len(data)
            if (
                count < segment.stop
                and end <= HALF_BYTES
                and end - start <= LARGE_BYTES
                and not self._index_words[_SHUTDOWN]
                and (segment.tick <= (now := time.time()) < segment.tock or self._new_run(segment, now))
            ):
                if ARMED:
                    reach("put.begun")
                segment.payload[start:end] = data
                if ARMED:
                    reach("put.payload")
                segment.ends[count] = end
                segment.end = end
                segment.count = count = count + 1
                segment.words[_PUBLISHED] = segment.base + count
                if ARMED:
                    reach("put.published")
                done = True
            elif block is None:
                raise NotAtOnceError(data)
            else:
                done = self._try_store([data], len(data), self._ttl_ms)
        if not done:
            self._wait_and_store([data], len(data), self._ttl_ms, bool(block), timeout)
        if self._index_words[_SLEEPERS]:
            self._bell.ring()

    def put_many(
        self, items: Iterable[Any], block: bool = True, timeout: float | None = None, ttl: float | None = None
    ) -> None:
        self.put_stored(self.serialised(items), block, timeout, ttl)

    def put_stored(self, data: list[bytes], block: bool = True, timeout: float | None = None, ttl: float | None = None) -> None:
        """`put_many` of items that are serialised already."""
        ttl_ms = self.ttl_ms(ttl)
        if not data:
            self._refuse_if_over()
            return
        size = sum(map(len, data))
        with self._lock:
            done = self._try_store(data, size, ttl_ms)
        if not done:
            self._wait_and_store(data, size, ttl_ms, block, timeout)
        if self._index_words[_SLEEPERS]:
            self._bell.ring()

    def serialised(self, items: Iterable[Any]) -> list[bytes]:
        """What is stored for `items`. Raises SerializationError."""
        dumps = self._dumps
        if isinstance(items, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"put_many takes an iterable of items; this is one {type(items).__name__}, use put")
        chosen = list(items)
        try:
            return chosen if self._raw and set(map(type, chosen)) == {bytes} else list(map(dumps, chosen))
        except Exception as error:
            raise unserialisable(_culprit(chosen, dumps), self._settings.serializer, error) from error

    def ttl_ms(self, ttl: float | None) -> int:
        """The time to live of an item in milliseconds, 0 for none, given what the user said of it."""
        return self._ttl_ms if ttl is None else max(1, round(time_to_live(ttl) * 1000))

    # --- for those who must not be held up (`segq.aio`) ---

    def store(self, data: list[bytes], ttl_ms: int, *, at_ease: bool = False) -> bool | None:
        """Stores all of `data` as one; False if there is no room for it (others are asked for what they do not use).

        `at_ease`: None, and nothing is stored, where it would be more than a memory copy and a look at the room.
        """
        size = sum(map(len, data))
        with self._lock:
            if at_ease and not self._at_ease(len(data), size, ttl_ms):
                return None
            done = self._try_store(data, size, ttl_ms)
        while not done and not at_ease and self._catalog.make_room():
            done = self._store(data, size, ttl_ms)
        if done and self._index_words[_SLEEPERS]:
            self._bell.ring()
        return done

    def _at_ease(self, count: int, size: int, ttl_ms: int) -> bool:
        segment = self._segment
        expiring = ttl_ms or self._expiring
        return (
            segment is not _NONE
            and not self._direct
            and (not expiring or (self._tidier.attending and segment.takes_expiring(self._ttl_ms)))
            and size <= LARGE_BYTES
            and segment.has_place(count, size, self._settings.segment_bytes)
            and segment.gathers(count, size)
            and not segment.spent()
        )

    def asks_for_room(self) -> bool:
        """Whether others hold room that they do not use; they are asked for it. To be asked before the queue is called full."""
        idle = self._others_idle()
        if idle:
            recall(self._index)
        return idle

    def look_after_others(self) -> None:
        """What one who waits for room does now and then: those who died gave theirs back."""
        if self._index.turn_to_rescue():
            self._catalog.look_again()
            recovery.rescue(self._catalog, self._owner.slot)

    def _new_run(self, segment: LoadingSegment, now: float) -> bool:
        """A put in another millisecond than the last: notes the time; False if there is no place for that."""
        self._index_words[self._puts_at] = self._puts_before + segment.base + segment.count
        return not segment.spent() and segment.begin_run(now)

    # --- the long way; under the lock ---

    def _try_store(self, data: list[bytes], size: int, ttl_ms: int) -> bool:
        """Stores all of `data`, or nothing: False if there is no room, StorageError if the disk refuses."""
        self._refuse_if_over()
        count = len(data)
        self._refuse_if_never(count, size)
        segment = self._segment
        if ttl_ms and not (self._expiring and self._tidier.attending):
            self._expiring = True
            self._tidier.attend(ttl_ms / 1000)
        if (
            segment is _NONE
            or not segment.has_place(count, size, self._settings.segment_bytes)
            or segment.spent()
            or (self._expiring and not segment.takes_expiring(self._ttl_ms))
        ):
            segment = self._next_segment(count, size)
        if self._limited and not self._reserve(segment, count, size):
            return False
        segment.append(data, size, ttl_ms)
        self._index_words[self._puts_at] = self._puts_before + segment.published
        return True

    def _next_segment(self, count: int, size: int) -> LoadingSegment:
        self.roll()
        settings, catalog = self._settings, self._catalog
        loading = None
        if self._lineage is None and count <= settings.segment_items // 2 and size <= settings.segment_bytes // 2:
            loading = catalog.resume(settings.segment_items, self._owner.slot, boot_epoch(), expiring=self._expiring)
            self._lineage = loading.name.lineage if loading else new_lineage()
        if loading is None:
            items = max(settings.segment_items, count)
            self._lineage = self._lineage or new_lineage()
            loading = catalog.create(self._lineage, items, self._owner.slot, boot_epoch(), expiring=self._expiring)
        segment = LoadingSegment(
            catalog, loading, direct=self._direct, limited=self._limited, sized=settings.max_bytes is not None
        )
        self._puts_before -= segment.published
        self._segment = segment
        return segment

    def roll(self) -> None:
        """Seals the segment in hand, if there is one. Raises StorageError; it is still in hand then."""
        segment = self._segment
        if segment is _NONE:
            return
        self._puts_before += segment.published
        try:
            segment.seal()
        except BaseException:
            self._puts_before -= segment.published
            raise
        self._index_words[self._puts_at] = self._puts_before
        self._segment = _NONE

    def _reserve(self, segment: LoadingSegment, count: int, size: int) -> bool:
        """Makes sure of room for `count` items and `size` bytes in this segment; False if there is not enough."""
        most, most_bytes = self._settings.capacity or UNLIMITED, self._settings.max_bytes or UNLIMITED
        need, need_bytes = count - segment.unused, size - segment.unused_bytes()
        if self._settings.max_bytes is None:
            need_bytes = 0
        if need <= 0 and need_bytes <= 0:
            return True
        with self._tally.decided() as taken:
            free, free_bytes = most - taken.items, most_bytes - taken.bytes
            if need > free or need_bytes > free_bytes:
                return False
            ahead = max(0, min(_AHEAD_ITEMS, (free - need) // _AHEAD_SHARE))
            ahead_bytes = max(0, min(_AHEAD_BYTES, (free_bytes - need_bytes) // _AHEAD_SHARE))
            if self._settings.max_bytes is None:
                ahead_bytes = 0
            segment.reserve(max(0, need) + ahead, max(0, need_bytes) + ahead_bytes)
        if ahead or ahead_bytes:
            self._reserved_at = time.monotonic()
            if not self._keeper.attend():
                with self._index.lock:
                    segment.give_back_room()
                    segment.reserve(count, size)
        return True

    # --- waiting for room; not under the lock ---

    def _wait_and_store(self, data: list[bytes], size: int, ttl_ms: int, block: bool, timeout: float | None) -> None:
        """The queue was full at the first look."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._recall_and_store(data, size, ttl_ms):
            return
        while self._catalog.make_room():
            if self._store(data, size, ttl_ms):
                return
        if not block:
            raise Full(self.full_message(len(data)), path=self._catalog.queue)
        room = self._index.room
        slept = False
        while True:
            heard = room.listen()
            if self._store(data, size, ttl_ms):
                room.ring()  # there may be room for the next sleeper as well
                return
            if slept:  # woken for room that is not enough for us: it may be for somebody else
                time.sleep(_PASS_ON_SECONDS)
                room.ring()
                slept = False
                continue
            left = LOOK_AGAIN if deadline is None else min(LOOK_AGAIN, deadline - time.monotonic())
            if left <= 0:
                if self._recall_and_store(data, size, ttl_ms):
                    return
                raise Full(f"{self.full_message(len(data))} within {timeout} s", path=self._catalog.queue)
            if self._others_idle():
                recall(self._index)
                left = min(left, HOLD_SECONDS)
            room.sleep(heard, left)
            slept = len(data) > 1 and room.rung_since(heard)
            self.look_after_others()

    def _store(self, data: list[bytes], size: int, ttl_ms: int) -> bool:
        with self._lock:
            return self._try_store(data, size, ttl_ms)

    def _recall_and_store(self, data: list[bytes], size: int, ttl_ms: int) -> bool:
        """Room that others have reserved and not used is room: it is asked for before the queue is called full."""
        begun, looked = time.monotonic(), False
        while True:
            if self._store(data, size, ttl_ms):
                return True
            if not self._others_idle() or time.monotonic() > begun + RECALL_SECONDS:
                return False
            if not looked and time.monotonic() > begun + _DEAD_SECONDS:
                looked = True
                recovery.rescue(self._catalog, self._owner.slot)
                continue
            recall(self._index)
            time.sleep(RECALL_LOOK)

    def _others_idle(self) -> bool:
        with self._lock, self._tally.decided() as taken:  # a reservation in the middle of it would hide what is idle
            segment = self._segment
            own, own_bytes = (0, 0) if segment is _NONE else (segment.unused, segment.unused_bytes())
            return taken.idle > max(0, own) or taken.idle_bytes > max(0, own_bytes)

    def full_message(self, count: int) -> str:
        limits = [f"capacity {self._settings.capacity}"] if self._settings.capacity else []
        limits += [f"max_bytes {self._settings.max_bytes}"] if self._settings.max_bytes else []
        return f"{self._catalog.queue} is full ({', '.join(limits)}): no room for {count} more"

    # --- what the keeper and the tidier ask ---

    def let_go_of_expired(self) -> None:
        """Seals the segment in hand if all that is in it has expired: else it would stay as long as nothing is put."""
        with self._lock:
            segment = self._segment
            if segment is not _NONE and segment.ledger.lapsed(now_ms()):
                self.roll()

    def holding(self) -> bool:
        segment = self._segment
        return self._limited and segment is not _NONE and (segment.unused > 0 or segment.unused_bytes() > 0)

    def give_back(self, *, recalled: bool) -> None:
        if not self._limited or not (recalled or time.monotonic() - self._reserved_at > HOLD_SECONDS):
            return
        with self._lock:
            if self.holding():
                with self._index.lock:
                    self._segment.give_back_room()
                self._index.room.ring()

    # --- refusals and the end ---

    def _refuse_if_over(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._catalog.queue}: this handle is closed; open the queue again", path=self._catalog.queue)
        if self._index_words[_SHUTDOWN]:
            raise ShutDown(f"{self._catalog.queue} was shut down: it takes no more items", path=self._catalog.queue)

    def _refuse_if_never(self, count: int, size: int) -> None:
        capacity, max_bytes = self._settings.capacity, self._settings.max_bytes
        path = self._catalog.queue
        if size > MAX_ITEM_BYTES:
            raise ItemTooLarge(f"{size} bytes at once are more than {MAX_ITEM_BYTES}; store it in pieces", path=path)
        if count > MOST_ITEMS:
            raise ItemTooLarge(f"{count} items at once are more than {MOST_ITEMS}; put them in smaller batches", path=path)
        if capacity is not None and count > capacity:
            raise ItemTooLarge(f"{count} items can never fit a capacity of {capacity}; put them in smaller batches", path=path)
        if max_bytes is not None and size > max_bytes:
            raise ItemTooLarge(f"{size} bytes can never fit max_bytes={max_bytes}; put smaller items or batches", path=path)

    def lineage(self) -> str | None:
        """The lineage that this handle's segments carry; None before its first put."""
        return self._lineage

    def close(self) -> None:
        """Seals what is in hand. Raises StorageError if the disk refuses: the items are safe, and a rescuer will seal."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self.roll()
            except QueueError:
                self._segment.disown()
                raise
            finally:
                self._segment = _NONE


def _culprit(items: list[Any], dumps: Callable[[Any], bytes]) -> Any:
    for item in items:
        try:
            dumps(item)
        except Exception:  # whatever a serializer raises
            return item
    return items


def unserialisable(item: Any, serializer: str, error: Exception) -> QueueError:
    return SerializationError(
        f"an item of type {type(item).__name__} cannot be stored with serializer={serializer!r}: {error};"
        " nothing was stored. Convert it, or create the queue with another serializer"
    )
