"""Topics: labels, where they begin, what they miss, how long items stay."""

from __future__ import annotations

import contextlib
import errno
import itertools
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from accounts import until

import segq
import segq._core.system.mapped
from segq._core.format import format as fmt

PATIENCE = 20.0


class Clock:
    """The clock by which items expire; it can be moved, and goes on from there."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._time, self._time_ns = time.time, time.time_ns

    def time(self) -> float:
        return self._time() + self.offset

    def time_ns(self) -> int:
        return self._time_ns() + int(self.offset * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(time, "time_ns", clock.time_ns)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "topic")


@pytest.fixture
def topic(path: str) -> Iterator[segq.Topic]:
    with segq.Topic(path, segment_items=8) as topic:
        yield topic


def segments(path: str) -> list[str]:
    return sorted(entry for entry in os.listdir(path) if fmt.parse_segment(entry))


def rest_of(subscription: segq.Subscription) -> list[Any]:
    """All that is there now."""
    found: list[Any] = []
    while True:
        try:
            found += subscription.get_many(1000, block=False)
        except segq.Empty:
            return found


# --- every label sees every item --------------------------------------------------------------------------------------


def test_each_label_gets_every_item_in_order(topic: segq.Topic) -> None:
    with topic.subscribe("a") as a, topic.subscribe("b") as b:
        for n in range(30):
            topic.put(n)
        topic.put_many(range(30, 60))
        assert rest_of(a) == list(range(60))
        assert rest_of(b) == list(range(60))
        assert rest_of(a) == []


def test_handles_of_one_label_share_its_items(topic: segq.Topic) -> None:
    with topic.subscribe("a", prefetch=1) as one, topic.subscribe("a", prefetch=1) as two:
        topic.put_many(range(20))
        found = [handle.get(timeout=PATIENCE) for _ in range(10) for handle in (one, two)]
        assert sorted(found) == list(range(20))
        assert one.empty()
        assert two.empty()


def test_a_put_wakes_a_consumer_of_each_label(topic: segq.Topic) -> None:
    got: dict[str, Any] = {}
    handles = {label: topic.subscribe(label) for label in "abc"}

    def wait(label: str) -> None:
        got[label] = handles[label].get(timeout=PATIENCE)

    threads = [threading.Thread(target=wait, args=(label,)) for label in handles]
    for thread in threads:
        thread.start()
    topic.put("here")
    for thread in threads:
        thread.join(PATIENCE)
    assert got == {"a": "here", "b": "here", "c": "here"}
    for handle in handles.values():
        handle.close()


def test_a_subscription_has_the_consuming_api_of_a_queue(topic: segq.Topic) -> None:
    with topic.subscribe("a") as s:
        topic.put_many(["w", "x", "y", "z"])
        assert s.peek(2) == ["w", "x"]
        first = s.receive()
        first.nack()
        again = s.receive()
        assert (again.value, again.deliveries, again.id) == ("w", 2, first.id)
        assert abs(again.enqueued_at - time.time()) < PATIENCE
        again.extend(5)
        again.ack()
        with s.receive() as message:
            assert message.value == "x"
        assert [m.value for m in s.receive_many(5)] == ["y", "z"]
        with pytest.raises(segq.Empty):
            s.get_nowait()
        with pytest.raises(segq.Empty):
            s.get(timeout=0.01)


def test_messages_acknowledges_what_was_worked_on_and_gives_back_what_failed(topic: segq.Topic) -> None:
    with topic.subscribe("a") as s:
        topic.put_many(["good", "bad", "later"])

        def work() -> None:
            for message in s.messages(timeout=0):
                if message.value == "bad":
                    raise OSError("no")

        with pytest.raises(OSError, match="no"):
            work()
        assert s.stats().acknowledged == 1
        values = [message.value for message in s.messages(timeout=0.2)]
        assert sorted(values) == ["bad", "later"]
        assert s.lag == (0, 0.0)


def test_purge_is_of_one_label(topic: segq.Topic) -> None:
    with topic.subscribe("a") as a, topic.subscribe("b") as b:
        topic.put_many(range(20))
        assert a.purge() == 20
        assert rest_of(a) == []
        assert rest_of(b) == list(range(20))


def test_a_lease_that_runs_out_hands_the_item_to_another_of_the_label(path: str) -> None:
    with segq.Topic(path, lease=0.2) as topic, topic.subscribe("a") as one, topic.subscribe("a") as two:
        topic.put("x")
        held = one.receive()
        again = two.receive(timeout=PATIENCE)
        assert (again.value, again.deliveries) == ("x", 2)
        with pytest.raises(segq.ReceiptError):
            held.ack()
        again.ack()


# --- where a label begins ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
def test_oldest_newest_and_next(path: str, sealed: bool) -> None:
    topic = segq.Topic(path, segment_items=8)
    topic.put_many(range(5))
    topic.put_many(range(5, 13))
    if sealed:
        topic.close()
        topic = segq.Topic(path)
    with topic, topic.subscribe("o", "oldest") as o, topic.subscribe("n", "newest") as n, topic.subscribe("x", "next") as x:
        topic.put("new")
        assert sorted(rest_of(o), key=str) == sorted([*range(13), "new"], key=str)  # two producers, if it was sealed
        assert sorted(rest_of(n), key=str) == [12, "new"]
        assert rest_of(x) == ["new"]
        assert (o.missed, n.missed, x.missed) == (0, 0, 0)


def test_the_newest_of_several_producers_is_the_one_that_was_put_last(path: str, clock: Clock) -> None:
    with segq.Topic(path) as one, segq.Topic(path) as two:
        two.put("early")
        clock.offset += 1
        one.put("late")
        with one.subscribe("a", "newest") as a:
            assert rest_of(a) == ["late"]


def test_the_newest_of_an_empty_topic_is_the_next(topic: segq.Topic) -> None:
    with topic.subscribe("a", "newest") as a:
        assert rest_of(a) == []
        topic.put(1)
        assert rest_of(a) == [1]


def test_the_start_is_that_of_the_first_subscription(topic: segq.Topic) -> None:
    topic.put_many(range(3))
    with topic.subscribe("a", "next"), topic.subscribe("a", "oldest") as again:
        topic.put(3)
        assert rest_of(again) == [3]


def test_a_label_that_begins_late_in_a_segment_goes_on_when_it_is_resumed(path: str) -> None:
    with segq.Topic(path) as topic:
        topic.put(0)
    with segq.Topic(path) as topic, topic.subscribe("a", "next") as a:
        topic.put(1)  # into the segment that holds 0
        assert len(segments(path)) == 1
        assert rest_of(a) == [1]


def test_a_label_survives_that_everybody_leaves(path: str) -> None:
    with segq.Topic(path, segment_items=8) as topic, topic.subscribe("a") as a:
        topic.put_many(range(8))
        topic.put_many(range(8, 16))
        assert a.get_many(6) == list(range(6))
    with segq.Topic(path) as topic:
        assert topic.labels() == ["a"]
        with topic.subscribe("a") as a:
            assert rest_of(a) == list(range(6, 16))
            assert a.stats().acknowledged == 16


@pytest.mark.parametrize(
    "label",
    ["", ".", "..", "a/b", "../x", "%2F", "a\0b", "Ünï", "🐇", "x" * 1000, "y" * 180 + "1", "y" * 180 + "2", ".new", "%"],
)
def test_any_text_is_a_label(topic: segq.Topic, path: str, label: str) -> None:
    others = ["", "a", "x" * 1001, "y" * 180 + "3"]
    for other in others:
        topic.subscribe(other).close()
    with topic.subscribe(label, "next") as s:
        topic.put(1)
        assert rest_of(s) == [1]
    assert set(topic.labels()) == {label, *others}
    assert len(os.listdir(os.path.join(path, "labels"))) == len({label, *others})
    assert segq.check(path).ok


@pytest.mark.parametrize("label", [None, 5, b"bytes", "\ud800"])
def test_what_cannot_be_a_label_is_refused(topic: segq.Topic, label: Any) -> None:
    with pytest.raises(segq.SettingsError, match="label"):
        topic.subscribe(label)
    assert topic.labels() == []


def test_a_label_that_cannot_begin_is_not_there_and_can_begin_later(topic: segq.Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    real, subscription, failing = segq._core.system.mapped.mapping, None, 0
    while subscription is None:
        topic.put(failing)
        calls, failing = itertools.count(1), failing + 1

        def mapping(*arguments: Any, calls: Iterator[int] = calls, failing: int = failing) -> Any:
            if next(calls) == failing:
                raise OSError(errno.ENOMEM, "no more mappings")
            return real(*arguments)

        with monkeypatch.context() as patch, contextlib.suppress(segq.StorageError):
            patch.setattr(segq._core.system.mapped, "mapping", mapping)
            subscription = topic.subscribe("label", "next")
        assert topic.labels() == (["label"] if subscription else [])
    assert failing > 3
    topic.put("after")
    with subscription:
        assert subscription.get(timeout=PATIENCE) == "after"


def test_a_mistyped_start_is_refused(topic: segq.Topic) -> None:
    with pytest.raises(segq.SettingsError, match="start must be one of 'oldest', 'newest', 'next', not 'first'"):
        topic.subscribe("a", "first")
    assert topic.labels() == []


# --- how long items stay ----------------------------------------------------------------------------------------------


def test_items_wait_for_the_first_label(topic: segq.Topic) -> None:
    topic.put_many(range(20))
    assert topic.qsize() == 20
    with topic.subscribe("a") as a:
        assert rest_of(a) == list(range(20))
        assert topic.qsize() == 0


def test_a_segment_goes_when_every_label_is_done_with_it(topic: segq.Topic, path: str) -> None:
    with topic.subscribe("a") as a, topic.subscribe("b") as b:
        for n in range(4):
            topic.put_many(range(8 * n, 8 * n + 8))
        topic.put("last")
        assert rest_of(a) == [*range(32), "last"]
        assert len(segments(path)) == 5
        assert topic.qsize() == 33
        assert b.get_many(16) == list(range(16))
        assert rest_of(b) == [*range(16, 32), "last"]
        assert len(segments(path)) == 1
        assert topic.qsize() == 0
    topic.close()
    assert segments(path) == []


def test_a_label_that_comes_when_all_others_have_had_an_item_does_not_get_it(topic: segq.Topic) -> None:
    with topic.subscribe("a") as a:
        topic.put_many(range(6))
        messages = a.receive_many(6)
        messages[0].ack()
        messages[3].ack()
        with topic.subscribe("late") as late:
            assert topic.qsize() == 4
            assert rest_of(late) == [1, 2, 4, 5]
            assert late.stats().acknowledged == 4
            assert late.missed == 0


def test_items_that_stay_for_their_time_are_there_for_late_labels(path: str, clock: Clock) -> None:
    with segq.Topic(path, ttl=100, retain="ttl", segment_items=8) as topic, topic.subscribe("a") as a:
        topic.put_many(range(8))
        clock.offset += 60
        topic.put_many(range(8, 16))
        assert rest_of(a) == list(range(16))
        with topic.subscribe("late") as late:
            assert rest_of(late) == list(range(16))
        clock.offset += 60
        with topic.subscribe("later") as later:
            assert rest_of(later) == list(range(8, 16))
            assert later.missed == 0  # they were gone before it began
        assert topic.qsize() == 8


def test_removing_a_label_frees_what_only_it_held_back(topic: segq.Topic, path: str) -> None:
    with topic.subscribe("a") as a:
        topic.subscribe("slow").close()
        topic.put_many(range(8))
        topic.put_many(range(8, 16))
        rest_of(a)
        assert topic.qsize() == 16
        topic.remove_label("slow")
        assert topic.qsize() == 0
        assert len(segments(path)) <= 1
        assert topic.labels() == ["a"]
        with pytest.raises(KeyError, match="slow"):
            topic.remove_label("slow")


def test_who_reads_a_removed_label_is_told(topic: segq.Topic) -> None:
    ended: list[BaseException] = []
    with topic.subscribe("a") as a:

        def wait() -> None:
            try:
                a.get(timeout=PATIENCE)
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: topic.stats().owners, PATIENCE, "the reader is there")
        topic.remove_label("a")
        thread.join(PATIENCE)
        assert [type(error) for error in ended] == [segq.LabelRemoved]
        assert "'a'" in str(ended[0])
        topic.put(1)
        with pytest.raises(segq.LabelRemoved):
            a.get(timeout=1)
    with topic.subscribe("a") as again:
        assert rest_of(again) == [1]


# --- time to live -----------------------------------------------------------------------------------------------------


def test_what_has_expired_is_not_delivered_to_the_millisecond(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "time_ns", lambda: int(now * 1e9))
    with segq.Topic(path, ttl=10) as topic, topic.subscribe("a") as a, topic.subscribe("b") as b:
        topic.put("x")
        now = 1_800_000_009.999
        assert a.get(timeout=1) == "x"
        now = 1_800_000_010.0
        assert rest_of(b) == []
        assert (a.missed, b.missed) == (0, 1)


def test_what_was_claimed_ahead_expires_too(path: str, clock: Clock) -> None:
    with segq.Topic(path, ttl=50) as topic, topic.subscribe("a", prefetch=10) as a:
        topic.put_many(range(10))
        assert a.get() == 0  # nine more are in hand
        clock.offset += 51
        with pytest.raises(segq.Empty):
            a.get(timeout=0)
        assert a.missed == 9


def test_a_message_in_hand_does_not_expire(path: str, clock: Clock) -> None:
    with segq.Topic(path, ttl=50) as topic, topic.subscribe("a") as a:
        topic.put("x")
        message = a.receive()
        clock.offset += 51
        message.ack()
        assert a.missed == 0


def test_more_than_256_live_items_after_an_expiry_all_stay_readable(path: str, clock: Clock) -> None:
    """RocksQ 0.3.0 lost those beyond 256."""
    with segq.Topic(path, ttl=100) as topic, topic.subscribe("a") as a:
        topic.put_many(range(500))
        clock.offset += 60
        topic.put_many(range(500, 1500))
        clock.offset += 60
        assert rest_of(a) == list(range(500, 1500))
        assert a.missed == 500


def test_an_idle_label_keeps_its_place_over_expiry_and_reopening(path: str, clock: Clock) -> None:
    """RocksQ 0.3.0 forgot the label."""
    with segq.Topic(path, ttl=100, segment_items=8) as topic, topic.subscribe("idle") as idle:
        topic.put_many(range(8))
        assert idle.get() == 0
        clock.offset += 1000
        until(lambda: not segments(path), PATIENCE, "what has expired is gone")
    clock.offset += 1000
    with segq.Topic(path) as topic:
        assert topic.labels() == ["idle"]
        topic.put("new")
        with topic.subscribe("idle", "next") as idle:
            assert rest_of(idle) == ["new"]
            assert idle.missed == 7


def test_missed_counts_what_was_lost_whoever_looks_and_after_the_segments_are_gone(path: str, clock: Clock) -> None:
    """RocksQ 0.3.0 did not always say so."""
    with segq.Topic(path, ttl=100, segment_items=8) as topic, topic.subscribe("a") as a, topic.subscribe("b") as b:
        for n in range(5):
            topic.put_many(range(8 * n, 8 * n + 8))
        assert len(a.get_many(11)) == 11
        a_had = a.stats().acknowledged
        clock.offset += 101
        assert (a.missed, b.missed) == (40 - a_had, 40)
        topic.put("new")
        until(lambda: len(segments(path)) == 1, PATIENCE, "what has expired is gone")
        assert (a.missed, b.missed) == (40 - a_had, 40)
        assert (rest_of(a), rest_of(b)) == (["new"], ["new"])
        with topic.subscribe("c") as c:
            assert c.missed == 0


def test_space_is_given_back_though_nobody_puts_or_gets(path: str) -> None:
    with segq.Topic(path, ttl=0.2, segment_items=8) as topic:
        topic.put_many(range(8))
        topic.put_many(range(8))
        assert segments(path)
        until(lambda: not segments(path), PATIENCE, "what has expired is gone")
        assert topic.qsize() == 0


def test_times_to_live_of_single_items(topic: segq.Topic, clock: Clock) -> None:
    with topic.subscribe("a") as a, topic.subscribe("b") as b:
        topic.put("stays")
        topic.put("goes", ttl=5)
        topic.put_many(["go", "too"], ttl=7)
        topic.put("stays too")
        clock.offset += 6
        assert rest_of(a) == ["stays", "go", "too", "stays too"]
        clock.offset += 6
        assert rest_of(b) == ["stays", "stays too"]
        assert (a.missed, b.missed) == (1, 3)


def test_times_to_live_in_a_queue(path: str, clock: Clock) -> None:
    with segq.Queue(path, capacity=5) as q:
        q.put(0)
        q.put("goes", ttl=5)
        q.put_many([1, 2], ttl=50)
        q.put(3)
        with pytest.raises(segq.Full):
            q.put(4, block=False)
        clock.offset += 6
        assert q.qsize() == 4
        q.put(4, block=False)  # what has expired takes no room
        assert [q.get(timeout=1) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert q.empty()
        assert q.stats().expired == 1
        for _ in range(5):
            q.task_done()
        q.join(timeout=PATIENCE)


@pytest.mark.parametrize("ttl", [0, -1, "5", True, float("nan")])
def test_a_time_to_live_must_be_a_positive_number(topic: segq.Topic, ttl: Any) -> None:
    with pytest.raises(segq.SettingsError, match="ttl"):
        topic.put(1, ttl=ttl)
    assert topic.qsize() == 0


def test_a_clock_that_jumps_loses_nothing_that_has_not_expired_by_it(path: str, clock: Clock) -> None:
    with segq.Topic(path, ttl=100, segment_items=4) as topic, topic.subscribe("a") as a:
        topic.put("before")
        clock.offset -= 1000
        topic.put("back")
        clock.offset += 1050
        topic.put("again")
        assert rest_of(a) == ["before", "again"]  # by the new clock "back" is 1,050 s old
        assert a.missed == 1
        clock.offset += 40
        topic.put("last")
        assert rest_of(a) == ["last"]


def test_an_expiring_item_survives_that_the_ledger_is_lost(path: str, clock: Clock) -> None:
    with segq.Topic(path, ttl=100) as topic:
        topic.put_many(range(4))
    (name,) = segments(path)
    os.unlink(os.path.join(path, name, "ledger"))
    assert segq.check(path, fix=True).ok
    with segq.Topic(path) as topic, topic.subscribe("a") as a, topic.subscribe("b") as b:
        assert rest_of(a) == list(range(4))
        clock.offset += 101
        assert rest_of(b) == []


# --- capacity ---------------------------------------------------------------------------------------------------------


def test_a_full_topic_blocks_until_the_slowest_label_has_acknowledged(path: str) -> None:
    with segq.Topic(path, capacity=10) as topic, topic.subscribe("a") as a, topic.subscribe("b") as b:
        topic.put_many(range(10))
        assert topic.full()
        with pytest.raises(segq.Full):
            topic.put_nowait(10)
        assert a.get_many(10) == list(range(10))
        with pytest.raises(segq.Full):
            topic.put(10, timeout=0.05)
        message = b.receive()
        putter = threading.Thread(target=topic.put, args=(10,))
        putter.start()
        message.ack()
        putter.join(PATIENCE)
        assert not putter.is_alive()
        assert topic.qsize() == 10
        with pytest.raises(segq.Full):
            topic.put_nowait(11)


def test_a_late_label_does_not_make_the_topic_too_full(path: str) -> None:
    with segq.Topic(path, capacity=10) as topic, topic.subscribe("a") as a:
        topic.put_many(range(10))
        a.get_many(6)
        stored = topic.qsize()
        with topic.subscribe("late") as late:
            assert topic.qsize() == stored
            assert len(rest_of(late)) == stored


def test_expired_items_make_room(path: str, clock: Clock) -> None:
    with segq.Topic(path, capacity=4, ttl=100) as topic, topic.subscribe("a") as a:
        topic.put_many(range(4))
        clock.offset += 101
        topic.put_many(range(4, 8), block=False)
        assert rest_of(a) == list(range(4, 8))
        assert a.missed == 4


def test_byte_limits_count_what_is_stored(path: str) -> None:
    with segq.Topic(path, max_bytes=1000, serializer="raw") as topic, topic.subscribe("a") as a, topic.subscribe("b") as b:
        topic.put(b"x" * 900)
        with pytest.raises(segq.Full):
            topic.put(b"y" * 200, block=False)
        assert len(a.get()) == 900
        with pytest.raises(segq.Full):
            topic.put(b"y" * 200, block=False)
        assert len(b.get()) == 900
        topic.put(b"y" * 200, block=False)
        assert topic.stats().bytes == 200


def test_the_oldest_are_dropped_and_each_label_is_told(path: str) -> None:
    with (
        segq.Topic(path, capacity=80, on_full="drop_oldest") as topic,
        topic.subscribe("a", prefetch=5) as a,
        topic.subscribe("b") as b,
    ):
        topic.put_many(range(40))
        assert [a.get() for _ in range(3)] == [0, 1, 2]
        for n in range(40, 300):
            topic.put(n, block=False)
        assert topic.qsize() <= 80
        left = rest_of(b)
        assert left == list(range(300 - len(left), 300))
        assert len(left) >= 60
        assert b.missed == 300 - len(left)
        assert rest_of(a) == left
        assert a.missed == 300 - len(left) - 3


def test_a_batch_for_which_nothing_can_be_dropped_is_refused_whole(path: str) -> None:
    with segq.Topic(path, capacity=8, on_full="drop_oldest") as topic:
        topic.put_many(range(8))
        with pytest.raises(segq.ItemTooLarge):
            topic.put_many(range(9))
        assert topic.qsize() == 8


# --- settings, processes, counts --------------------------------------------------------------------------------------


def test_settings_are_kept_and_a_conflict_is_named(path: str) -> None:
    segq.Topic(path, ttl=5, capacity=100, on_full="drop_oldest").close()
    with segq.Topic(path) as topic:
        assert (topic.settings.ttl, topic.settings.on_full, topic.settings.retain) == (5, "drop_oldest", "until-acked")
    with pytest.raises(segq.SettingsConflict, match="ttl"):
        segq.Topic(path, ttl=6)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ttl": 0}, "ttl"),
        ({"on_full": "drop"}, "on_full"),
        ({"on_full": "drop_oldest"}, "capacity"),
        ({"retain": "ttl"}, "ttl"),
        ({"retain": 5}, "retain"),
    ],
)
def test_bad_settings_are_refused_and_nothing_is_made(path: str, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(segq.SettingsError, match=named):
        segq.Topic(path, **settings)
    assert not os.path.exists(path)


def test_a_topic_is_no_queue_and_a_queue_no_topic(path: str, tmp_path: Path) -> None:
    segq.Topic(path).close()
    segq.Queue(tmp_path / "queue").close()
    with pytest.raises(segq.NotAQueueError, match=r"is a topic, not a queue; open it with segq\.Topic"):
        segq.Queue(path)
    with pytest.raises(segq.NotAQueueError, match=r"is a queue, not a topic; open it with segq\.Queue"):
        segq.Topic(tmp_path / "queue")
    assert (segq.kind_of(path), segq.kind_of(tmp_path / "queue")) == ("topic", "queue")


def test_a_subscription_to_nothing_is_refused(path: str) -> None:
    with pytest.raises(segq.NotAQueueError):
        segq.Subscription(path, "a")
    assert not os.path.exists(path)


def test_closed_handles_refuse_everything(topic: segq.Topic) -> None:
    s = topic.subscribe("a")
    s.close()
    for call in (s.get, s.messages, s.stats, s.qsize, s.purge, lambda: s.lag, lambda: s.missed):
        with pytest.raises(segq.ClosedError):
            call()
    topic.close()
    for call in (lambda: topic.put(1), topic.labels, topic.stats, topic.qsize, topic.full, topic.shutdown):
        with pytest.raises(segq.ClosedError):
            call()


def _take(subscription: segq.Subscription, topic: segq.Topic, count: int, answers: Any) -> None:
    with subscription, topic:
        for _ in range(count):
            answers.put((os.getpid(), subscription.get(timeout=PATIENCE)))
        topic.put("from the child")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_handles_go_to_children_of_any_start_method(path: str, method: str) -> None:
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    with segq.Topic(path) as topic, topic.subscribe("a") as a, topic.subscribe("b") as b:
        topic.put_many(range(4))
        child = context.Process(target=_take, args=(a, topic, 4, answers))
        child.start()
        taken = [answers.get() for _ in range(4)]
        child.join(PATIENCE)
        assert child.exitcode == 0
        assert taken == [(child.pid, n) for n in range(4)]
        assert rest_of(a) == ["from the child"]
        assert sorted(rest_of(b), key=str) == [*range(4), "from the child"]


def test_handles_can_be_pickled(topic: segq.Topic) -> None:
    with topic.subscribe("a") as a, pickle.loads(pickle.dumps(a)) as copy, pickle.loads(pickle.dumps(topic)) as other:
        other.put(1)
        assert copy.get(timeout=PATIENCE) == 1
        assert copy.label == "a"
        assert a.empty()


def test_stats_tell_of_each_label(topic: segq.Topic) -> None:
    with topic.subscribe("a") as a, topic.subscribe("b"):
        topic.put_many(range(20))
        held = a.receive_many(3)
        held[0].ack()
        held[1].nack()
        of_a, of_b = topic.stats().labels
        assert (of_a.label, of_a.lag, of_a.claimed, of_a.waiting, of_a.acknowledged) == ("a", 19, 1, 18, 1)
        assert (of_a.redelivered, of_a.missed) == (1, 0)
        assert (of_b.label, of_b.lag, of_b.claimed, of_b.waiting, of_b.acknowledged) == ("b", 20, 0, 20, 0)
        assert of_b.position is not None
        assert of_b.position.endswith("-0")
        assert 0 <= of_b.lag_seconds < PATIENCE
        assert topic.stats().kind == "topic"
        assert topic.stats().items == 20


def test_lag_is_in_items_and_seconds(topic: segq.Topic, clock: Clock) -> None:
    with topic.subscribe("a") as a:
        assert a.lag == (0, 0)
        topic.put(1)
        clock.offset += 100
        topic.put(2)
        items, seconds = a.lag
        assert items == 2
        assert 100 <= seconds < 100 + PATIENCE


def test_a_shutdown_ends_the_consumers_when_their_label_is_through(topic: segq.Topic) -> None:
    with topic.subscribe("a") as a:
        topic.put_many([1, 2])
        topic.shutdown()
        with pytest.raises(segq.ShutDown):
            topic.put(3)
        assert [message.value for message in a.messages()] == [1, 2]


def test_an_immediate_shutdown_drops_nothing(path: str) -> None:
    with segq.Topic(path) as topic, topic.subscribe("a") as a:
        topic.put_many([1, 2])
        topic.shutdown(immediate=True)
        with pytest.raises(segq.ShutDown):
            a.get()
    with segq.Topic(path) as topic, topic.subscribe("a") as a:
        assert rest_of(a) == [1, 2]


@pytest.mark.parametrize("durability", ["process", "power"])
def test_large_items_reach_every_label(path: str, durability: str) -> None:
    items = [os.urandom(size) for size in (10, 40_000, 300_000, 1 << 20)]
    with segq.Topic(path, durability=durability) as topic, topic.subscribe("a") as a, topic.subscribe("b") as b:
        for item in items:
            topic.put(item)
        topic.put_many(items)
        assert rest_of(a) == items + items
        assert rest_of(b) == items + items


def test_check_is_content_with_a_topic_in_every_state(topic: segq.Topic, path: str) -> None:
    with topic.subscribe("a") as a:
        topic.subscribe("idle").close()
        for n in range(5):
            topic.put_many(range(8 * n, 8 * n + 8))
        a.get_many(13)
        assert segq.check(path).ok
    topic.close()
    assert segq.check(path).ok


@pytest.mark.parametrize("start", ["oldest", "next"])
def test_what_the_last_label_was_done_with_stays_gone_when_it_is_removed(tmp_path: Path, start: str) -> None:
    with segq.Topic(tmp_path / "t", capacity=3) as topic:
        topic.put_many([1, 2])
        with topic.subscribe("only", start) as only:
            if start == "oldest":
                assert only.get_many(2) == [1, 2]
            topic.put_many([3, 4])
            topic.remove_label("only")
        assert topic.qsize() == 2
        topic.put(5)
        assert topic.full()
        with topic.subscribe("other") as other:
            assert other.get_many(9) == [3, 4, 5]
            assert (other.missed, other.stats().acknowledged) == (0, 3)
        assert topic.qsize() == 0


def test_a_new_label_gets_at_what_is_new_behind_many_old_segments(tmp_path: Path) -> None:
    with segq.Topic(tmp_path / "t", segment_items=2) as topic, topic.subscribe("idle"):
        topic.put_many(range(2))
        for n in range(50):
            topic.put_many([n, n])
        with topic.subscribe("new", "next") as new:
            topic.put("here")
            assert new.get(timeout=5) == "here"
            assert new.empty()
            assert new.stats().acknowledged == 1


def test_a_segment_that_was_there_before_a_label_is_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with segq.Topic(path) as topic:
        topic.put("before")
    early, late = segq.Subscription(path, "early"), segq.Subscription(path, "late", "next")
    with late, early, segq.Topic(path) as topic:
        with pytest.raises(segq.Empty):
            late.get(block=False)
        topic.put("after")
        assert late.get(timeout=5) == "after"
        assert sorted(early.get(timeout=5) for _ in range(2)) == ["after", "before"]


def test_a_segment_stays_of_which_all_but_the_last_item_had_expired_when_its_only_label_began(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with segq.Topic(path) as topic:
        topic.put("short", ttl=0.001)
        topic.put("long")
        until(lambda: topic.qsize() == 1, 5, "one has expired")
    with segq.Topic(path), segq.Subscription(path, "a") as a, segq.Subscription(path, "b") as b:
        assert [a.get(timeout=5), b.get(timeout=5)] == ["long", "long"]
        assert (a.missed, b.missed) == (0, 0)


def test_what_had_expired_behind_the_newest_item_when_a_label_began_is_not_missed(tmp_path: Path) -> None:
    with segq.Topic(tmp_path / "t") as topic:
        topic.put_many(["old", "newest"])
        topic.put("short", ttl=0.001)
        until(lambda: topic.qsize() == 2, 5, "one has expired")
        with topic.subscribe("a", "newest") as a:
            assert a.missed == 0
            assert a.get(timeout=5) == "newest"
            assert a.lag.items == 0
            assert a.missed == 0


def test_a_label_that_began_with_a_segment_is_not_taken_for_one_that_did_not_when_the_segment_was_renamed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t"
    with segq.Topic(path) as topic, topic.subscribe("a") as a:
        topic.put_many([1, 2])
        message = a.receive(timeout=5)
        catalog = topic._parts.catalog
        (seen,) = catalog.listed()
        source, label = catalog.mapped(seen), catalog.labels.find("a")
        topic._producer.roll()
        (now,) = catalog.listed()
        assert (seen.state, now.state) == ("loading", "chosen")
        assert catalog.labels.in_hand(seen, source), "as seen by somebody whose list was of the moment before"
        assert catalog.labels.ledger(label, seen, source) is not None
        message.ack()


def test_a_segment_that_cannot_be_removed_when_it_is_sealed_is_sealed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t"
    with segq.Topic(path) as topic, topic.subscribe("a") as a:
        topic.put_many([1, 2])
        assert a.get_many(2, timeout=5) == [1, 2]
        catalog = topic._parts.catalog
        with monkeypatch.context() as patch:
            patch.setattr(catalog, "retire", mock.Mock(side_effect=segq.StorageError("no room")))
            topic._producer.roll()
        topic.put(3)
        assert a.get(timeout=5) == 3
    assert segq.check(path).ok
