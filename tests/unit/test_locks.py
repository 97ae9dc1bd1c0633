"""Locks: exclusive between processes and between threads, and let go by whatever death."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest
from accounts import until
from actors import Child

import segq
from segq._core.system.locks import FileMutex, LockOrderError, Rank, StructureLock, try_lock


def count_up(path: str, lock: object, rounds: int) -> None:
    """Adds to the number in a file, in a way that loses additions unless it is done under a lock."""
    for _ in range(rounds):
        with lock:  # type: ignore[attr-defined]
            number = int(Path(path).read_text() or "0")
            Path(path).write_text(str(number + 1))


def both_ways(tmp_path: Path, make_lock: object, rounds: int) -> int:
    """Two processes with two threads each count up; returns what they came to."""
    counter = str(tmp_path / "counter")
    Path(counter).write_text("0")
    pids = []
    for _ in range(2):
        pid = os.fork()
        if not pid:
            try:
                shared = make_lock()  # type: ignore[operator]
                threads = [threading.Thread(target=count_up, args=(counter, shared, rounds)) for _ in range(2)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    return int(Path(counter).read_text())


def test_a_file_mutex_excludes_processes_and_their_threads(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    path.touch()
    assert both_ways(tmp_path, lambda: FileMutex(os.open(path, os.O_RDWR), Rank.LEDGER), 300) == 1200


def test_the_structure_lock_excludes_processes_and_their_threads(tmp_path: Path) -> None:
    assert both_ways(tmp_path, lambda: StructureLock(str(tmp_path)), 40) == 160


def test_two_handles_in_two_threads_exclude_each_other(tmp_path: Path) -> None:
    one, other = StructureLock(str(tmp_path)), StructureLock(str(tmp_path))
    inside, over = threading.Event(), threading.Event()

    def enter() -> None:
        with other:
            inside.set()
        over.set()

    with one:
        thread = threading.Thread(target=enter)
        thread.start()
        assert not inside.wait(0.05)
    assert over.wait(20)
    thread.join()


def test_the_structure_lock_can_be_entered_again_by_its_thread(tmp_path: Path) -> None:
    lock = StructureLock(str(tmp_path))
    with lock:
        with lock:
            pass
        with Child("", tmp_path, opens=False) as child:
            child.ends()
        descriptor = os.open(tmp_path / "queue.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):  # still held, though it was left once
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


@pytest.mark.parametrize(
    "held",
    ["StructureLock(sys.argv[1])", "FileMutex(os.open(sys.argv[1] + '/queue.lock', os.O_RDWR | os.O_CREAT), Rank.LEDGER)"],
)
def test_a_lock_whose_holder_is_killed_is_free(tmp_path: Path, held: str) -> None:
    code = f"from segq._core.system.locks import *\nlock = {held}\nlock.__enter__()\nsay('held')\nwait()\n"
    with Child(code, tmp_path, opens=False) as child:
        assert child.hear() == "held"
        child.kill()
    with StructureLock(str(tmp_path)):
        pass


def test_a_mutex_that_cannot_be_taken_does_not_keep_its_threads_lock(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    path.touch()
    descriptor = os.open(path, os.O_RDWR)
    mutex = FileMutex(descriptor, Rank.LEDGER)
    os.close(descriptor)
    for _ in range(2):  # the second would hang
        with pytest.raises(OSError, match="Bad file descriptor"), mutex:
            pass


def test_a_lock_is_tried_without_waiting_and_kept_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    path.touch()
    one, other = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    assert try_lock(one)
    assert not try_lock(other)
    os.close(one)
    until(lambda: try_lock(other), 10, "the lock is free")
    os.close(other)


def test_the_ranks_of_locks_are_checked_in_tests(tmp_path: Path) -> None:
    structure = StructureLock(str(tmp_path))
    index = FileMutex(os.open(tmp_path / "index", os.O_RDWR | os.O_CREAT), Rank.INDEX)
    with structure, index, structure:  # held already: it is not waited for
        pass
    with index, pytest.raises(LockOrderError, match="STRUCTURE lock taken while the INDEX lock"), structure:
        pass
    with structure:  # the refusal left nothing held
        pass


def test_room_is_looked_for_without_waiting_for_the_structure_lock_under_the_index_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names change in the moment between the first look at them and the index's lock; a process died in that change."""
    with segq.Queue(tmp_path / "queue", capacity=10) as q:
        q.put(1)
        index = q._open().index
        enter = FileMutex.__enter__
        left = [2]

        def change_first(mutex: FileMutex) -> None:
            if mutex is index.lock and left[0]:
                left[0] -= 1
                index.changing()
            enter(mutex)

        monkeypatch.setattr(FileMutex, "__enter__", change_first)
        for item in range(2, 11):
            q.put(item, timeout=5)
        assert not left[0]
        with pytest.raises(segq.Full):
            q.put(11, block=False)
