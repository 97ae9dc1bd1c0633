"""`Topic` and `Subscription`: every label sees every item, the processes that share a label share its work."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from segq import stats
from segq.consumer import Consumer
from segq.errors import SettingsError
from segq.format import SegmentName, put_time
from segq.getting import Getting
from segq.handle import Parts
from segq.keeper import recall
from segq.label_catalog import LabelCatalog
from segq.labels import checked_label
from segq.place import absolute, settle
from segq.producer import Producer
from segq.putting import Putting
from segq.serializers import Serializer, codec, name_of
from segq.settings import SEGMENT_BYTES, SEGMENT_ITEMS, Settings, validated, whole_number
from segq.topic_catalog import TopicCatalog
from segq.view import SegmentView

STARTS = ("oldest", "newest", "next")
_DROPPED_AT_ONCE = 8  # a topic that drops its oldest is made of at least so many segments when it is full


class Lag(NamedTuple):
    """How far a label is behind: items not acknowledged, and seconds since the oldest of them was put."""

    items: int
    seconds: float


class _TopicParts(Parts):
    """What has to do with a topic: knows when an item was put."""

    catalog: TopicCatalog

    def time_of(self, name: SegmentName, i: int) -> float:
        """When item `i` of a segment was put, in seconds of the epoch; 0 if that cannot be known any more."""
        source = self.catalog.mapped(name)
        if source is None:
            return 0.0
        view = SegmentView(self.catalog, name, source, self.owner)
        try:
            return put_time(view.read(i, i + 1)[1], i) / 1000
        except Exception:  # a look for people's sake; the segment may be going, or damaged
            return 0.0
        finally:
            view.close()


class _PuttingParts(_TopicParts):
    """A producer."""

    producer: Producer

    def __init__(self, path: str, settings: Settings, serializer: str | Serializer | None) -> None:
        dumps, _ = codec(settings.serializer, serializer)
        super().__init__(path, settings, TopicCatalog)
        tally = stats.Tally(self.catalog)
        self.producer = Producer(self.catalog, self.owner, settings, dumps, tally, self.keeper, self.tidier)


class _SubscriptionParts(_TopicParts):
    """A consumer of one label."""

    consumer: Consumer

    def __init__(
        self, path: str, settings: Settings, serializer: str | Serializer | None, prefetch: int | None, label: str, start: str
    ) -> None:
        _, loads = codec(settings.serializer, serializer)
        super().__init__(path, settings, TopicCatalog)
        try:
            self.label = self.catalog.begin(label, start, self.time_of)
            self.of_label = LabelCatalog(path, settings, self.index, self.catalog.structure, self.label)
            loads_items = None if settings.serializer == "raw" else loads
            bell = self.label.bell
            self.consumer = Consumer(self.of_label, bell, self.owner, settings, loads_items, prefetch, self.keeper)
        except BaseException:
            self.close()
            raise
        if settings.ttl:
            self.tidier.attend(settings.ttl)


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
            }
        )
        if not os.path.exists(place):
            _refuse_contradictions(given)
            _choose_segment_size(given)
        settings = settle(place, "topic", given, create=create, allow_network_fs=allow_network_fs)
        self._describe(place, settings)
        self._serializer, self._allow_network_fs = serializer, allow_network_fs
        self._open()

    def _assemble(self) -> _PuttingParts:
        return _PuttingParts(self.path, self.settings, self._serializer)

    # --- labels ---

    def subscribe(self, label: str, start: str = "oldest", prefetch: int | None = None) -> Subscription:
        """A handle that gets the items of `label`, for this process; close it when done (closing the topic does not).

        The first subscription to a label, from whichever process, creates it and decides where it begins, in one step with
        respect to puts: "oldest" (default) with the oldest item stored, "newest" with the last one, "next" after it. For a
        label that is there already `start` has no meaning: it goes on where it was.

        `prefetch`: how many items to claim at once; None: about 2 ms of work, by measurement.

        Raises SettingsError for a label or a start that cannot be; StorageError.
        """
        return Subscription(
            self.path, label, start, prefetch, serializer=self._serializer, allow_network_fs=self._allow_network_fs
        )

    def labels(self) -> list[str]:
        """The labels there are, in the order of their text."""
        parts: _PuttingParts = self._open()
        return sorted(label.text for label in parts.catalog.labels.all())

    def remove_label(self, label: str) -> None:
        """Removes a label and frees what only it held back. Whoever is reading it gets LabelRemoved.

        Raises KeyError if there is no such label.
        """
        parts: _PuttingParts = self._open()
        with parts.catalog.structure:
            found = parts.catalog.labels.find(checked_label(label))
            if found is None:
                raise KeyError(label)
            parts.catalog.remove_label(found)
        parts.index.freed(1 << 30)

    # --- counting and stopping ---

    def qsize(self) -> int:
        """How many items are stored, roughly, as others go on: neither expired nor acknowledged by every label."""
        parts: _PuttingParts = self._open()
        with parts.tally_lock:
            return parts.tally.stored()[0]

    def __len__(self) -> int:
        return self.qsize()

    def __bool__(self) -> bool:
        return True

    def empty(self) -> bool:
        """Whether nothing is stored just now."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether `put` would have to wait (or drop something) just now."""
        parts: _PuttingParts = self._open()
        with parts.tally_lock:
            return parts.tally.full(self.settings)

    def stats(self) -> stats.Stats:
        """What the topic holds, who works on it, and how far each label is; see `segq.stats.Stats`."""
        parts: _PuttingParts = self._open()
        with parts.tally_lock:
            parts.catalog.look_again()
            catalog = parts.catalog
            labels = sorted(catalog.labels.all(), key=lambda label: label.text)
            of_labels = tuple(stats.label_stats(catalog, label, parts.time_of) for label in labels)
            return stats.collect(catalog, parts.tally, "topic", self.settings, of_labels)

    def shutdown(self, immediate: bool = False) -> None:
        """For all handles: `put` raises ShutDown from now on, `get` once its label has nothing left; lasts while any is open.

        With `immediate` `get` raises at once; nothing is dropped, each label finds its place again.
        """
        parts: _PuttingParts = self._open()
        parts.index.shutdown = 2 if immediate else max(1, parts.index.shutdown)
        if immediate:
            recall(parts.index)
        parts.catalog.bell.ring_all()
        parts.index.room.ring_all()

    def __reduce__(self) -> tuple[Any, ...]:
        return _described_topic, (self.path, self.settings, self._serializer, self._allow_network_fs)


class Subscription(Getting):
    """What one process gets of a label: the getting half of a queue's API, for the items of that label.

    Made by `Topic.subscribe`; whoever knows the path may make one directly. The processes that subscribe to the same label
    share its items as the consumers of a queue do, with the same guarantees; `missed` says what none of them will see.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        label: str,
        start: str = "oldest",
        prefetch: int | None = None,
        *,
        serializer: str | Serializer | None = None,
        allow_network_fs: bool = False,
    ) -> None:
        if start not in STARTS:
            raise SettingsError(f"start must be one of {', '.join(map(repr, STARTS))}, not {start!r}")
        prefetch = None if prefetch is None else whole_number("prefetch", prefetch)
        place, label = absolute(path), checked_label(label)
        given = {} if serializer is None else {"serializer": name_of(serializer)}
        settings = settle(place, "topic", given, create=False, allow_network_fs=allow_network_fs)
        self._describe(place, settings)
        self.label = label
        self._start, self._prefetch, self._serializer = start, prefetch, serializer
        self._allow_network_fs = allow_network_fs
        self._open()

    def _assemble(self) -> _SubscriptionParts:
        return _SubscriptionParts(self.path, self.settings, self._serializer, self._prefetch, self.label, self._start)

    def stats(self) -> stats.LabelStats:
        """How far the label is; see `segq.stats.LabelStats`."""
        parts: _SubscriptionParts = self._open()
        with parts.tally_lock:
            parts.of_label.names()  # says if the label was removed
            return stats.label_stats(parts.catalog, parts.label, parts.time_of)

    @property
    def lag(self) -> Lag:
        """How far the label is behind, in items and in seconds."""
        found = self.stats()
        return Lag(found.lag, found.lag_seconds)

    @property
    def missed(self) -> int:
        """How many items expired or were dropped before this label had them, since it began; exact."""
        return self.stats().missed

    def qsize(self) -> int:
        """How many items wait to be handed out to this label."""
        return self.stats().waiting

    def __len__(self) -> int:
        return self.qsize()

    def __bool__(self) -> bool:
        return True

    def empty(self) -> bool:
        """Whether `get` would have to wait just now."""
        return self.qsize() == 0

    def __repr__(self) -> str:
        return f"<segq.Subscription {self.label!r} of {self.path!r}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.label, self._start, self._prefetch, self._serializer, self._allow_network_fs)
        return _described_subscription, (self.path, self.settings, state)


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


def _described_subscription(path: str, settings: Settings, state: tuple[Any, ...]) -> Subscription:
    handle = Subscription.__new__(Subscription)
    handle._describe(path, settings)  # noqa: SLF001
    handle.label, handle._start, handle._prefetch, handle._serializer, handle._allow_network_fs = state  # noqa: SLF001
    return handle
