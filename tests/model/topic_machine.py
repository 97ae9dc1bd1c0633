"""A topic against a model of it: several producers, several labels with several handles each, and a clock that can be moved.

The model knows of each item when it expires and where it lies, and of each label what it has done with which item. The clock
stands still unless a rule moves it, so that what has expired is known to the millisecond; whenever something has newly expired
the topic is asked for its stats, which makes it notice. From then on an item is expired, also if the clock goes back: it takes no
room and counts as missed, though a label that has begun with its segment may still hand it out (`may`, not `must`).
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any, cast
from unittest import mock

import machine
from accounts import until
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machine import FAST_DISK, NUMBERS, PATIENCE, SIZES

import segq
from segq._core.format.format import SegmentName, parse_segment

LABELS = st.sampled_from(["a", "b", "c"])
STARTS = st.sampled_from(["oldest", "oldest", "newest", "next"])
PREFETCHES = st.sampled_from([None, 1, 2, 50])
TTLS = st.sampled_from([None, None, None, 0.001, 0.05, 1, 10, 100])
STEPS = st.sampled_from([0, 0, 1, 1, 2])  # milliseconds before something is put
LEAPS = st.sampled_from([1, 49, 50, 51, 900, 5_000, 20_000, 200_000])


@dataclasses.dataclass(slots=True, eq=False)
class Item:
    """`number` counts the items of one producer handle in the order put; times are milliseconds of the epoch."""

    data: bytes
    producer: int
    number: int
    segment: SegmentName
    put_at: int
    expires_at: int | None
    expired: bool = False
    dropped: bool = False
    acknowledged: bool = False  # by every label there was at some moment

    @property
    def stored(self) -> bool:
        return not (self.expired or self.dropped or self.acknowledged)


@dataclasses.dataclass(slots=True, eq=False)
class Share:
    """What a label has done with an item."""

    item: Item
    state: str = "waiting"  # | "out" | "done"
    handed: int = 0


@dataclasses.dataclass(slots=True, eq=False)
class Reader:
    label: Label
    subscription: segq.Subscription
    messages: list[tuple[segq.Message, Share]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True, eq=False)
class Label:
    text: str
    shares: dict[bytes, Share] = dataclasses.field(default_factory=dict)
    newest: dict[int, int] = dataclasses.field(default_factory=dict)  # of each producer, the number handed out last
    readers: list[Reader] = dataclasses.field(default_factory=list)

    def must(self) -> list[Share]:
        """What has to be handed out to whoever asks."""
        return [share for share in self.shares.values() if share.state == "waiting" and share.item.stored]

    def missed(self) -> int:
        return sum(s.state == "waiting" and (s.item.expired or s.item.dropped) for s in self.shares.values())

    def count(self, state: str) -> int:
        return sum(share.state == state for share in self.shares.values())


@dataclasses.dataclass(slots=True, eq=False)
class Writer:
    topic: segq.Topic
    producer: int
    puts: int = 0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000  # milliseconds of the epoch
        self._patches = [mock.patch("time.time", self._time), mock.patch("time.time_ns", self._time_ns)]

    def start(self) -> None:
        for patch in self._patches:
            patch.start()

    def stop(self) -> None:
        for patch in self._patches:
            patch.stop()

    def _time(self) -> float:
        return (self.now + 0.5) / 1000  # half a millisecond in, where no rounding matters

    def _time_ns(self) -> int:
        return self.now * 1_000_000 + 500_000


def settings_of_topic() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "segment_items": st.integers(1, 12),
            "segment_bytes": st.sampled_from([4096, 200_000, 16 << 20]),
            "capacity": st.sampled_from([None, None, 3, 10, 40]),
            "max_bytes": st.sampled_from([None, None, None, 1000, 400_000]),
            "on_full": st.sampled_from([None, "drop_oldest"]),
            "ttl": st.sampled_from([None, None, 0.05, 1, 10, 1000]),
            "retain": st.sampled_from([None, None, "ttl"]),
            "lease": st.sampled_from([None, None, 1000.0]),
            "durability": st.sampled_from(["process"] * 5 + ["power"]),
        }
    ).map(_without_contradictions)


def _without_contradictions(drawn: dict[str, Any]) -> dict[str, Any]:
    chosen = {name: value for name, value in drawn.items() if value is not None}
    if not chosen.keys() & {"capacity", "max_bytes"}:
        chosen.pop("on_full", None)
    if "ttl" not in chosen:
        chosen.pop("retain", None)
    return chosen


def kill(handle: segq.Topic | segq.Subscription) -> None:
    """What `machine.kill` does to a queue."""
    parts = handle._parts
    assert parts is not None
    parts.tidier.stop()
    if isinstance(handle, segq.Topic):
        machine.kill(cast("segq.Queue", handle))
    else:
        parts.keeper.stop()
        parts.owner.forget()
        machine.dead.append(cast("segq.Queue", handle))


class TopicMachine(RuleBasedStateMachine):
    """`lone`: one handle of each label gets, so that the order of each producer's items can be demanded."""

    lone = False
    thorough = False  # whether to wait at the end until the disk is given back

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(dir=FAST_DISK, prefix="segq-model-")
        self.path = os.path.join(self.directory, "topic")
        self.clock = Clock()
        self.went_back = False
        self.writers: list[Writer] = []
        self.items: dict[bytes, Item] = {}
        self.labels: dict[str, Label] = {}
        self.producers = 0

    @initialize(settings=settings_of_topic(), labels=st.sampled_from(["", "a", "ab", "ab"]), prefetch=PREFETCHES)
    def create(self, settings: dict[str, Any], labels: str, prefetch: int | None) -> None:
        self.settings = settings
        self.clock.start()
        self.writers = [self.made(segq.Topic(self.path, serializer="raw", **settings))]
        for label in labels:
            self.subscribe(0, label, "oldest", prefetch)

    def made(self, topic: segq.Topic) -> Writer:
        self.producers += 1
        return Writer(topic, self.producers)

    # --- what the model knows ---

    def writer(self, n: int) -> Writer:
        return self.writers[n % len(self.writers)]

    def readers(self) -> list[Reader]:
        return [reader for label in self.labels.values() for reader in label.readers]

    def getter(self, n: int) -> Reader:
        reader = self.readers()[n % len(self.readers())]
        return reader.label.readers[0] if self.lone else reader

    def others_hold(self, reader: Reader) -> bool:
        return any(other is not reader and other.subscription._consumer.holding() for other in reader.label.readers)

    def stored(self) -> list[Item]:
        return [item for item in self.items.values() if item.stored]

    def may(self, share: Share) -> bool:
        """Whether that item can be handed out now; expired once, it can be if the clock says that it has not."""
        item = share.item
        expires = item.expires_at is None or self.clock.now < item.expires_at
        return share.state == "waiting" and not item.dropped and expires

    def doubtful(self, label: Label) -> bool:
        """Whether there are items that may and need not be handed out."""
        return any(self.may(share) and not share.item.stored for share in label.shares.values())

    def note_acknowledged(self) -> None:
        if self.settings.get("retain") == "ttl" or not self.labels:
            return
        for item in self.items.values():
            shares = [label.shares.get(item.data) for label in self.labels.values()]
            if all(share is None or share.state == "done" for share in shares):
                item.acknowledged = True

    def advance(self, milliseconds: int) -> None:
        self.clock.now += milliseconds
        lapsed = [
            item
            for item in self.items.values()
            if not item.expired and item.expires_at is not None and item.expires_at <= self.clock.now
        ]
        if lapsed:
            self.writers[0].topic.stats()
            for item in lapsed:
                item.expired = True

    def came(self, reader: Reader, data: bytes) -> Share:
        """An item was handed out: it must be one that waits for this label."""
        label = reader.label
        assert data in self.items, f"never put: {data[:40]!r} ({len(data)} bytes)"
        assert data in label.shares, f"{data[:40]!r} is not for label {label.text}, which began later"
        share = label.shares[data]
        assert share.state == "waiting", f"{data[:40]!r} is {share.state} with {label.text}, and was handed out again"
        assert self.may(share), f"{data[:40]!r} was {'dropped' if share.item.dropped else 'expired'}, and came"
        if self.lone and not share.handed:
            item = share.item
            assert item.number > label.newest.get(item.producer, -1), f"{data[:40]!r} came after a later one of its producer"
            label.newest[item.producer] = item.number
        return share

    # --- putting ---

    def make(self, writer: Writer, sizes: list[int]) -> list[bytes]:
        made = []
        for k, size in enumerate(sizes):
            head = b"%d.%d:" % (writer.producer, writer.puts + k)
            made.append(head + (head * (size // len(head) + 1))[:size])
        return made

    def never_fits(self, data: list[bytes]) -> bool:
        capacity, most = self.settings.get("capacity"), self.settings.get("max_bytes")
        return bool((capacity and len(data) > capacity) or (most and sum(map(len, data)) > most))

    def fits(self, data: list[bytes]) -> bool:
        stored = self.stored()
        capacity, most = self.settings.get("capacity"), self.settings.get("max_bytes")
        size = sum(len(item.data) for item in stored) + sum(map(len, data))
        return (capacity is None or len(stored) + len(data) <= capacity) and (most is None or size <= most)

    def drop_for(self, data: list[bytes]) -> None:
        """Segments go, the oldest first, until there is room."""
        while not self.fits(data):
            oldest = min(item.segment for item in self.stored())
            for item in self.items.values():
                if item.segment == oldest:
                    item.dropped = True

    def check_put(self, writer: Writer, data: list[bytes], ttl: float | None, put: Callable[[], None]) -> None:
        fits, never = self.fits(data), self.never_fits(data)
        drops = "on_full" in self.settings
        try:
            put()
        except segq.Full:
            assert not never
            assert not drops, "Full, though the oldest can be dropped"
            assert not fits, f"Full, with {len(self.stored())} stored and {len(data)} more"
            return
        except segq.ItemTooLarge:
            assert never
            return
        assert not never
        assert fits or drops, f"stored {len(data)} more than there was room for"
        if not data:
            return
        self.drop_for(data)
        seconds = ttl if ttl is not None else self.settings.get("ttl")
        expires_at = None if seconds is None else self.clock.now + round(seconds * 1000)
        segment = writer.topic._producer._segment.name
        for k, each in enumerate(data):
            item = Item(each, writer.producer, writer.puts + k, segment, self.clock.now, expires_at)
            self.items[each] = item
            for label in self.labels.values():
                label.shares[each] = Share(item)
        writer.puts += len(data)

    @rule(n=NUMBERS, size=SIZES, ttl=TTLS, step=STEPS)
    def put(self, n: int, size: int, ttl: float | None, step: int) -> None:
        self.advance(step)
        writer = self.writer(n)
        (data,) = self.make(writer, [size])
        self.check_put(writer, [data], ttl, lambda: writer.topic.put(data, block=False, ttl=ttl))

    @rule(n=NUMBERS, sizes=st.lists(SIZES, max_size=15), ttl=TTLS, step=STEPS)
    def put_many(self, n: int, sizes: list[int], ttl: float | None, step: int) -> None:
        self.advance(step)
        writer = self.writer(n)
        data = self.make(writer, sizes)
        self.check_put(writer, data, ttl, lambda: writer.topic.put_many(data, block=False, ttl=ttl))

    # --- getting ---

    def found(self, reader: Reader, call: Callable[..., Any]) -> Any:
        """Calls with a patience that suffices if anything waits, and without any if nothing does."""
        if reader.label.must():
            return call(timeout=PATIENCE)
        try:
            return call(block=False)
        except segq.Empty:
            return None

    def finished(self, shares: list[Share]) -> None:
        for share in shares:
            share.state = "done"
        self.note_acknowledged()

    @precondition(lambda self: self.readers())
    @rule(n=NUMBERS)
    def get(self, n: int) -> None:
        reader = self.getter(n)
        data = self.found(reader, reader.subscription.get)
        if data is not None:
            self.finished([self.came(reader, data)])

    @precondition(lambda self: self.readers())
    @rule(n=NUMBERS, most=st.integers(1, 30))
    def get_many(self, n: int, most: int) -> None:
        reader = self.getter(n)
        found = self.found(reader, lambda **how: reader.subscription.get_many(most, **how)) or []
        assert len(set(found)) == len(found) <= most
        self.finished([self.came(reader, data) for data in found])

    def received(self, reader: Reader, message: segq.Message) -> None:
        share = self.came(reader, message.value)
        assert message.deliveries == share.handed + 1
        assert message.enqueued_at == share.item.put_at / 1000
        share.handed += 1
        share.state = "out"
        reader.messages.append((message, share))

    @precondition(lambda self: self.readers())
    @rule(n=NUMBERS)
    def receive(self, n: int) -> None:
        reader = self.getter(n)
        message = self.found(reader, reader.subscription.receive)
        if message is not None:
            self.received(reader, message)

    @precondition(lambda self: self.readers())
    @rule(n=NUMBERS, most=st.integers(1, 10))
    def receive_many(self, n: int, most: int) -> None:
        reader = self.getter(n)
        found = self.found(reader, lambda **how: reader.subscription.receive_many(most, **how)) or []
        assert len(found) <= most
        for message in found:
            self.received(reader, message)

    def message(self, n: int) -> tuple[segq.Message, Share]:
        out = [(reader, pair) for reader in self.readers() for pair in reader.messages]
        reader, pair = out[n % len(out)]
        reader.messages.remove(pair)
        return pair

    @precondition(lambda self: any(reader.messages for reader in self.readers()))
    @rule(n=NUMBERS)
    def ack(self, n: int) -> None:
        message, share = self.message(n)
        message.ack()
        self.finished([share])

    @precondition(lambda self: any(reader.messages for reader in self.readers()))
    @rule(n=NUMBERS)
    def nack(self, n: int) -> None:
        message, share = self.message(n)
        message.nack()
        share.state = "waiting"

    @precondition(lambda self: self.readers())
    @rule(n=NUMBERS, most=st.integers(1, 40))
    def peek(self, n: int, most: int) -> None:
        reader = self.getter(n)
        hoarded = self.others_hold(reader)
        found = reader.subscription.peek(most)
        shares = reader.label.shares
        assert all(data in shares and self.may(shares[data]) for data in found)
        assert len(set(found)) == len(found) <= most
        if not hoarded and not self.doubtful(reader.label):
            assert len(found) == min(most, len(reader.label.must()))

    @precondition(lambda self: self.readers())
    @rule(n=NUMBERS)
    def purge(self, n: int) -> None:
        reader = self.getter(n)
        if self.others_hold(reader) or self.doubtful(reader.label):
            return
        waiting = reader.label.must()
        assert reader.subscription.purge() == len(waiting)
        self.finished(waiting)

    # --- labels come and go ---

    @precondition(lambda self: len(self.readers()) < 8)
    @rule(n=NUMBERS, text=LABELS, start=STARTS, prefetch=PREFETCHES)
    def subscribe(self, n: int, text: str, start: str, prefetch: int | None) -> None:
        subscription = self.writer(n).topic.subscribe(text, start, prefetch)
        label = self.labels.get(text)
        if label is None:
            label = self.labels[text] = Label(text)
            label.shares = {item.data: Share(item) for item in self.begins_with(subscription, start)}
            self.note_acknowledged()
        label.readers.append(Reader(label, subscription))

    def begins_with(self, subscription: segq.Subscription, start: str) -> list[Item]:
        stored = self.stored()
        if start == "oldest":
            return stored
        if start == "next" or not stored:
            return []
        (data,) = subscription.peek(5)
        newest = self.items[data]
        assert newest in stored
        if not self.went_back:
            assert newest.put_at == max(item.put_at for item in stored)
            assert newest.number == max(item.number for item in stored if item.producer == newest.producer)
        return [newest]

    @precondition(lambda self: self.labels)
    @rule(n=NUMBERS, k=NUMBERS)
    def remove_label(self, n: int, k: int) -> None:
        label = self.labels.pop(sorted(self.labels)[k % len(self.labels)])
        self.writer(n).topic.remove_label(label.text)
        self.note_acknowledged()
        for reader in label.readers:
            self.check_removed(reader)

    def check_removed(self, reader: Reader) -> None:
        """What lay ready in the handle may still come; then it says that the label was removed."""
        subscription, came = reader.subscription, set[bytes]()
        for _ in range(len(self.items) + 1):
            try:
                data = subscription.get(timeout=PATIENCE)
            except segq.LabelRemoved:
                break
            assert data not in came
            assert self.may(reader.label.shares[data])
            came.add(data)
        else:
            raise AssertionError("a label that was removed goes on")
        for call in (subscription.stats, lambda: subscription.peek(1), lambda: subscription.receive(block=False)):
            try:
                call()
            except segq.LabelRemoved:
                continue
            raise AssertionError("the label was removed, and nobody was told")
        for message, _ in reader.messages:
            try:
                message.ack()
            except segq.ReceiptError:
                continue
        subscription.close()

    # --- handles come and go ---

    @precondition(lambda self: len(self.writers) < 4)
    @rule()
    def open(self) -> None:
        self.writers.append(self.made(segq.Topic(self.path)))

    def end(self, writer: Writer) -> None:
        self.writers.remove(writer)
        if not self.writers:
            self.writers = [self.made(segq.Topic(self.path))]

    def end_reading(self, reader: Reader) -> None:
        """The handle is no more: what it had out waits again."""
        reader.label.readers.remove(reader)
        for message, share in reader.messages:
            share.state = "waiting"
            try:
                message.ack()
            except segq.ReceiptError:
                continue
            raise AssertionError("a message of a handle that is no more could be acknowledged")

    @rule(n=NUMBERS)
    def close(self, n: int) -> None:
        writer = self.writer(n)
        writer.topic.close()
        self.end(writer)

    @rule(n=NUMBERS)
    def die(self, n: int) -> None:
        writer = self.writer(n)
        kill(writer.topic)
        self.rescue()
        self.end(writer)

    @precondition(lambda self: self.readers())
    @rule(n=NUMBERS)
    def unsubscribe(self, n: int) -> None:
        reader = self.readers()[n % len(self.readers())]
        reader.subscription.close()
        self.end_reading(reader)

    @precondition(lambda self: self.readers())
    @rule(n=NUMBERS)
    def die_reading(self, n: int) -> None:
        reader = self.readers()[n % len(self.readers())]
        kill(reader.subscription)
        self.rescue()
        self.end_reading(reader)

    @rule(topics_first=st.booleans(), deadly=st.booleans())
    def all_leave(self, topics_first: bool, deadly: bool) -> None:
        def leave_topics() -> None:
            for writer in self.writers:
                (kill if deadly else segq.Topic.close)(writer.topic)

        if topics_first:
            leave_topics()
        for reader in self.readers():
            (kill if deadly else segq.Subscription.close)(reader.subscription)
        if not topics_first:
            leave_topics()
        self.rescue()
        self.writers = [self.made(segq.Topic(self.path))]
        for reader in self.readers():
            self.end_reading(reader)

    def rescue(self) -> None:
        """Whoever opens it settles what the dead held."""
        segq.Topic(self.path).close()

    # --- time ---

    @rule(milliseconds=LEAPS)
    def leap(self, milliseconds: int) -> None:
        self.advance(milliseconds)

    @rule(milliseconds=LEAPS)
    def leap_back(self, milliseconds: int) -> None:
        self.went_back = True
        self.clock.now -= milliseconds
        time.sleep(0.002)  # a tidier that has just read the clock is done by then

    # --- always ---

    @invariant()
    def what_is_stored_is_right(self) -> None:
        capacity, most = self.settings.get("capacity"), self.settings.get("max_bytes")
        stored = self.stored()
        size = sum(len(item.data) for item in stored)
        assert capacity is None or len(stored) <= capacity
        assert most is None or size <= most
        for writer in self.writers:
            assert writer.topic.qsize() == len(stored)
            if capacity or most:
                full = bool((capacity and len(stored) >= capacity) or (most and size >= most))
                assert writer.topic.full() == full
        if self.writers:
            stats = self.writers[-1].topic.stats()
            assert stats.items == len(stored)
            assert stats.bytes == (size if most else None)
            assert stats.quarantined == 0
            assert [label.label for label in stats.labels] == sorted(self.labels)
            for label in stats.labels:
                self.check_label(self.labels[label.label], label)

    @invariant()
    def labels_are_right(self) -> None:
        for reader in self.readers():
            self.check_label(reader.label, reader.subscription.stats())
        if self.writers:
            assert self.writers[0].topic.labels() == sorted(self.labels)

    def check_label(self, label: Label, stats: segq.LabelStats) -> None:
        must, out = label.must(), label.count("out")
        assert stats.missed == label.missed(), f"label {label.text} missed {label.missed()}, and says {stats.missed}"
        assert stats.acknowledged == label.count("done")
        assert (stats.lag, stats.waiting, stats.claimed) == (len(must) + out, len(must), out)
        if must:
            behind = [share.item for share in label.shares.values() if share.state != "done"]
            assert stats.position is not None
            ages = {max(0, self.clock.now - item.put_at) for item in behind}
            assert round(stats.lag_seconds * 1000) in ages | {age + 1 for age in ages}, f"{stats}: not one of {sorted(ages)} ms"

    # --- the end ---

    def drain(self, subscription: segq.Subscription, label: Label) -> None:
        reader = Reader(label, subscription)
        while label.must():
            self.finished([self.came(reader, data) for data in subscription.get_many(7, timeout=PATIENCE)])
        while True:
            try:
                found = subscription.get_many(7, block=False)
            except segq.Empty:
                break
            self.finished([self.came(reader, data) for data in found])
        self.check_label(label, subscription.stats())
        assert subscription.missed + subscription.stats().acknowledged == len(label.shares)

    def teardown(self) -> None:
        try:
            if self.writers:
                self.finish()
        finally:
            self.clock.stop()
            shutil.rmtree(self.directory, ignore_errors=True)
            machine.dead.clear()

    def finish(self) -> None:
        for writer in self.writers:
            writer.topic.close()
        for reader in self.readers():
            reader.subscription.close()
            for _, share in reader.messages:
                share.state = "waiting"
        with segq.Topic(self.path) as topic, topic.subscribe("last") as last:
            self.writers = [self.made(topic)]
            label = self.labels["last"] = Label("last", {item.data: Share(item) for item in self.stored()})
            self.drain(last, label)
            for label in self.labels.values():
                with topic.subscribe(label.text, "next") as subscription:
                    self.drain(subscription, label)
            self.advance(10**9)
            left = self.stored()
            assert topic.qsize() == len(left) == 0 or self.settings.get("retain") == "ttl"
            self.check_gone(topic, last)

    def check_gone(self, topic: segq.Topic, last: segq.Subscription) -> None:
        """Nothing is left on the disk of what nobody needs any more."""

        def gone() -> bool:
            try:
                last.get(timeout=0.01)
            except segq.Empty:
                return not [entry for entry in os.listdir(self.path) if parse_segment(entry)]
            raise AssertionError("it was empty")

        if self.thorough and not self.stored():
            until(gone, PATIENCE, "segments are gone")
        topic.close()


class LoneConsumerMachine(TopicMachine):
    """One handle of each label gets at a time."""

    lone = True
