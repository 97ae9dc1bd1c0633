"""Sleeping on a word: a wake wakes as many as asked, across processes and threads, and none is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from accounts import until

from segq._core.directory.index import Bell, Index
from segq._core.format import format as fmt
from segq._core.format.format import IndexWord
from segq._core.system.futex import PolledWord, Word
from segq._core.system.mapped import MappedFile


@pytest.fixture
def mapped(tmp_path: Path) -> MappedFile:
    return MappedFile.create(str(tmp_path / "words"), fmt.INDEX_SIZE, [(0, fmt.INDEX_SIZE)])


def asleep(pid: int) -> bool:
    """Whether the process waits in the kernel for a futex."""
    return (
        "futex" in Path(f"/proc/{pid}/wchan").read_text() or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] == "S"
    )


@pytest.mark.parametrize("kind", [Word, PolledWord])
def test_a_wait_on_a_word_that_has_changed_returns_at_once(mapped: MappedFile, kind: type[PolledWord]) -> None:
    mapped.halves[4] = 7
    begun = time.monotonic()
    kind(mapped.halves, 4).wait(6, 30.0)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("kind", [Word, PolledWord])
def test_a_wait_that_nobody_ends_is_over_in_time(mapped: MappedFile, kind: type[PolledWord]) -> None:
    begun = time.monotonic()
    kind(mapped.halves, 4).wait(0, 0.05)
    assert 0.04 < time.monotonic() - begun < 10


@pytest.mark.parametrize("kind", [Word, PolledWord])
def test_a_sleeping_thread_is_woken_by_another(mapped: MappedFile, kind: type[PolledWord]) -> None:
    word = kind(mapped.halves, 4)
    over = threading.Event()

    def sleep() -> None:
        word.wait(0, 60.0)
        over.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    mapped.halves[4] = 1
    until(lambda: word.wake(1) is not None and over.is_set(), 20, "the sleeper wakes")
    thread.join()


def sleeper(path: str, rounds: int) -> int:
    """A process that sleeps on the items bell until it was rung `rounds` times; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        index = Index("", MappedFile.open(path, fmt.INDEX_SIZE))
        counter = index.owner_word(1 + (os.getpid() % 1000), fmt.OwnerWord.GETS)
        for _ in range(rounds):
            heard = index.items.listen()
            index.words[counter] = 1  # about to sleep
            while not index.items.rung_since(heard):
                index.items.sleep(heard, 30.0)
        code = 0
    finally:
        os._exit(code)


def ended(pids: list[int]) -> list[int]:
    """Those of the children that have ended, well or not; they stay to be waited for."""
    return [pid for pid in pids if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None]


def reap(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def kill(pids: list[int]) -> None:
    for pid in set(pids) - set(ended(pids)):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(Word is PolledWord, reason="pollers all see the word change")
def test_one_wake_wakes_one_of_several_sleeping_processes(mapped: MappedFile) -> None:
    index = Index("", mapped)
    word = Word(mapped.halves, 2 * int(IndexWord.ITEMS_WAKE))
    pids = []
    for _ in range(4):
        pid = os.fork()
        if not pid:
            word.wait(0, 60.0)
            os._exit(0)
        pids.append(pid)
    try:
        until(lambda: all(asleep(pid) for pid in pids), 20, "all four sleep")
        for n in range(1, 5):
            # A process that shows as asleep may not have reached the futex yet: then there is nobody to wake, so try again.
            until(lambda: word.wake(1) == 1, 20, "there is a sleeper to wake")
            until(lambda n=n: len(ended(pids)) >= n, 20, "one ends")
            assert len(ended(pids)) == n
        assert index.items.rung_since(0) is False  # woken without any change of the word
    finally:
        kill(pids)
        reap(pids)


def test_a_bell_that_nobody_listens_to_is_not_rung(mapped: MappedFile) -> None:
    bell = Bell(mapped, IndexWord.ITEMS_WAKE, IndexWord.ITEMS_SLEEPERS)
    heard = mapped.halves[2 * int(IndexWord.ITEMS_WAKE)]
    bell.ring()
    assert not bell.rung_since(heard)
    heard = bell.listen()
    bell.ring()
    assert bell.rung_since(heard)


def test_whoever_listened_before_the_ring_does_not_sleep_after_it(mapped: MappedFile) -> None:
    bell = Bell(mapped, IndexWord.ITEMS_WAKE, IndexWord.ITEMS_SLEEPERS)
    heard = bell.listen()
    bell.ring()
    begun = time.monotonic()
    bell.sleep(heard, 30.0)
    assert time.monotonic() - begun < 10


def test_while_one_is_on_its_way_nobody_else_is_woken_and_it_says_that_others_may_sleep(mapped: MappedFile) -> None:
    bell = Bell(mapped, IndexWord.ITEMS_WAKE, IndexWord.ITEMS_SLEEPERS)
    heard = bell.listen()
    bell.ring()
    rung = mapped.halves[2 * int(IndexWord.ITEMS_WAKE)]
    bell.ring()
    assert mapped.halves[2 * int(IndexWord.ITEMS_WAKE)] == rung
    bell.sleep(heard, 30.0)
    assert bell.flagged


def test_whoever_is_interrupted_in_its_sleep_passes_the_ring_on(mapped: MappedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    bell = Bell(mapped, IndexWord.ITEMS_WAKE, IndexWord.ITEMS_SLEEPERS)
    heard, another = bell.listen(), bell.listen()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(bell.word), "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bell.sleep(heard, 30.0)
    assert bell.rung_since(another)


def test_the_wake_word_runs_over_without_harm(mapped: MappedFile) -> None:
    bell = Bell(mapped, IndexWord.ITEMS_WAKE, IndexWord.ITEMS_SLEEPERS)
    mapped.halves[2 * int(IndexWord.ITEMS_WAKE)] = 2**32 - 1
    heard = bell.listen()
    bell.ring()
    assert bell.rung_since(heard)
    assert mapped.halves[2 * int(IndexWord.ITEMS_WAKE)] == 0


def test_ringing_all_wakes_every_sleeping_process(mapped: MappedFile) -> None:
    index = Index("", mapped)
    pids = [sleeper(mapped.path, 1) for _ in range(5)]
    try:
        until(lambda: all(asleep(pid) for pid in pids), 20, "all sleep")
        until(lambda: index.items.ring(1 << 30) or len(ended(pids)) == 5, 20, "all wake")
        assert reap(pids) == [0] * 5
        pids = []
    finally:
        kill(pids)


def test_no_wake_is_lost_between_two_processes_that_take_turns(mapped: MappedFile) -> None:
    """Each waits for the other's word to move, three thousand times: one lost wake costs the 30 s of a sleep."""
    rounds = 3000
    index = Index("", mapped)
    mine, theirs = 1000, 1001  # words of the index that nothing else uses here
    pid = os.fork()
    me, other, own, yours = (index.items, index.room, mine, theirs) if pid else (index.room, index.items, theirs, mine)
    words = mapped.words
    begun = time.monotonic()
    for turn in range(1, rounds + 1):
        if pid:
            words[own] = turn
            other.ring()
        while words[yours] < turn:
            heard = me.listen()
            if words[yours] < turn:
                me.sleep(heard, 30.0)
        if not pid:
            words[own] = turn
            other.ring()
    if not pid:
        os._exit(0)
    assert reap([pid]) == [0]
    assert time.monotonic() - begun < 29


def test_no_wake_is_lost_among_threads_that_each_take_one_of_what_is_there(mapped: MappedFile) -> None:
    """The way consumers use the bell: whoever takes one of several passes the ring on."""
    bell = Bell(mapped, IndexWord.ITEMS_WAKE, IndexWord.ITEMS_SLEEPERS)
    there, taken, lock, total = [0], [0], threading.Lock(), 4000

    def consume() -> None:
        while taken[0] < total:
            heard = bell.listen()
            with lock:
                found = there[0] > 0
                if found:
                    there[0] -= 1
                    taken[0] += 1
                more = there[0] > 0
            if more:
                bell.ring()
            if not found and taken[0] < total:
                bell.sleep(heard, 30.0)
        bell.ring(1 << 30)

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    for _ in range(total):
        with lock:
            there[0] += 1
        bell.ring()
    for thread in threads:
        thread.join(60)
    assert taken[0] == total
    assert time.monotonic() - begun < 29
