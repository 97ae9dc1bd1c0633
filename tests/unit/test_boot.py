"""The first to open a queue after the machine was started anew: what the ledgers of the boot before say is made to agree.

Of a ledger's pages, and of names, a loss of power leaves some older than others; here each such state that cost items is made
by hand. (`tests/crash/power.py` makes them by recording what is synced.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from actors import Child, segments, states

import segq
import segq._core.directory.owners
import segq._core.put.producer
from segq._core.format.format import CLAIMED, DONE, FREE, HANDED, LedgerWord
from segq._core.segment.ledger import Ledger
from segq._core.system import fs


@pytest.fixture
def start_anew(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Called: from now on this process believes that the machine was started again."""

    def started() -> None:
        for module in (segq._core.directory.owners, segq._core.put.producer):
            monkeypatch.setattr(module, "boot_epoch", lambda: 12345)

    return started


def sealed(path: str, count: int = 10, **settings: Any) -> str:
    """A queue with one sealed segment, in which somebody has begun; the path of its ledger."""
    with segq.Queue(path, **settings) as q:
        q.put_many(range(count))
    with segq.Queue(path) as q:
        assert q.get_many(2) == [0, 1]
    (name,) = segments(path)
    return os.path.join(path, name, "ledger")


def write_states(path: str, text: bytes, **words: int) -> None:
    ledger = Ledger.open(path)
    for i, state in enumerate(text):
        ledger.states[i] = state
    for word, value in words.items():
        ledger.words[LedgerWord[word]] = value
    ledger.close()


def everything(queue: Any) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            found += queue.get_many(100, timeout=0.05)
        except segq.Empty:
            return found


def test_claims_of_a_slot_that_nobody_has_any_more_are_free(queue_path: str, start_anew: Any) -> None:
    ledger = sealed(queue_path)
    write_states(ledger, DONE * 2 + CLAIMED * 3 + HANDED * 2, NEXT=7, RETURNED=0)  # and the name of its owner was never synced
    start_anew()
    with segq.Queue(queue_path) as q:
        messages = q.receive_many(100)
        assert {m.value: m.deliveries for m in messages} == {2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 7: 1, 8: 1, 9: 1}
        for message in messages:
            message.ack()
    assert segments(queue_path) == []


def test_items_below_next_whose_claim_did_not_reach_the_disk_are_delivered(queue_path: str, start_anew: Any) -> None:
    ledger = sealed(queue_path)
    write_states(ledger, FREE * 10, NEXT=8, RETURNED=0)
    start_anew()
    with segq.Queue(queue_path) as q:
        assert everything(q) == list(range(10))
    assert segments(queue_path) == []


def test_items_that_are_done_above_next_stay_done(queue_path: str, start_anew: Any) -> None:
    ledger = sealed(queue_path)
    write_states(ledger, FREE * 2 + DONE * 8, NEXT=0, RETURNED=0)
    start_anew()
    with segq.Queue(queue_path) as q:
        assert everything(q) == [0, 1]
    assert segments(queue_path) == []


def test_a_sealed_segment_whose_ledger_is_older_than_its_name_has_what_its_log_has(queue_path: str, start_anew: Any) -> None:
    ledger = sealed(queue_path)
    write_states(ledger, FREE * 10, PUBLISHED=3, SEALED=0, NEXT=0, CHOSEN=0, LIMIT=3)
    start_anew()
    with segq.Queue(queue_path) as q:
        assert everything(q) == list(range(10))
    assert segments(queue_path) == []


@pytest.mark.parametrize(("text", "expected"), [(DONE * 4 + CLAIMED * 2, [4, 5, 6, 7, 8, 9]), (DONE * 10, [])])
def test_a_segment_that_is_begun_by_its_ledger_and_ready_by_its_name_is_consumed(
    queue_path: str, start_anew: Any, text: bytes, expected: list[int]
) -> None:
    ledger = Path(sealed(queue_path))
    ledger.parent.rename(str(ledger.parent).replace("chosen_", "ready_"))
    write_states(str(ledger).replace("chosen_", "ready_"), text, NEXT=len(text), RETURNED=0)
    start_anew()
    with segq.Queue(queue_path) as q:
        assert everything(q) == expected
    assert segments(queue_path) == []


def test_a_lost_log_under_a_ready_name_is_said_and_does_not_make_getters_spin(queue_path: str, start_anew: Any) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(range(10))
    (name,) = segments(queue_path)
    assert name.startswith("ready_")
    (log,) = Path(queue_path, name).glob("*.log")
    os.truncate(log, 0)
    write_states(os.path.join(queue_path, name, "ledger"), b"", SEALED=0)
    start_anew()
    with segq.Queue(queue_path) as q:
        with pytest.raises(segq.Empty):
            q.get(timeout=0.3)
        assert q.stats().quarantined == 1
        q.put("on it goes")
        assert q.get(timeout=5) == "on it goes"


def test_a_dead_producers_segment_from_the_boot_before_forgets_its_claims(queue_path: str, start_anew: Any) -> None:
    code = "q.put_many(range(10))\nsay('put')\nwait()\n"
    segq.Queue(queue_path, durability="power").close()
    with Child(code, queue_path) as child:
        child.hear()
        child.kill()
    (name,) = segments(queue_path)
    assert name.startswith("loading_")
    write_states(os.path.join(queue_path, name, "ledger"), FREE * 4 + CLAIMED * 3, NEXT=9, RETURNED=0, PUBLISHED=9)
    for owner in Path(queue_path, "owners").iterdir():
        owner.unlink()
    start_anew()
    with segq.Queue(queue_path) as q:
        assert everything(q) == list(range(10))
    assert states(queue_path) == []


def test_a_labels_claims_and_position_are_made_to_agree_as_well(tmp_path: Path, start_anew: Any) -> None:
    path = str(tmp_path / "topic")
    with segq.Topic(path) as topic, topic.subscribe("mail") as mail, topic.subscribe("log"):
        topic.put_many(range(10))
        assert mail.get_many(3) == [0, 1, 2]
        names = segments(path)
    (ledger,) = Path(path, segments(path)[0]).glob("ledger.*")
    held = Ledger.open(str(ledger), Ledger.open(str(ledger.with_name("ledger"))))
    for i, state in enumerate(DONE * 2 + FREE * 3 + CLAIMED * 2):
        held.states[i] = state
    held.words[LedgerWord.NEXT], held.words[LedgerWord.RETURNED] = 9, 0
    held.close()
    assert len(names) == 1
    ledger.parent.rename(str(ledger.parent).replace("chosen_", "ready_"))
    start_anew()
    with segq.Topic(path) as topic, topic.subscribe("mail") as mail, topic.subscribe("log") as log:
        assert everything(mail) == list(range(2, 10))
        assert everything(log) == list(range(10))
    assert segments(path) == []


def test_a_labels_claims_are_found_where_its_ledger_does_not_know_of_them(tmp_path: Path, start_anew: Any) -> None:
    path = str(tmp_path / "topic")
    with segq.Topic(path) as topic, topic.subscribe("mail") as mail:
        topic.put_many(range(10))
        assert mail.get_many(3) == [0, 1, 2]
    (ledger,) = Path(path, segments(path)[0]).glob("ledger.*")
    held = Ledger.open(str(ledger), Ledger.open(str(ledger.with_name("ledger"))))
    for i in range(10):
        held.states[i] = CLAIMED[0]
    for word in (LedgerWord.ALLOCATED, LedgerWord.NEXT, LedgerWord.RETURNED):  # the page they are on was not written
        held.words[word] = 0
    held.close()
    start_anew()
    with segq.Topic(path) as topic, topic.subscribe("mail") as mail:
        assert everything(mail) == list(range(10))
    assert segments(path) == []


def test_within_a_boot_the_claims_of_the_living_are_left_alone(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        q.put_many(range(4))
        message = q.receive()
        os.unlink(os.path.join(queue_path, "index"))
        with segq.Queue(queue_path) as other:  # finds no index, and so goes through all ledgers
            assert sorted([*everything(other)]) == [1, 2, 3]
        message.ack()


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_new_queue_can_be_opened_after_a_loss_of_power(
    tmp_path: Path, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `queue.json` what was stored could not be reached; so it, and the names that lead to it, are synced."""
    synced: list[str] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(fs.os, "fsync", noted)
    path = tmp_path / "new" / "parents" / "queue"
    segq.Queue(path, durability=durability).close()
    names = [name for name in synced if "queue.json" in name]
    assert names, synced
    at = synced.index(names[0])
    assert {str(tmp_path), str(tmp_path / "new"), str(tmp_path / "new" / "parents")} <= set(synced[:at]), synced
    assert str(path) in synced[at:]


def test_the_directory_of_labels_is_synced_with_the_first_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "topic"
    synced: list[str] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    with segq.Topic(path, durability="power") as topic:
        monkeypatch.setattr(fs.os, "fsync", noted)
        topic.subscribe("mail").close()
    assert str(path) in synced
    assert str(path / "labels") in synced


def test_what_a_creator_that_died_left_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    (path / "owners").mkdir(parents=True)
    (path / "queue.json.4711.new").write_text("{")
    segq.Queue(path).close()
    assert segq.check(path).ok
