"""`segq.watch`: what is seen of a queue from outside agrees with what the queue says itself, and seeing it changes nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from accounts import until
from actors import Child, states

import segq
from segq.watch import Flow, Snapshot, Watcher


def agrees(seen: Snapshot, said: segq.Stats) -> None:
    """The counts that both have are the same."""
    counts = (seen.items, seen.segments, seen.quarantined, seen.rescues, seen.redelivered, seen.expired, seen.bytes)
    assert counts == (said.items, said.segments, said.quarantined, said.rescues, said.redelivered, said.expired, said.bytes)
    if said.kind == "queue":
        assert (seen.waiting, seen.claimed) == (said.waiting, said.claimed)
    assert sum(p.puts for p in seen.processes) == said.puts
    assert sum(p.gets for p in seen.processes) == said.gets
    assert len(seen.labels) == len(said.labels)
    for mine, theirs in zip(seen.labels, said.labels, strict=True):
        assert (mine.label, mine.lag, mine.waiting, mine.claimed, mine.acknowledged, mine.missed) == (
            theirs.label, theirs.lag, theirs.waiting, theirs.claimed, theirs.acknowledged, theirs.missed
        )  # fmt: skip
        assert mine.lag_seconds >= 0
        assert mine.lag or not mine.lag_seconds


def everything(path: str) -> dict[str, tuple[bytes, int]]:
    """Every file below it: what is in it, and when that was last changed."""
    found = {}
    for place, directories, files in os.walk(path):
        for name in files:
            file = Path(place, name)
            found[str(file)] = (file.read_bytes(), file.stat().st_mtime_ns)
        for name in directories:
            found[str(Path(place, name))] = (b"", Path(place, name).stat().st_mtime_ns)
    return found


# --- there or not ---


def test_a_queue_may_come_go_and_come_again(queue_path: str) -> None:
    watcher = Watcher(queue_path)
    assert watcher.look().state == "missing"
    with segq.Queue(queue_path, capacity=10) as q:
        q.put_many([1, 2])
        seen = watcher.look()
        assert (seen.state, seen.kind, seen.capacity, seen.items) == ("open", "queue", 10, 2)
        assert [event.text for event in seen.events] == ["the queue is there"]
    segq.remove(queue_path)
    seen = watcher.look()
    assert (seen.state, [event.text for event in seen.events]) == ("missing", ["the queue is gone"])
    with segq.Topic(queue_path) as topic:
        topic.put(1)
        seen = watcher.look()
        assert (seen.state, seen.kind, seen.items, seen.interval) == ("open", "topic", 1, None)


def test_another_queue_in_the_same_place_is_begun_with_anew(queue_path: str, tmp_path: Path) -> None:
    watcher = Watcher(queue_path)
    with segq.Queue(queue_path) as q:
        q.put_many(range(50))
        watcher.look()
    with segq.Queue(tmp_path / "other", capacity=7) as q:
        q.put_many(range(5))
    shutil.rmtree(queue_path)
    (tmp_path / "other").rename(queue_path)
    seen = watcher.look()
    assert (seen.capacity, seen.items, seen.totals.put) == (7, 5, 0)


def test_what_cannot_be_read_as_a_queue_is_said_and_left_alone(queue_path: str) -> None:
    segq.Queue(queue_path).close()
    file = Path(queue_path, "queue.json")
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"segq": 99}))
    seen = Watcher(queue_path).look()
    assert seen.state == "refused"
    assert "version 99" in seen.error
    file.write_text(json.dumps(document))


def test_looking_changes_no_byte_and_no_time(queue_path: str) -> None:
    with segq.Topic(queue_path, segment_items=20, ttl=3600) as topic, topic.subscribe("a") as a, topic.subscribe("b") as b:
        topic.put_many(range(30))
        topic.put_many(range(30))
        a.get_many(25)
        held = b.receive_many(3)
        with Child(
            "q = segq.Topic(sys.argv[1]); q.put(1); say('put'); os.kill(os.getpid(), 9)", queue_path, opens=False
        ) as dead:
            assert dead.hear() == "put"
            dead.process.wait(60)
        before = everything(queue_path)
        watcher = Watcher(queue_path)
        for _ in range(3):
            assert watcher.look().items
        assert everything(queue_path) == before
        for message in held:
            message.ack()
    segq.check(queue_path, fix=True)


def test_a_queue_without_an_index_or_with_a_foreign_one_is_still_counted(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(range(9))
    index = Path(queue_path, "index")
    whole = index.read_bytes()
    index.write_bytes(b"not an index")
    assert Watcher(queue_path).look().items == 9
    index.unlink()
    assert Watcher(queue_path).look().items == 9
    index.write_bytes(whole)


# --- what is there ---


@pytest.mark.parametrize("settings", [{}, {"max_bytes": 1 << 20, "lease": 60}], ids=str)
def test_a_queue_is_seen_as_it_sees_itself_whatever_happens(queue_path: str, settings: dict[str, int]) -> None:
    chance = random.Random(7)
    watcher = Watcher(queue_path)
    with segq.Queue(queue_path, segment_items=16, serializer="raw", **settings) as q, segq.Queue(queue_path) as other:  # type: ignore[arg-type]
        out: list[segq.Message] = []
        for _ in range(40):
            match chance.randrange(6):
                case 0 | 1:
                    chance.choice((q, other)).put_many([b"x" * chance.randrange(99)] * chance.randrange(1, 30))
                case 2:
                    q.put(b"y")
                case 3 if q.qsize():
                    chance.choice((q, other)).get_many(chance.randrange(1, 20), block=False)
                case 4 if q.stats().waiting:
                    out += q.receive_many(chance.randrange(1, 5), block=False)
                case 5 if out:
                    message = out.pop(chance.randrange(len(out)))
                    chance.choice((message.ack, message.nack))()
            agrees(watcher.look(), q.stats())


@pytest.mark.parametrize(
    "settings", [{}, {"ttl": 3600.0, "retain": "ttl"}, {"capacity": 200, "on_full": "drop_oldest"}], ids=str
)
def test_a_topic_is_seen_as_it_sees_itself_whatever_happens(queue_path: str, settings: dict[str, str]) -> None:
    chance = random.Random(8)
    watcher = Watcher(queue_path)
    with segq.Topic(queue_path, segment_items=16, **settings) as topic:  # type: ignore[arg-type]
        readers: dict[str, segq.Subscription] = {}
        out: list[segq.Message] = []
        for step in range(40):
            match chance.randrange(6):
                case 0 | 1:
                    topic.put_many(list(range(chance.randrange(1, 30))))
                case 2 if readers:
                    reader = readers[chance.choice(sorted(readers))]
                    if reader.lag.items - len(out) > 40:
                        reader.get_many(chance.randrange(1, 20), block=False)
                case 3 if len(readers) < 3:
                    label = f"label {step}"
                    readers[label] = topic.subscribe(label, start=chance.choice(("oldest", "newest", "next")))
                case 4 if readers:
                    reader = readers[chance.choice(sorted(readers))]
                    try:
                        out += reader.receive_many(3, block=False)
                    except segq.Empty:
                        pass
                case 5 if out:
                    message = out.pop(chance.randrange(len(out)))
                    chance.choice((message.ack, message.nack))()
            if step == 30:
                label, reader = readers.popitem()
                out.clear()
                reader.close()
                topic.remove_label(label)
            said = topic.stats()
            agrees(watcher.look(), said)
        for reader in readers.values():
            reader.close()


def test_expired_items_do_not_count_although_nobody_is_there_to_mark_them(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put("gone soon", ttl=0.05)
    watcher = Watcher(queue_path)
    until(lambda: watcher.look().items == 0, 5, "the item's time ran out")
    assert watcher.look().totals.ack == 0
    shutil.rmtree(queue_path)  # `check` would say that nobody has removed it yet


def test_many_sealed_segments_are_not_kept_open(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=1) as q:
        for n in range(15):
            q.put(n)
        watcher = Watcher(queue_path)
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        seen = [watcher.look() for _ in range(2)][1]
        assert (seen.items, sum(seen.segments.values())) == (15, 15)
        assert not before or len(os.listdir("/proc/self/fd")) < before + 5
        q.get_many(10)
        seen = watcher.look()
        assert (seen.items, seen.totals.ack) == (5, 10)


def test_the_oldest_items_age_is_exact_in_the_open_batch_and_near_elsewhere(
    queue_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    clock = [now]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(time, "time_ns", lambda: int(clock[0] * 1e9))
    with segq.Queue(queue_path, segment_items=4) as q:
        for n in range(6):  # the first four in a sealed segment, the others in the batch of the next
            clock[0] = now - 100 + 10 * n
            q.put(n)
        clock[0] = now
        watcher = Watcher(queue_path)
        ages = []
        for _ in range(6):
            ages.append(watcher.look().oldest_age or 0.0)
            q.get()
        assert ages[0] == pytest.approx(100, abs=0.1)
        assert 60 <= ages[3] <= ages[2] <= ages[1] <= ages[0]
        assert ages[4:] == pytest.approx([60, 50], abs=0.1)
        assert watcher.look().oldest_age is None


def test_what_was_given_up_is_counted(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        watcher = Watcher(queue_path)
        assert watcher.look().dead_letters is None
        q.put(1)
        with segq.Queue(os.path.join(queue_path, "dead")) as dead:
            dead.put_many([1, 2, 3])
            assert watcher.look().dead_letters == 3
        shutil.rmtree(os.path.join(queue_path, "dead"))
        assert watcher.look().dead_letters is None


# --- what has passed through ---


def test_all_is_counted_although_segments_come_and_go_between_two_looks(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=8) as q:
        q.put_many([0] * 5)
        q.get()
        watcher = Watcher(queue_path)
        assert watcher.look().totals == Flow()
        for _ in range(12):
            q.put_many([0] * 8)
            q.get_many(8)
        seen = watcher.look()
        assert (seen.totals.put, seen.totals.get, seen.totals.ack) == (96, 96, 96)
        assert seen.rates.put == pytest.approx(96 / (seen.interval or 0))
        q.put(1)
        message = q.receive()
        seen = watcher.look()
        assert (seen.totals.put, seen.totals.get, seen.totals.ack, seen.claimed) == (97, 97, 96, 1)
        message.ack()
        assert watcher.look().totals.ack == 97


def test_a_handle_that_comes_and_goes_between_two_looks_counts(queue_path: str) -> None:
    segq.Queue(queue_path).close()
    watcher = Watcher(queue_path)
    watcher.look()
    for n in range(1, 6):
        with segq.Queue(queue_path) as q:  # each goes on in the segment of the one before, under the same slot
            q.put_many([n] * 10)
        if n % 2:
            assert watcher.look().totals.put == 10 * n
    assert states(queue_path) == ["ready"]
    with segq.Queue(queue_path) as q:
        q.get_many(20)
    seen = watcher.look()
    assert (seen.totals.put, seen.totals.ack, seen.processes) == (50, 20, ())


def test_what_goes_to_quarantine_was_not_acknowledged(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=10) as q:
        q.put_many(range(10))
        q.put_many(range(10))
        watcher = Watcher(queue_path)
        watcher.look()
        segment = next(name for name in os.listdir(queue_path) if name.startswith("ready_"))
        log = next(Path(queue_path, segment).glob("*.log"))
        log.write_bytes(b"\xff" * log.stat().st_size)
        assert q.get_many(20) == list(range(10))
        assert until(lambda: bool(q.stats().quarantined), 5, "the segment was set aside") >= 0
        seen = watcher.look()
        assert (seen.totals.ack, seen.quarantined) == (10, 1)
        assert [event.kind for event in seen.events] == ["quarantine"]
        assert segment.partition("_")[2] in seen.events[0].text


# --- who ---


def test_processes_are_shown_with_what_they_do_and_hold(queue_path: str) -> None:
    with segq.Queue(queue_path) as q, Child("q.put_many(range(9)); say('put'); wait()", queue_path) as other:
        assert other.hear() == "put"
        watcher = Watcher(queue_path)
        watcher.look()
        messages = q.receive_many(4)
        seen = {process.pid: process for process in watcher.look().processes}
        mine, theirs = seen[os.getpid()], seen[other.process.pid]
        assert (mine.producing, mine.consuming, mine.holds, mine.gets) == (False, True, 4, 4)
        assert mine.get_rate > 0
        assert (theirs.producing, theirs.consuming, theirs.puts, theirs.put_rate) == (True, False, 9, 0)
        assert mine.cpu is not None
        assert (theirs.memory or 0) > 1 << 20
        assert "say('put')" in theirs.command
        for message in messages:
            message.ack()
    segq.check(queue_path, fix=True)


def test_what_an_owner_says_of_itself_may_be_nonsense(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put(1)
        watcher = Watcher(queue_path)
        watcher.look()
        place = Path(queue_path, "owners", "0002")
        for pid in (-1, 0, 1 << 80, os.getpid()):
            for started in ("NaN", "Infinity", "-1e300", "0"):
                place.write_text(f'{{"pid": {pid}, "started": {started}, "opened": {started}, "command": "\\u001b[2J<b>"}}')
                json.dumps(watcher.look().as_dict(), allow_nan=False)
        place.unlink()
        assert len(watcher.look().processes) == 1


def test_two_handles_of_a_process_are_one_line(queue_path: str) -> None:
    with segq.Queue(queue_path) as one, segq.Queue(queue_path) as two:
        one.put(1)
        two.get()
        (process,) = Watcher(queue_path).look().processes
        assert (process.handles, process.producing, process.consuming, process.puts, process.gets) == (2, True, True, 1, 1)


def test_a_death_and_the_rescue_after_it_are_told(queue_path: str) -> None:
    watcher = Watcher(queue_path)
    with Child("q.put_many([1, 2]); m = q.receive(); say('holds'); wait()", queue_path) as child:
        assert child.hear() == "holds"
        watcher.look()
        child.kill()
    seen = watcher.look()
    (died,) = seen.events
    assert died.kind == "died"
    assert f"process {child.process.pid} " in died.text
    assert "with 1 item in hand" in died.text
    assert [process.alive for process in seen.processes] == [False]
    assert watcher.look().events == ()
    with segq.Queue(queue_path) as q:
        seen = watcher.look()
        assert [event.kind for event in seen.events] == ["rescue"]
        assert str(child.process.pid) in seen.events[0].text
        assert "1 item" in seen.events[0].text
        assert (seen.rescues, seen.redelivered, seen.waiting) == (1, 1, 2)
        q.shutdown()
        assert [event.kind for event in watcher.look().events] == ["shutdown"]


def test_labels_that_come_and_go_are_told(queue_path: str) -> None:
    watcher = Watcher(queue_path)
    with segq.Topic(queue_path) as topic:
        watcher.look()
        with topic.subscribe("mail"):
            assert [event.text for event in watcher.look().events] == ["label 'mail' began"]
        topic.remove_label("mail")
        assert [event.text for event in watcher.look().events] == ["label 'mail' was removed"]
