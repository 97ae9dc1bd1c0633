"""Who is alive: the kernel's lock says so, and nothing else does."""

from __future__ import annotations

import errno
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from accounts import until
from actors import Child

import segq
from segq._core.base.errors import TooManyHandles
from segq._core.directory import owners
from segq._core.directory.owners import Owner
from segq._core.format import format as fmt
from segq._core.system.locks import StructureLock


@pytest.fixture
def empty(queue_path: str) -> str:
    """A queue that nobody has open."""
    segq.Queue(queue_path).close()
    return queue_path


def registered(path: str) -> Owner:
    with StructureLock(path):
        return Owner.register(path)


def test_a_slot_is_alive_while_its_handle_is_open_and_gone_when_it_is_closed(empty: str) -> None:
    owner = registered(empty)
    assert owners.slots(empty) == [owner.slot]
    assert owners.is_alive(empty, owner.slot)
    owner.close()
    assert owners.slots(empty) == []


def test_the_lowest_free_slot_is_taken(empty: str) -> None:
    owners = [registered(empty) for _ in range(3)]
    assert [owner.slot for owner in owners] == [1, 2, 3]
    owners[1].close()
    again = registered(empty)
    assert again.slot == 2
    for owner in (owners[0], again, owners[2]):
        owner.close()


def test_a_killed_process_is_dead_at_once(queue_path: str) -> None:
    with Child("say('open')\nwait()\n", queue_path) as child:
        assert child.hear() == "open"
        assert owners.is_alive(queue_path, 1)
        child.kill()
        assert not owners.is_alive(queue_path, 1)
    segq.check(queue_path, fix=True)


def test_a_stopped_process_is_alive(queue_path: str) -> None:
    with Child("say('open')\nwait()\nq.close()\n", queue_path) as child:
        child.hear()
        child.stop()
        assert owners.is_alive(queue_path, 1)
        child.resume()
        child.go()
        child.ends()


def test_a_forked_child_does_not_keep_its_parents_owner_alive(empty: str) -> None:
    owner = registered(empty)
    ready, tell = os.pipe()
    hold, let_go = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(let_go)
        os.write(tell, b"x")
        os.read(hold, 1)
        os._exit(0)
    os.read(ready, 1)
    assert owners.is_alive(empty, owner.slot)  # the child let go of a copy only
    owner.forget()
    assert not owners.is_alive(empty, owner.slot)
    os.close(let_go)
    os.waitpid(pid, 0)
    segq.check(empty, fix=True)


def test_a_handle_that_is_dropped_without_close_is_dead_without_a_garbage_collection(queue_path: str) -> None:
    gc.disable()
    try:
        q = segq.Queue(queue_path)
        q.put_many(range(100))
        assert q.get() == 0
        del q
        until(lambda: not owners.is_alive(queue_path, 1), 10, "the lock is let go")
    finally:
        gc.enable()
    with segq.Queue(queue_path) as again:
        assert again.get_many(1000) == list(range(1, 100))


def test_the_proof_of_death_excludes_a_second_one(queue_path: str) -> None:
    with Child("say('open')\nwait()\n", queue_path) as child:
        child.hear()
        child.kill()
    with owners.proven_dead(queue_path, 1) as first:
        assert first
        with owners.proven_dead(queue_path, 1) as second:
            assert not second
    segq.check(queue_path, fix=True)


def test_a_lock_on_a_file_that_lost_its_name_proves_nothing(empty: str) -> None:
    owner = registered(empty)
    place = os.path.join(empty, fmt.OWNERS_DIR, fmt.slot_name(owner.slot))
    os.rename(place, place + ".old")
    assert owners.is_alive(empty, owner.slot)  # gone: not ours to say
    os.rename(place + ".old", place)
    owner.close()


def test_what_an_owner_says_of_itself_is_read_and_nonsense_is_not_believed(empty: str) -> None:
    owner = registered(empty)
    record = owners.record(empty, owner.slot)
    assert record is not None
    assert record.pid == os.getpid()
    assert record.opened >= record.started > 0
    Path(empty, fmt.OWNERS_DIR, fmt.slot_name(owner.slot)).write_text('{"pid": "many"}')
    assert owners.record(empty, owner.slot) is None
    assert owners.record(empty, 77) is None
    owner.close()


def test_all_slots_taken_is_said_and_nothing_breaks(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "MAX_OWNERS", 4)
    owners = [registered(empty) for _ in range(3)]
    with pytest.raises(TooManyHandles, match="close some"):
        segq.Queue(empty)
    owners[0].close()
    with segq.Queue(empty) as q:
        q.put(1)
        assert q.get() == 1
    for owner in owners[1:]:
        owner.close()


def test_a_pid_that_was_given_to_another_process_does_not_make_the_dead_alive(queue_path: str) -> None:
    with Child("say(os.getpid())\nq.put('x')\nos.kill(os.getpid(), signal.SIGKILL)\n", queue_path) as child:
        child.hear()
        child.ends(-signal.SIGKILL)
    place = Path(queue_path, fmt.OWNERS_DIR, fmt.slot_name(1))
    place.write_text(place.read_text().replace(str(child.process.pid), str(os.getpid())))
    assert not owners.is_alive(queue_path, 1)
    with segq.Queue(queue_path) as q:
        assert q.get(timeout=30) == "x"


@pytest.fixture
def forgotten_epoch() -> Iterator[None]:
    """As in a process that has not asked for it yet."""
    owners.boot_epoch.cache_clear()
    yield
    owners.boot_epoch.cache_clear()


@pytest.mark.usefixtures("forgotten_epoch")
def test_a_boot_that_cannot_be_told_for_lack_of_descriptors_is_an_error_and_not_another_boot(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for another boot, RocksDB's log would be believed: a put that failed could come out."""
    real = os.open

    def refusing(path: str, *arguments: Any, **options: Any) -> int:
        if "boot_id" in path:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *arguments, **options)

    with segq.Queue(empty) as q:
        owners.boot_epoch.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", refusing)
            patch.setattr(os, "open", refusing)
            with pytest.raises(segq.StorageError, match="ulimit"):
                q.put("refused")
        q.put("stored")
        assert q.get(timeout=5) == "stored"


@pytest.mark.usefixtures("forgotten_epoch")
@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOENT])
def test_where_the_boot_has_no_number_its_time_serves(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("segq._core.system.fs.open_regular", refusing)
        assert owners.boot_epoch() == int(psutil.boot_time())


def test_what_somebody_left_who_died_while_taking_a_slot_goes_when_the_next_takes_one(queue_path: str) -> None:
    segq.Queue(queue_path).close()
    left = Path(queue_path, "owners", "0007.new")
    left.touch()
    with segq.Queue(queue_path):
        assert not left.exists()


def test_the_boot_has_one_number() -> None:
    assert owners.boot_epoch() == owners.boot_epoch() != 0
