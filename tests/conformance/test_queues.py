"""What a queue promises, for every engine, through the public API."""

from __future__ import annotations

import pickle
import queue
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from accounts import ROOT, until
from engines import Engine

import segq


def test_items_come_out_in_the_order_put_and_once(engine: Engine) -> None:
    q = engine.queue()
    for n in range(10):
        q.put(n)
    q.put_many(range(10, 40))
    assert [q.get(timeout=10) for _ in range(5)] == list(range(5))
    got: list[int] = []
    while len(got) < 35:
        got += q.get_many(10, timeout=10)
    assert got == list(range(5, 40))
    with pytest.raises(segq.Empty):
        q.get_nowait()


@pytest.mark.parametrize(
    ("serializer", "value"),
    [(None, {"a": [1, "é", b"\x00", None, 1.5]}), ("json", {"a": [1, "é"]}), ("raw", b"\x00\xff"), ("pickle", {1, 2})],
)
def test_values_come_back_as_they_were(engine: Engine, serializer: str | None, value: Any) -> None:
    q = engine.queue(serializer=serializer)
    q.put(value)
    q.put_many([value, value])
    assert q.peek(1) == [value]
    assert q.get_many(3, timeout=10)[0] == value


def test_what_cannot_be_serialised_is_refused_and_nothing_stored(engine: Engine) -> None:
    q = engine.queue(serializer="raw")
    with pytest.raises(segq.SerializationError):
        q.put("text")
    with pytest.raises(segq.SerializationError):
        q.put_many([b"good", "bad"])
    assert q.empty()


def test_waiting_and_not_waiting_for_items(engine: Engine) -> None:
    q = engine.queue()
    for get in (q.get_nowait, lambda: q.get(False), lambda: q.get(timeout=0.05), lambda: q.get(timeout=0)):
        with pytest.raises(queue.Empty):
            get()
    begun = time.monotonic()
    with pytest.raises(segq.Empty):
        q.get_many(5, timeout=0.2)
    assert time.monotonic() - begun > 0.15
    for timeout in (-1, "soon", float("nan")):
        with pytest.raises(segq.SettingsError, match="timeout"):
            q.get(timeout=timeout)


def test_a_waiting_get_is_woken_by_a_put(engine: Engine) -> None:
    q = engine.queue()
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(q.get(timeout=20)))
    thread.start()
    q.put("wake up")
    thread.join(20)
    assert got == ["wake up"]


def test_get_many_takes_what_is_there_and_does_not_wait_for_the_rest(engine: Engine) -> None:
    q = engine.queue()
    q.put_many([1, 2])
    begun = time.monotonic()
    assert q.get_many(500, timeout=30) == [1, 2]
    assert time.monotonic() - begun < 20


def test_the_capacity_is_exact_and_counts_what_is_not_acknowledged(engine: Engine) -> None:
    q = engine.queue(capacity=3)
    q.put_many([1, 2])
    assert not q.full()
    q.put(3)
    assert q.full()
    for put in (lambda: q.put_nowait(4), lambda: q.put(4, timeout=0.05), lambda: q.put_many([4], block=False)):
        with pytest.raises(queue.Full):
            put()
    message = q.receive(timeout=10)
    with pytest.raises(segq.Full):
        q.put_nowait(4)
    message.ack()
    q.put(4, timeout=10)
    assert q.get_many(5, timeout=10) == [2, 3, 4]


def test_a_batch_goes_in_whole_or_not_at_all(engine: Engine) -> None:
    q = engine.queue(capacity=5)
    q.put_many([1, 2, 3])
    with pytest.raises(segq.Full):
        q.put_many([4, 5, 6], block=False)
    assert q.qsize() == 3
    q.put_many([4, 5], block=False)
    assert q.get_many(10, timeout=10) == [1, 2, 3, 4, 5]
    with pytest.raises(segq.ItemTooLarge):
        q.put_many(range(6))
    q.put_many([])
    assert q.empty()


def test_a_batch_of_any_size(engine: Engine) -> None:
    q = engine.queue()
    with engine.may_be_unsupported("large batch"):
        q.put_many(range(1500))
    got = []
    while len(got) < 1500:
        got += q.get_many(1000, timeout=10)
    assert got == list(range(1500))


def test_a_put_waits_for_room(engine: Engine) -> None:
    q = engine.queue(capacity=1)
    q.put("first")
    thread = threading.Thread(target=lambda: q.put("second", timeout=20))
    thread.start()
    assert q.get(timeout=10) == "first"
    thread.join(20)
    assert q.get(timeout=10) == "second"


def test_many_threads_never_exceed_the_capacity_and_lose_nothing(engine: Engine) -> None:
    q = engine.queue(capacity=10)
    got: list[int] = []
    most = 0

    def put(start: int) -> None:
        for n in range(start, start + 30):
            q.put(n, timeout=30)

    threads = [threading.Thread(target=put, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    while len(got) < 90:
        most = max(most, q.stats().items)
        got += q.get_many(5, timeout=30)
    for thread in threads:
        thread.join(30)
    assert most <= 10
    assert sorted(got) == [*range(30), *range(100, 130), *range(200, 230)]
    for start in (0, 100, 200):
        assert [n for n in got if start <= n < start + 30] == list(range(start, start + 30))


def test_a_message_stays_until_it_is_settled(engine: Engine) -> None:
    q = engine.queue()
    q.put("work")
    before = time.time()
    message = q.receive(timeout=10)
    assert (message.value, message.deliveries) == ("work", 1)
    assert abs(message.enqueued_at - before) < 60
    assert isinstance(message, segq.Message)
    with pytest.raises(segq.Empty):
        q.receive(block=False)
    identity = message.id
    message.nack()
    again = q.receive(timeout=10)
    assert (again.id, again.deliveries) == (identity, 2)
    with again:
        pass
    assert q.empty()
    for settle in (again.ack, again.nack, message.ack):
        with pytest.raises(segq.ReceiptError):
            settle()


def test_a_message_is_given_back_by_an_exception(engine: Engine) -> None:
    q = engine.queue()
    q.put("work")
    with pytest.raises(RuntimeError, match="on purpose"), q.receive(timeout=10):
        raise RuntimeError("on purpose")
    message = q.receive(timeout=10)
    assert message.deliveries == 2
    message.ack()


def test_what_was_given_back_comes_before_what_is_younger(engine: Engine) -> None:
    q = engine.queue()
    q.put_many([1, 2, 3])
    first = q.receive(timeout=10)
    first.nack()
    assert [q.get(timeout=10) for _ in range(3)] == [1, 2, 3]


def test_closing_gives_back_what_is_in_hand(engine: Engine) -> None:
    address = engine.address()
    q = engine.queue(address)
    q.put_many([1, 2, 3])
    assert len(q.receive_many(2, timeout=10)) == 2
    q.close()
    q.close()
    with pytest.raises(segq.ClosedError):
        q.get()
    other = engine.queue(address)
    got: list[int] = []
    until(lambda: got.extend(_some(other)) or len(got) == 3, 20, "all three come again")
    assert sorted(got) == [1, 2, 3]


def _some(q: Any) -> list[Any]:
    try:
        return list(q.get_many(10, timeout=1))
    except segq.Empty:
        return []


def test_a_lease_that_runs_out_hands_the_item_on(engine: Engine) -> None:
    q = engine.queue(lease=0.5)
    q.put("work")
    message = q.receive(timeout=10)
    again = q.receive(timeout=20)
    assert again.deliveries == 2
    with pytest.raises(segq.ReceiptError):
        message.ack()
    again.ack()
    with pytest.raises(segq.Empty):
        q.receive(block=False)


def test_a_lease_can_be_extended(engine: Engine) -> None:
    q = engine.queue(lease=1.0)
    q.put("work")
    message = q.receive(timeout=10)
    message.extend(4.0)
    with pytest.raises(segq.Empty):
        q.receive(timeout=2.0)
    message.ack()
    assert q.stats().items == 0


def test_a_lease_can_be_shortened(engine: Engine) -> None:
    q = engine.queue(lease=30.0)
    q.put("work")
    message = q.receive(timeout=10)
    with engine.may_be_unsupported("short extension"):
        message.extend(0.1)
    assert q.receive(timeout=10).deliveries == 2


def test_an_item_with_a_time_to_live_is_not_handed_out_after_it(engine: Engine) -> None:
    q = engine.queue()
    q.put("short", ttl=0.3)
    q.put_many(["short too"], ttl=0.3)
    q.put("long", ttl=60)
    assert q.peek(1) == ["short"]
    time.sleep(0.4)  # the time is what is tested
    assert q.get(timeout=10) == "long"
    with pytest.raises(segq.Empty):
        q.get_nowait()
    with pytest.raises(segq.SettingsError, match="ttl"):
        q.put(1, ttl=0)


def test_peek_takes_nothing_and_purge_takes_what_waits(engine: Engine) -> None:
    q = engine.queue()
    q.put_many(range(10))
    message = q.receive(timeout=10)
    assert q.peek(3) == [1, 2, 3]
    assert q.peek(100) == list(range(1, 10))
    assert q.qsize() == 9
    assert q.purge() == 9
    assert q.stats().items == 1
    message.ack()
    assert q.stats().items == 0


def test_stats_count(engine: Engine) -> None:
    address = engine.address()
    q = engine.queue(address, capacity=100)
    q.put_many(range(10))
    message = q.receive(timeout=10)
    stats = q.stats()
    assert isinstance(stats, segq.Stats)
    assert (stats.kind, stats.items, stats.claimed, stats.capacity) == ("queue", 10, 1, 100)
    assert 0 <= time.time() - (stats.oldest or 0) < 60
    message.ack()


def test_settings_stay_with_the_queue(engine: Engine) -> None:
    address = engine.address()
    q = engine.queue(address, capacity=7, serializer="json", lease=5)
    assert q.settings.capacity == 7
    other = engine.queue(address)
    assert (other.settings.capacity, other.settings.serializer, other.settings.lease) == (7, "json", 5.0)
    with pytest.raises(segq.SettingsConflict, match="capacity=7"):
        engine.queue(address, capacity=8)
    with pytest.raises(segq.NotAQueueError):
        engine.topic(address)
    assert segq.kind_of(address) == "queue"


def test_what_is_not_there_is_not_opened_and_what_is_removed_is_gone(engine: Engine) -> None:
    address = engine.address()
    with pytest.raises(segq.NotAQueueError):
        segq.connect(address, create=False)
    with pytest.raises(segq.NotAQueueError):
        segq.kind_of(address)
    with segq.connect(address) as q:
        q.put(1)
    segq.remove(address)
    with pytest.raises(segq.NotAQueueError):
        segq.remove(address)
    with segq.connect(address) as q:
        assert q.empty()


@pytest.mark.parametrize(
    "settings", [{"capacity": 0}, {"lease": -1}, {"serializer": "yaml"}, {"colour": "red"}, {"ttl": 5}, {"capacity": "many"}]
)
def test_settings_that_cannot_be_are_refused_by_name(engine: Engine, settings: dict[str, Any]) -> None:
    with pytest.raises(segq.SettingsError, match=next(iter(settings))):
        engine.queue(**settings)


@pytest.mark.parametrize(("setting", "value"), [("max_bytes", 1000), ("prefetch", 10)])
def test_other_settings(engine: Engine, setting: str, value: Any) -> None:
    with engine.may_be_unsupported(setting):
        engine.queue(**{setting: value})


def test_durability_against_loss_of_power(engine: Engine) -> None:
    with engine.may_be_unsupported("durability"):
        engine.queue(durability="power")


def test_join_waits_for_what_was_got(engine: Engine) -> None:
    q = engine.queue()
    q.put(1)
    assert q.get(timeout=10) == 1
    with engine.may_be_unsupported("join"):
        q.task_done()
    q.join(timeout=10)


def test_a_shutdown_reaches_everybody(engine: Engine) -> None:
    q = engine.queue()
    with engine.may_be_unsupported("shutdown"):
        q.shutdown()
    with pytest.raises(segq.ShutDown):
        q.put(1)


def test_a_handle_travels_to_another_process(engine: Engine) -> None:
    q = engine.queue()
    q.put("for the child")
    code = "import pickle, sys; q = pickle.load(sys.stdin.buffer); print(q.get(timeout=20)); q.put('from the child'); q.close()"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        input=pickle.dumps(q),
        capture_output=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert ended.stdout.decode() == "for the child\n", ended.stderr.decode()
    assert q.get(timeout=10) == "from the child"


def test_messages_are_an_iterator(engine: Engine) -> None:
    q = engine.queue()
    q.put_many([1, 2, 3])
    assert [message.value for message in q.messages(timeout=0.3)] == [1, 2, 3]
    assert q.stats().items == 0


def test_what_nobody_can_deal_with_goes_to_the_dead_letters_with_the_reason(engine: Engine) -> None:
    q = engine.queue(max_deliveries=2)
    q.put_many([{"n": 1}, "is rejected", "works"])
    for expected in (1, 2):
        message = q.receive(timeout=10)
        assert (message.value, message.deliveries) == ({"n": 1}, expected)
        message.nack()
    message = q.receive(timeout=10)
    message.reject("not a number")
    assert q.get(timeout=10) == "works"
    assert q.stats().items == 0
    assert len(q.dead) == q.stats().dead == 2
    first, second = q.dead.peek(9)
    assert (first.value, first.deliveries, first.reason) == ({"n": 1}, 2, "handed out 2 times and not acknowledged")
    assert (second.value, second.id, second.reason) == ("is rejected", message.id, "not a number")
    assert second.enqueued_at - 1 < second.dead_at < time.time() + 60
    assert q.dead.find(message.id) == second
    assert q.dead.requeue([first.id]) == 1
    assert q.get(timeout=10) == {"n": 1}
    assert [letter.id for letter in q.dead] == [message.id]
    with pytest.raises(segq.QueueError, match="again"):
        q.dead.receive(timeout=10).reject("again")
    assert q.dead.discard("no such") == 0


def test_an_item_whose_consumers_die_is_not_handed_out_for_ever(engine: Engine) -> None:
    q = engine.queue(max_deliveries=2, lease=0.3)
    q.put("kills")
    assert q.receive(timeout=10).deliveries == 1
    assert q.receive(timeout=10).deliveries == 2
    with pytest.raises(segq.Empty):
        q.receive(timeout=1)
    assert q.stats().items == 0
    assert "2 times" in q.dead.peek()[0].reason


def test_an_item_given_back_with_a_delay_comes_later_and_holds_nobody_up(engine: Engine) -> None:
    q = engine.queue()
    q.put_many([1, 2])
    q.receive(timeout=10).nack(delay=0.7)
    begun = time.monotonic()
    assert q.get(timeout=10) == 2
    assert q.get(timeout=10) == 1
    assert time.monotonic() - begun > 0.4
    q.put(3)
    with pytest.raises(segq.SettingsError, match="delay"):
        q.receive(timeout=10).nack(delay=-1)


def test_a_queue_may_be_opened_with_a_limit_of_deliveries(engine: Engine) -> None:
    address = engine.address()
    engine.queue(address)
    assert engine.queue(address, max_deliveries=3).settings.max_deliveries == 3
    with pytest.raises(segq.SettingsError, match="max_deliveries"):
        engine.queue(address, max_deliveries=0)
