"""What a topic promises, for every engine, through the public API."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from engines import Engine

import segq


def test_every_label_gets_every_item_and_shares_its_work(engine: Engine) -> None:
    t = engine.topic()
    t.put_many(range(4))
    with t.subscribe("mail") as mail, t.subscribe("log") as log, t.subscribe("mail") as other:
        first = mail.get_many(2, timeout=10)
        assert sorted(first + other.get_many(9, timeout=10)) == [0, 1, 2, 3]
        assert log.get_many(9, timeout=10) == [0, 1, 2, 3]
        assert t.labels() == ["log", "mail"]
        for each in (mail, log, other):
            with pytest.raises(segq.Empty):
                each.get_nowait()


def test_items_wait_for_the_first_label_and_go_when_all_have_them(engine: Engine) -> None:
    t = engine.topic()
    t.put("early")
    assert t.qsize() == 1
    with t.subscribe("a") as a, t.subscribe("b") as b:
        assert a.get(timeout=10) == "early"
        assert t.qsize() == 1
        assert b.get(timeout=10) == "early"
        assert t.empty()
        t.put("late")
        t.remove_label("a")
        assert b.get(timeout=10) == "late"
    t.remove_label("b")
    t.put("between")
    with t.subscribe("c") as c:
        assert c.get(timeout=10) == "between"


def test_a_label_begins_where_it_is_told_to(engine: Engine) -> None:
    t = engine.topic()
    t.put_many([1, 2, 3])
    with t.subscribe("all") as everything, t.subscribe("last", "newest") as last, t.subscribe("next", "next") as following:
        t.put(4)
        assert everything.get_many(9, timeout=10) == [1, 2, 3, 4]
        assert last.get_many(9, timeout=10) == [3, 4]
        assert following.get_many(9, timeout=10) == [4]
        with pytest.raises(segq.SettingsError, match="start"):
            t.subscribe("x", "middle")


@pytest.mark.parametrize("label", ["mail", "é and spaces", "a.b.*.>", "", "x" * 500])
def test_any_text_is_a_label(engine: Engine, label: str) -> None:
    t = engine.topic()
    t.put(1)
    with t.subscribe(label) as s:
        assert s.label == label
        assert t.labels() == [label]
        assert s.get(timeout=10) == 1


def test_a_label_goes_on_where_it_was(engine: Engine) -> None:
    address = engine.address()
    t = engine.topic(address)
    t.put_many([1, 2, 3])
    with t.subscribe("mail") as s:
        assert s.get(timeout=10) == 1
    t.close()
    other = engine.topic(address)
    with other.subscribe("mail", "next") as s:
        assert s.get_many(9, timeout=10) == [2, 3]


def test_a_removed_label_says_so_to_whoever_reads_it(engine: Engine) -> None:
    t = engine.topic()
    t.put(1)
    with t.subscribe("mail") as s:
        assert s.get(timeout=10) == 1
        remover = threading.Timer(0.2, lambda: t.remove_label("mail"))
        remover.start()
        with pytest.raises(segq.LabelRemoved):
            s.get(timeout=20)
        remover.join()
    with pytest.raises(KeyError):
        t.remove_label("mail")


def test_an_item_is_not_delivered_after_its_time(engine: Engine) -> None:
    t = engine.topic(ttl=1.0)
    t.put("old")
    t.put("shorter", ttl=0.4)
    with t.subscribe("all") as everything, t.subscribe("late", "next") as late:
        assert everything.peek(2) == ["old", "shorter"]
        time.sleep(0.5)  # the time is what is tested
        assert everything.get_many(9, timeout=10) == ["old"]
        t.put("newer")
        time.sleep(1.1)
        with pytest.raises(segq.Empty):
            late.get_nowait()
        with pytest.raises(segq.Empty):
            everything.get_nowait()


def test_retained_items_are_there_for_late_labels(engine: Engine) -> None:
    t = engine.topic(ttl=60, retain="ttl")
    t.put_many([1, 2])
    with t.subscribe("early") as early:
        assert early.get_many(9, timeout=10) == [1, 2]
    with t.subscribe("late") as late:
        assert late.get_many(9, timeout=10) == [1, 2]


def test_the_slowest_label_sets_the_pace(engine: Engine) -> None:
    t = engine.topic(capacity=2)
    with t.subscribe("fast") as fast, t.subscribe("slow") as slow:
        t.put_many([1, 2])
        assert fast.get_many(9, timeout=10) == [1, 2]
        assert t.full()
        with pytest.raises(segq.Full):
            t.put_nowait(3)
        assert slow.get(timeout=10) == 1
        t.put(3, timeout=10)
        assert slow.get_many(9, timeout=10) == [2, 3]


def test_a_full_topic_may_drop_its_oldest(engine: Engine) -> None:
    t = engine.topic(capacity=8, on_full="drop_oldest")
    with t.subscribe("slow") as slow:
        for n in range(20):
            t.put(n, timeout=10)
        got = slow.get_many(50, timeout=10)
        assert len(got) <= 8
        assert got == list(range(20 - len(got), 20))
        with engine.may_be_unsupported("missed"):
            assert slow.missed == 20 - len(got)


def test_lag_and_stats(engine: Engine) -> None:
    t = engine.topic()
    with t.subscribe("mail") as mail, t.subscribe("log") as log:
        t.put_many(range(5))
        message = mail.receive(timeout=10)
        log.get_many(9, timeout=10)
        assert mail.lag.items == 5
        assert 0 <= mail.lag.seconds < 60
        assert log.lag == (0, 0.0)
        assert (mail.missed, log.missed) == (0, 0)
        found: dict[str, Any] = {each.label: each for each in t.stats().labels}
        assert (found["mail"].waiting, found["mail"].claimed, found["mail"].lag) == (4, 1, 5)
        assert found["mail"].position == message.id
        message.ack()
        assert mail.lag.items == 4
        assert mail.purge() == 4
        assert t.qsize() == 0


def test_settings_of_topics(engine: Engine) -> None:
    address = engine.address()
    t = engine.topic(address, ttl=60, capacity=10)
    assert (t.settings.ttl, t.settings.capacity) == (60.0, 10)
    with pytest.raises(segq.NotAQueueError):
        engine.queue(address)
    assert segq.kind_of(address) == "topic"
    for settings in ({"retain": "ttl"}, {"on_full": "drop_oldest"}, {"on_full": "explode"}):
        with pytest.raises(segq.SettingsError, match=next(iter(settings))):
            engine.topic(**settings)


def test_a_label_has_dead_letters_of_its_own(engine: Engine) -> None:
    t = engine.topic()
    t.put("bad")
    with t.subscribe("strict", max_deliveries=1) as strict, t.subscribe("easy") as easy:
        strict.receive(timeout=10).nack()
        assert easy.get(timeout=10) == "bad"
        (letter,) = t.dead.peek(9)
        assert (letter.value, letter.label, letter.reason) == ("bad", "strict", "handed out once and not acknowledged")
        with pytest.raises(segq.QueueError, match="topic"):
            t.dead.requeue()
    assert t.empty()
