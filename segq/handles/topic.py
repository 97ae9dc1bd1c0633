"""`Topic`: every label sees every item, the processes that share a label share its work. (For getting: `subscription`.)"""

from __future__ import annotations

import os
from typing import Any

from segq._core.background.release_idle import recall
from segq._core.base.errors import SettingsError
from segq._core.base.serializers import Serializer, codec, name_of
from segq._core.base.settings import SEGMENT_BYTES, SEGMENT_ITEMS, Settings, validated
from segq._core.directory import tally
from segq._core.directory.creation import absolute, settle
from segq._core.directory.labels import checked_label
from segq._core.directory.topic_catalog import TopicCatalog
from segq._core.put.producer import Producer
from segq._core.take.dead_letter_writer import Burial
from segq.handles.dead import DeadLetters
from segq.handles.putting import Putting
from segq.handles.subscription import Subscription, TopicParts

_DROPPED_AT_ONCE = 8  # a topic that drops its oldest is made of at least so many segments when it is full


class PuttingParts(TopicParts):
    """A producer."""

    producer: Producer
    dead: DeadLetters

    def __init__(self, path: str, settings: Settings, serializer: str | Serializer | None) -> None:
        dumps, loads = codec(settings.serializer, serializer)
        super().__init__(path, settings, TopicCatalog)
        self.dead = DeadLetters(path, settings, loads, None)
        if self.rescued:
            Burial(self.dead, settings.serializer, None).rescue()
        counts = tally.Tally(self.catalog)
        self.producer = Producer(self.catalog, self.owner, settings, dumps, counts, self.keeper, self.tidier)


class Topic(Putting):
    """A topic in a directory, shared by any number of processes and threads: each label gets every item.

    >>> import tempfile
    >>> with Topic(tempfile.mkdtemp() + "/news") as t, t.subscribe("mail") as mail, t.subscribe("log") as log:
    ...     t.put("hello")
    ...     mail.get(), log.get()
    ('hello', 'hello')

    Args:
        path: the directory; created (mode 0700) if it is missing and `create` is true.
        ttl: seconds after which an item is not delivered any more; None (default) for no limit. To the millisecond.
        capacity, max_bytes: how many items (bytes) may be stored; None for no limit. Exact over all processes.
        on_full: "block" (default): `put` waits for room as a queue's does. "drop_oldest": the oldest segment's items go, and
            every label that had not seen them is told by `missed`.
        retain: "until-acked" (default): an item goes once every label there is has acknowledged it; before there is a label,
            items wait for the first. "ttl": items stay for their time, however often read, for labels that come late.
        max_deliveries: how often a label is handed an item at most; what came back so often goes to the topic's `dead`, as a
            letter of that label. The other labels have nothing to do with it.
        serializer, durability, lease, segment_items, segment_bytes, create, allow_network_fs: as for `Queue`.

    Settings are stored in the topic: whoever opens it later needs only the path. One that is given again has to agree.

    Raises as `Queue` does. Labelled consumers with a start position and a time to live are RocksQ's idea (its MPMC queue).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ttl: float | None = None,
        capacity: int | None = None,
        max_bytes: int | None = None,
        on_full: str | None = None,
        retain: str | None = None,
        serializer: str | Serializer | None = None,
        durability: str | None = None,
        lease: float | None = None,
        segment_items: int | None = None,
        segment_bytes: int | None = None,
        create: bool = True,
        max_deliveries: int | None = None,
        *,
        allow_network_fs: bool = False,
    ) -> None:
        place = absolute(path)
        given = validated(
            {
                "ttl": ttl,
                "capacity": capacity,
                "max_bytes": max_bytes,
                "on_full": on_full,
                "retain": retain,
                "serializer": None if serializer is None else name_of(serializer),
                "durability": durability,
                "lease": lease,
                "segment_items": segment_items,
                "segment_bytes": segment_bytes,
                "max_deliveries": max_deliveries,
            }
        )
        if not os.path.exists(place):
            _refuse_contradictions(given)
            _choose_segment_size(given)
        settings = settle(place, "topic", given, create=create, allow_network_fs=allow_network_fs)
        self._describe(place, settings)
        self._serializer, self._allow_network_fs = serializer, allow_network_fs
        self._open()

    def _assemble(self) -> PuttingParts:
        return PuttingParts(self.path, self.settings, self._serializer)

    # --- labels ---

    def subscribe(
        self, label: str, start: str = "oldest", prefetch: int | None = None, *, max_deliveries: int | None = None
    ) -> Subscription:
        """A handle that gets the items of `label`, for this process; close it when done (closing the topic does not).

        The first subscription to a label, from whichever process, creates it and decides where it begins, in one step with
        respect to puts: "oldest" (default) with the oldest item stored, "newest" with the last one, "next" after it. For a
        label that is there already `start` has no meaning: it goes on where it was.

        `prefetch`: how many items to claim at once; None: about 2 ms of work, by measurement. `max_deliveries`: of this
        handle, if the topic has none of its own.

        Raises SettingsError for a label or a start that cannot be; StorageError.
        """
        return Subscription(
            self.path,
            label,
            start,
            prefetch,
            serializer=self._serializer,
            max_deliveries=max_deliveries or self.settings.max_deliveries,
            allow_network_fs=self._allow_network_fs,
        )

    def labels(self) -> list[str]:
        """The labels there are, in the order of their text."""
        parts: PuttingParts = self._open()
        return sorted(label.text for label in parts.catalog.labels.all())

    def remove_label(self, label: str) -> None:
        """Removes a label and frees what only it held back. Whoever is reading it gets LabelRemoved.

        Raises KeyError if there is no such label.
        """
        parts: PuttingParts = self._open()
        with parts.catalog.structure:
            found = parts.catalog.labels.find(checked_label(label))
            if found is None:
                raise KeyError(label)
            parts.catalog.remove_label(found)
        parts.index.freed(1 << 30)

    @property
    def dead(self) -> DeadLetters:
        """What consumers of its labels gave up; each letter has its label. See `segq.DeadLetters`."""
        parts: PuttingParts = self._open()
        return parts.dead

    # --- counting and stopping ---

    def qsize(self) -> int:
        """How many items are stored, roughly, as others go on: neither expired nor acknowledged by every label."""
        parts: PuttingParts = self._open()
        with parts.tally_lock:
            return parts.tally.stored()[0]

    def full(self) -> bool:
        """Whether `put` would have to wait (or drop something) just now."""
        parts: PuttingParts = self._open()
        with parts.tally_lock:
            return parts.tally.full(self.settings)

    def stats(self) -> tally.Stats:
        """What the topic holds, who works on it, and how far each label is; see `segq.Stats`."""
        parts: PuttingParts = self._open()
        with parts.tally_lock:
            parts.catalog.look_again()
            catalog = parts.catalog
            labels = sorted(catalog.labels.all(), key=lambda label: label.text)
            of_labels = tuple(tally.label_stats(catalog, label, parts.time_of) for label in labels)
            return tally.collect(catalog, parts.tally, "topic", self.settings, of_labels)

    def shutdown(self, immediate: bool = False) -> None:
        """For all handles: `put` raises ShutDown from now on, `get` once its label has nothing left; lasts while any is open.

        With `immediate` `get` raises at once; nothing is dropped, each label finds its place again.
        """
        parts: PuttingParts = self._open()
        parts.index.shutdown = 2 if immediate else max(1, parts.index.shutdown)
        if immediate:
            recall(parts.index)
        parts.catalog.bell.ring_all()
        parts.index.room.ring_all()

    def __reduce__(self) -> tuple[Any, ...]:
        return _described_topic, (self.path, self.settings, self._serializer, self._allow_network_fs)


def _refuse_contradictions(given: dict[str, Any]) -> None:
    if given.get("retain") == "ttl" and "ttl" not in given:
        raise SettingsError('retain="ttl" keeps items for their time to live: give ttl, in seconds')
    if given.get("on_full") == "drop_oldest" and not given.keys() & {"capacity", "max_bytes"}:
        raise SettingsError('on_full="drop_oldest" needs a capacity or max_bytes to be full at')


def _choose_segment_size(given: dict[str, Any]) -> None:
    """What is dropped is dropped by segments: they have to be small against the whole."""
    if given.get("on_full") == "drop_oldest":
        if "capacity" in given:
            given.setdefault("segment_items", max(1, min(SEGMENT_ITEMS, given["capacity"] // _DROPPED_AT_ONCE)))
        if "max_bytes" in given:
            given.setdefault("segment_bytes", max(4096, min(SEGMENT_BYTES, given["max_bytes"] // _DROPPED_AT_ONCE)))


def _described_topic(path: str, settings: Settings, serializer: str | Serializer | None, allow_network_fs: bool) -> Topic:
    """A handle that was sent to this process, not open yet: its first use opens it."""
    handle = Topic.__new__(Topic)
    handle._describe(path, settings)  # noqa: SLF001
    handle._serializer, handle._allow_network_fs = serializer, allow_network_fs  # noqa: SLF001
    return handle
