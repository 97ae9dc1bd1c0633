"""`Subscription`: what one process gets of a label of a topic."""

from __future__ import annotations

import logging
import os
from typing import Any, NamedTuple

from segq._core.base.errors import SettingsError
from segq._core.base.serializers import Serializer, codec, name_of
from segq._core.base.settings import Settings, validated, whole_number
from segq._core.directory import tally
from segq._core.directory.creation import absolute, settle
from segq._core.directory.label_catalog import LabelCatalog
from segq._core.directory.labels import checked_label
from segq._core.directory.topic_catalog import TopicCatalog
from segq._core.format.blocks import put_time
from segq._core.format.format import SegmentName
from segq._core.take.consumer import Consumer
from segq._core.take.dead_letter_writer import Burial
from segq._core.take.reader import SegmentView
from segq.handles.dead import DeadLetters
from segq.handles.getting import Getting
from segq.handles.handle import Parts

log = logging.getLogger("segq")

STARTS = ("oldest", "newest", "next")


class Lag(NamedTuple):
    """How far a label is behind: items not acknowledged, and seconds since the oldest of them was put."""

    items: int
    seconds: float


class TopicParts(Parts):
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
            log.debug("cannot say when item %s of %s was put", i, name, exc_info=True)
            return 0.0
        finally:
            view.close()


class SubscriptionParts(TopicParts):
    """A consumer of one label."""

    consumer: Consumer

    def __init__(
        self,
        path: str,
        settings: Settings,
        serializer: str | Serializer | None,
        prefetch: int | None,
        label: str,
        start: str,
        oldest_first: bool,
    ) -> None:
        _, loads = codec(settings.serializer, serializer)
        super().__init__(path, settings, TopicCatalog)
        try:
            self.label = self.catalog.begin(label, start, self.time_of)
            self.of_label = LabelCatalog(path, settings, self.index, self.catalog.structure, self.label)
            loads_items = None if settings.serializer == "raw" else loads
            bell = self.label.bell
            self.dead = DeadLetters(path, settings, loads, None)
            burial = Burial(self.dead, settings.serializer, label)
            if self.rescued:
                burial.rescue()
            self.consumer = Consumer(
                self.of_label, bell, self.owner, settings, loads_items, prefetch, self.keeper, burial, oldest_first=oldest_first
            )
        except BaseException:
            self.close()
            raise
        if settings.ttl:
            self.tidier.attend(settings.ttl)


class Subscription(Getting):
    """What one process gets of a label: the getting half of a queue's API, for the items of that label.

    Made by `Topic.subscribe`; whoever knows the path may make one directly. The processes that subscribe to the same label
    share its items as the consumers of a queue do, with the same guarantees; `missed` says what none of them will see.
    `oldest_first`: as for `Queue`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        label: str,
        start: str = "oldest",
        prefetch: int | None = None,
        *,
        serializer: str | Serializer | None = None,
        max_deliveries: int | None = None,
        allow_network_fs: bool = False,
        oldest_first: bool = False,
    ) -> None:
        if start not in STARTS:
            raise SettingsError(f"start must be one of {', '.join(map(repr, STARTS))}, not {start!r}")
        prefetch = None if prefetch is None else whole_number("prefetch", prefetch)
        place, label = absolute(path), checked_label(label)
        named = None if serializer is None else name_of(serializer)
        given = validated({"serializer": named, "max_deliveries": max_deliveries})
        settings = settle(place, "topic", given, create=False, allow_network_fs=allow_network_fs)
        self._describe(place, settings)
        self.label = label
        self._start, self._prefetch, self._serializer = start, prefetch, serializer
        self._allow_network_fs, self._oldest_first = allow_network_fs, oldest_first
        self._open()

    def _assemble(self) -> SubscriptionParts:
        return SubscriptionParts(
            self.path, self.settings, self._serializer, self._prefetch, self.label, self._start, self._oldest_first
        )

    def stats(self) -> tally.LabelStats:
        """How far the label is; see `segq.LabelStats`."""
        parts: SubscriptionParts = self._open()
        with parts.tally_lock:
            parts.of_label.names()  # says if the label was removed
            return tally.label_stats(parts.catalog, parts.label, parts.time_of)

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

    def __repr__(self) -> str:
        return f"<segq.Subscription {self.label!r} of {self.path!r}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.label, self._start, self._prefetch, self._serializer, self._allow_network_fs, self._oldest_first)
        return _described_subscription, (self.path, self.settings, state)


def _described_subscription(path: str, settings: Settings, state: tuple[Any, ...]) -> Subscription:
    handle = Subscription.__new__(Subscription)
    handle._describe(path, settings)  # noqa: SLF001
    handle.label, handle._start, handle._prefetch, handle._serializer = state[:4]  # noqa: SLF001
    handle._allow_network_fs, handle._oldest_first = state[4:]  # noqa: SLF001
    return handle
