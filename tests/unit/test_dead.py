"""Items that come back later, and items that are given up: `nack(delay=)`, `reject`, `max_deliveries`, `Queue.dead`."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from accounts import until

import segq
from segq._core.base.errors import QueueError, ReceiptError, SettingsConflict, SettingsError
from segq._core.format.format import BUCKETS, BUCKETS_AT, DELAYED, IndexWord, LedgerWord

LATE = 5.0  # seconds; far more than anything takes


def delayed(queue: segq.Queue) -> int:
    return queue.stats().delayed


# --- later ---


def test_a_delayed_item_lets_those_behind_it_pass_and_comes_when_it_is_due(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(["a", "b", "c"])
        begun = time.monotonic()
        q.receive().nack(delay=0.2)
        assert [q.get(), q.get()] == ["b", "c"]
        assert time.monotonic() - begun < 0.2 or delayed(q) == 0
        again = q.receive(timeout=LATE)
        assert time.monotonic() - begun >= 0.2
        assert (again.value, again.deliveries) == ("a", 2)
        again.ack()


def test_a_delayed_item_waits_counts_and_is_not_there_to_be_had(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=2) as q:
        q.put_many(["a", "b"])
        q.receive().nack(delay=60)
        assert q.get() == "b"
        with pytest.raises(segq.Empty):
            q.get_nowait()
        stats = q.stats()
        assert (stats.items, stats.waiting, stats.claimed, stats.delayed) == (1, 1, 0, 1)
        assert q.qsize() == 1
        q.put("c")
        with pytest.raises(segq.Full):
            q.put_nowait("d")
        assert q.purge() == 2
        assert q.stats().items == 0


def test_a_waiting_consumer_of_another_process_gets_up_when_the_item_is_due(queue_path: str) -> None:
    context = multiprocessing.get_context("spawn")
    with segq.Queue(queue_path) as q:
        q.put("x")
        message = q.receive()
        there, came = context.Event(), context.Queue()
        waiting = context.Process(target=wait_for_one, args=(queue_path, there, came))
        waiting.start()
        assert there.wait(60)
        words = q._open().index.words
        until(lambda: words[IndexWord.ITEMS_SLEEPERS], LATE, "it sleeps")
        due = time.monotonic() + 0.3
        message.nack(delay=0.3)
        arrived = came.get(timeout=60)
        waiting.join()
        assert arrived >= due - 0.001  # both clocks are the machine's


def wait_for_one(path: str, there: Any, came: Any) -> None:
    with segq.Queue(path) as q:
        there.set()
        q.get(timeout=60)
        came.put(time.monotonic())


def test_a_delay_outlives_the_handle_and_the_index(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(["a", "b"])
        q.receive().nack(delay=60)
        q.receive().nack(delay=0.3)
    os.unlink(os.path.join(queue_path, "index"))
    with segq.Queue(queue_path) as q:
        assert delayed(q) + q.stats().claimed <= 2
        assert q.get(timeout=LATE) == "b"
        assert delayed(q) == 1


def test_the_delay_of_a_queue_from_an_earlier_boot_is_over(queue_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(["a", "b"])
        q.receive().nack(delay=60)
    monkeypatch.setattr("segq._core.directory.owners.boot_epoch", lambda: 12345)
    with segq.Queue(queue_path) as q:
        assert sorted([q.get(timeout=LATE), q.get(timeout=LATE)]) == ["a", "b"]


def test_more_times_than_there_are_buckets_share_them_and_nothing_is_late_by_much(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(range(3 * BUCKETS))
        begun = time.monotonic()
        asked: dict[int, float] = {}
        for message in q.receive_many(3 * BUCKETS):
            asked[message.value] = 0.001 * message.value
            message.nack(delay=0.001 + asked[message.value])
        (view,) = q._consumer._shelf._views.values()
        assert 0 < sum(map(bool, view.ledger.words[BUCKETS_AT : BUCKETS_AT + BUCKETS].tolist())) <= BUCKETS
        came = [q.get(timeout=LATE) for _ in asked]
        assert sorted(came) == sorted(asked)
        assert time.monotonic() - begun >= 0.5
        assert not any(view.ledger.words[BUCKETS_AT : BUCKETS_AT + BUCKETS].tolist())
        assert view.ledger.words[LedgerWord.DUE] == 0


def test_equal_delays_share_few_times_however_long_giving_back_takes(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(range(500))
        begun = time.monotonic()
        for message in q.receive_many(500):
            message.nack(delay=60)
        (view,) = q._consumer._shelf._views.values()
        used = sum(map(bool, view.ledger.words[BUCKETS_AT : BUCKETS_AT + BUCKETS].tolist()))
        assert used <= 2 + (time.monotonic() - begun) / 0.9  # each is good for nearly a second


def test_a_hint_that_was_lost_is_found_by_whoever_waits(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put("x")
        q.receive().nack(delay=0.05)
        q._open().index.words[IndexWord.DUE] = 0  # its setter died before it could
        assert q.get(timeout=LATE) == "x"


def test_an_item_whose_words_are_damaged_comes_early_rather_than_never(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(["a", "b"])
        q.receive().nack(delay=60)
        q.receive().nack(delay=70)
        (view,) = q._consumer._shelf._views.values()
        view.ledger.owners[0] = 40_000
        view.ledger.words[BUCKETS_AT + view.ledger.owners[1]] = 2**63
        view.ledger.words[LedgerWord.DUE] = 1
        assert sorted([q.get(timeout=LATE), q.get(timeout=LATE)]) == ["a", "b"]


def test_check_finds_delayed_items_that_nobody_would_look_for(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put("a")
        q.receive().nack(delay=0.1)
        (view,) = q._consumer._shelf._views.values()
        assert view.ledger.states[0] == DELAYED[0]
        view.ledger.words[LedgerWord.DUE] = 0
        assert [problem.kind for problem in segq.check(queue_path).problems] == ["counters"]
        assert segq.check(queue_path, fix=True).ok
        assert q.get(timeout=LATE) == "a"


def test_a_delay_that_cannot_be_is_refused_and_the_message_stays_ours(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put("a")
        message = q.receive()
        for delay in (-1, float("nan"), float("inf"), True, "1"):
            with pytest.raises(SettingsError, match="delay"):
                message.nack(delay=delay)  # type: ignore[arg-type]
        message.ack()
        with pytest.raises(ReceiptError):
            message.nack(delay=1)


def test_with_a_lease_a_delayed_item_is_nobodys_until_it_is_due(queue_path: str) -> None:
    with segq.Queue(queue_path, lease=0.05) as q:
        q.put("a")
        message = q.receive()
        message.nack(delay=0.3)
        begun = time.monotonic()
        again = q.receive(timeout=LATE)
        assert again.deliveries == 2
        assert time.monotonic() - begun > 0.2
        again.ack()


def test_labels_delay_each_for_itself(tmp_path: Path) -> None:
    with segq.Topic(tmp_path / "t") as t, t.subscribe("a") as a, t.subscribe("b") as b:
        t.put("x")
        a.receive().nack(delay=0.1)
        assert b.get(timeout=LATE) == "x"
        assert a.get(timeout=LATE) == "x"


# --- given up ---


def test_a_rejected_item_is_a_dead_letter_with_its_story(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put({"n": 1, "list": [1, 2]})
        message = q.receive()
        message.nack()
        message = q.receive()
        message.value.clear()  # what the consumer makes of the value is its own affair
        message.reject("the API says 422")
        (letter,) = q.dead
        assert letter.value == {"n": 1, "list": [1, 2]}
        assert (letter.id, letter.reason, letter.deliveries) == (message.id, "the API says 422", 2)
        assert letter.enqueued_at == message.enqueued_at
        assert time.time() - 60 < letter.dead_at <= time.time()
        assert len(q.dead) == 1
        assert q.stats().dead == 1
        assert q.stats().items == 0
        with pytest.raises(ReceiptError, match="settled before"):
            message.ack()
    with segq.Queue(os.path.join(queue_path, "dead")) as plain:  # it is a queue itself
        assert plain.get()["reason"] == "the API says 422"


def test_looking_at_the_dead_letters_makes_none(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        assert (list(q.dead), len(q.dead), q.dead.empty(), q.dead.peek(3), q.dead.requeue()) == ([], 0, True, [], 0)
        assert q.dead.find("x") is None
        assert not os.path.exists(os.path.join(queue_path, "dead"))


class Reversing:
    """A serializer of the user's."""

    def dumps(self, item: Any) -> bytes:
        return json.dumps(item).encode()[::-1]

    def loads(self, data: bytes) -> Any:
        return json.loads(data[::-1])


@pytest.mark.parametrize(
    "serializer",
    ["msgpack", "json", "pickle", "raw", Reversing()],
    ids=lambda serializer: serializer if isinstance(serializer, str) else "custom",
)
def test_dead_letters_keep_items_of_every_serializer_exactly(queue_path: str, serializer: Any) -> None:
    item: Any = b"\x00\xff" * 3 if serializer == "raw" else {"text": "ä", "number": 2**60, "none": None}
    with segq.Queue(queue_path, serializer=serializer) as q:
        q.put(item)
        q.receive().reject()
        assert [letter.value for letter in q.dead] == [item]
        assert q.dead.requeue() == 1
        assert q.get_nowait() == item


def nothing_comes(queue: segq.Queue) -> bool:
    """A look that claims whatever there is."""
    with pytest.raises(segq.Empty):
        queue.get(timeout=0.02)
    return True


@pytest.mark.parametrize("how", ["nack", "delay", "with", "close", "lease"])
def test_an_item_that_came_back_too_often_is_given_up(queue_path: str, how: str) -> None:
    segq.Queue(queue_path, max_deliveries=2, lease=0.05 if how == "lease" else None).put("poison")
    for delivery in (1, 2):
        with segq.Queue(queue_path) as q:
            message = q.receive(timeout=LATE)
            assert (message.value, message.deliveries) == ("poison", delivery)
            if how == "nack":
                message.nack()
            elif how == "delay":
                message.nack(delay=0.01)
            elif how == "with":
                with pytest.raises(ValueError), message:
                    raise ValueError("no such thing")
    with segq.Queue(queue_path) as q:
        until(lambda: nothing_comes(q) and len(q.dead) == 1, LATE, "it is given up")
        (letter,) = q.dead
        assert (letter.value, letter.deliveries) == ("poison", 2)
        assert letter.reason.startswith("handed out 2 times")
        assert letter.reason.endswith("ValueError: no such thing") == (how == "with")
        assert q.stats().items == 0


def test_max_deliveries_is_kept_with_the_queue_or_asked_of_a_handle(queue_path: str, tmp_path: Path) -> None:
    with segq.Queue(queue_path, max_deliveries=3):
        pass
    with segq.Queue(queue_path) as q:
        assert q.settings.max_deliveries == 3
    with pytest.raises(SettingsConflict, match="max_deliveries"):
        segq.Queue(queue_path, max_deliveries=4)
    with segq.Queue(tmp_path / "without"), segq.Queue(tmp_path / "without", max_deliveries=1) as strict:
        strict.put("x")
        strict.receive().nack()
        assert len(strict.dead) == 1
    for wrong in (0, 256, "3", True):
        with pytest.raises(SettingsError, match="max_deliveries"):
            segq.Queue(tmp_path / "wrong", max_deliveries=wrong)  # type: ignore[arg-type]


def test_letters_are_put_back_by_id_or_all_and_only_those_there_are(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=4) as q:
        q.put_many(range(10))
        ids = []
        for message in q.receive_many(10):
            ids.append(message.id)
            message.reject(str(message.value))
        assert q.dead.requeue(ids[3]) == 1
        assert q.dead.requeue([ids[5], "nobody"]) == 1
        assert q.get_many(5) == [3, 5]
        assert q.dead.discard(ids[0]) == 1
        assert [letter.value for letter in q.dead] == [1, 2, 4, 6, 7, 8, 9]
        assert q.dead.find(ids[9]).value == 9  # type: ignore[union-attr]
        assert q.dead.requeue() == 7
        assert sorted(q.get_many(10)) == [1, 2, 4, 6, 7, 8, 9]
        q.put("x")
        q.receive().reject()
        assert q.dead.purge() == 1


def test_an_item_that_a_crash_left_twice_among_the_letters_is_put_back_once(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put("x")
        q.receive().reject()
        (stored,) = [letter.data for letter in q.dead]
        with segq.Queue(os.path.join(queue_path, "dead")) as plain:
            plain.put(plain.peek()[0])
        assert len(q.dead) == 2
        assert stored
        assert q.dead.requeue() == 1
        assert (q.get_nowait(), q.qsize(), len(q.dead)) == ("x", 0, 0)


def test_letters_that_find_no_room_stay_letters(queue_path: str) -> None:
    with segq.Queue(queue_path, capacity=1) as q:
        q.put("x")
        q.receive().reject()
        q.put("y")
        with pytest.raises(segq.Full):
            q.dead.requeue(timeout=0.01)
        assert len(q.dead) == 1


def test_a_dead_letter_can_be_received_and_is_not_rejected_again(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put("x")
        q.receive().reject("first")
        message = q.dead.receive(timeout=LATE)
        assert message.value.reason == "first"
        with pytest.raises(QueueError, match="requeue"):
            message.reject("second")
        message.nack()
        assert len(q.dead) == 1


def test_what_cannot_be_buried_now_is_not_in_the_way_of_the_rest(queue_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segq._core.take.claimer._AGAIN_MS", 50)
    os.makedirs(os.path.join(queue_path))
    with segq.Queue(queue_path, max_deliveries=1) as q:
        foreign = os.path.join(queue_path, "dead")
        os.mkdir(foreign)
        with open(os.path.join(foreign, "not a queue"), "w"):
            pass
        q.put_many(["a", "b"])
        q.receive().nack()
        assert q.get(timeout=LATE) == "b"
        message_of_another = q.stats()
        assert message_of_another.items == 1
        os.unlink(os.path.join(foreign, "not a queue"))
        with pytest.raises(segq.Empty):
            q.get(timeout=0.3)
        assert [letter.value for letter in q.dead] == ["a"]


def test_a_message_that_cannot_be_rejected_stays_ours(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        os.mkdir(os.path.join(queue_path, "dead"))
        with open(os.path.join(queue_path, "dead", "not a queue"), "w"):
            pass
        q.put("a")
        message = q.receive()
        with pytest.raises(segq.NotAQueueError):
            message.reject()
        message.ack()
        os.unlink(os.path.join(queue_path, "dead", "not a queue"))


def test_the_letters_of_a_topic_have_their_label_and_are_not_put_back(tmp_path: Path) -> None:
    with segq.Topic(tmp_path / "t", max_deliveries=1) as t, t.subscribe("mail") as mail, t.subscribe("log") as log:
        t.put("x")
        mail.receive().nack()
        log.receive().reject("no")
        assert sorted((letter.label, letter.value) for letter in t.dead) == [("log", "x"), ("mail", "x")]
        assert t.stats().dead == 2
        with pytest.raises(QueueError, match="label"):
            t.dead.requeue()


def test_check_and_remove_know_the_dead_letters(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put("x")
        q.receive().reject()
    assert segq.check(queue_path).ok
    with open(os.path.join(queue_path, "dead", "scribble"), "w"):
        pass
    (problem,) = segq.check(queue_path).problems
    assert problem.where == os.path.join("dead", "scribble")
    os.unlink(os.path.join(queue_path, "dead", "scribble"))
    with segq.Queue(os.path.join(queue_path, "dead")), pytest.raises(QueueError, match=r"dead is open"):
        segq.remove(queue_path)
    segq.remove(queue_path)
    assert not os.path.exists(queue_path)


def test_letters_travel(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put("x")
        q.receive().reject("why")
        (letter,) = q.dead
        assert pickle.loads(pickle.dumps(letter)) == letter
