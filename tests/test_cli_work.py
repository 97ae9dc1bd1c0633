"""`segq work`: every item dealt with, workers replaced when they die, a gentle end when asked for."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_command import PATIENCE, eventually, segq, started

import segq as library


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "queue"
    library.Queue(path).close()
    yield path
    assert library.check(path).ok


def fill(queue: Path, *values: object) -> None:
    with library.Queue(queue, create=False) as target:
        target.put_many(values)


def held(queue: Path) -> list[object]:
    with library.Queue(queue, create=False) as source:
        return source.peek(1000)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_the_command_runs_once_for_each_item(queue: Path, tmp_path: Path) -> None:
    fill(queue, *(f"item {n}" for n in range(20)))
    ended = segq("work", queue, "--procs", 2, "--exit-when-empty", "--", "sh", "-c", f"cat >> {tmp_path}/log")
    assert ended.returncode == 0
    assert sorted(lines(tmp_path / "log")) == sorted(f"item {n}" for n in range(20))
    assert held(queue) == []


def test_a_function_of_a_module_in_the_working_directory_is_called(queue: Path, tmp_path: Path) -> None:
    (tmp_path / "chores.py").write_text("def note(item):\n    open('log', 'a').write(f'{item[\"n\"]}\\n')\n")
    fill(queue, *({"n": n} for n in range(10)))
    ended = segq("work", queue, "--procs", 1, "--exit-when-empty", "--call", "chores:note", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert sorted(map(int, lines(tmp_path / "log"))) == list(range(10))


def test_items_that_fail_go_back_and_the_exit_code_says_so(queue: Path) -> None:
    fill(queue, "good", "bad", "fine")
    ended = segq("work", queue, "--procs", 1, "--exit-when-empty", "--", "grep", "-qv", "bad")
    assert ended.returncode == 1
    assert b"grep exited with 1" in ended.stderr
    assert held(queue) == ["bad"]


def test_an_exception_in_the_function_gives_the_item_back(queue: Path, tmp_path: Path) -> None:
    (tmp_path / "chores.py").write_text("def trip(item):\n    raise ValueError('over ' + item)\n")
    fill(queue, "wire")
    with started("work", queue, "--procs", 1, "--exit-when-empty", "--call", "chores:trip", cwd=tmp_path) as working:
        _, err = working.communicate(timeout=PATIENCE)
    assert working.returncode == 1
    assert b"ValueError: over wire" in err
    assert held(queue) == ["wire"]


def test_a_worker_that_is_killed_is_replaced_and_its_item_is_done(queue: Path, tmp_path: Path) -> None:
    fill(queue, *"abcdef")
    mark, log = tmp_path / "mark", tmp_path / "log"
    script = f"read item; if mkdir {mark} 2>/dev/null; then kill -9 $PPID; exit 1; fi; echo $item >> {log}"
    ended = segq("work", queue, "--procs", 2, "--exit-when-empty", "--", "sh", "-c", script)
    assert ended.returncode == 0
    assert b"was killed by signal 9; another one starts" in ended.stderr
    assert sorted(lines(log)) == list("abcdef")
    assert held(queue) == []


def test_a_function_that_cannot_be_found_ends_the_pool_at_once(queue: Path) -> None:
    fill(queue, "x")
    for target in ("no_such_module:function", "os:no_such_function", "os:sep", "os"):
        ended = segq("work", queue, "--procs", 2, "--call", target)
        assert ended.returncode == 1
        assert target.encode() in ended.stderr
    assert held(queue) == ["x"]


def test_a_command_that_does_not_exist_is_refused(queue: Path) -> None:
    ended = segq("work", queue, "--", "no-such-command-anywhere")
    assert ended.returncode == 1
    assert b"no-such-command-anywhere" in ended.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_lets_the_item_in_hand_finish_and_gives_the_rest_back(
    queue: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    fill(queue, *(f"item {n}" for n in range(30)))
    log, go = tmp_path / "log", tmp_path / "go"
    script = f"read item; echo begun >> {log}; while [ ! -e {go} ]; do sleep 0.02; done; echo $item >> {tmp_path}/done"
    with started("work", queue, "--procs", 2, "--", "sh", "-c", script, start_new_session=True) as pool:
        eventually(lambda: len(lines(log)) == 2)
        os.killpg(pool.pid, number) if number == signal.SIGINT else pool.send_signal(number)  # as a terminal would
        assert pool.stderr is not None
        assert b"every worker finishes the item in hand" in pool.stderr.readline()
        go.touch()
        assert pool.wait(PATIENCE) == code
    finished = lines(tmp_path / "done")
    assert len(finished) == 2
    assert sorted([*finished, *map(str, held(queue))]) == sorted(f"item {n}" for n in range(30))


def test_the_workers_end_when_the_pool_is_killed(queue: Path) -> None:
    with library.Queue(queue, create=False) as watched, started("work", queue, "--procs", 2, "--", "true") as pool:
        eventually(lambda: len(watched.stats().owners) == 3)
        pool.kill()
        pool.wait(PATIENCE)
        eventually(lambda: len(watched.stats().owners) == 1)


def test_the_pool_ends_when_the_queue_is_shut_down(queue: Path) -> None:
    with library.Queue(queue, create=False) as target, started("work", queue, "--procs", 2, "--", "true") as pool:
        target.put_many(range(10))
        target.shutdown()
        assert pool.wait(PATIENCE) == 0
        assert target.stats().items == 0


def test_a_failed_item_is_tried_again_after_a_while(queue: Path, tmp_path: Path) -> None:
    fill(queue, "x")
    mark, log = tmp_path / "mark", tmp_path / "log"
    script = f'mkdir {mark} 2>/dev/null && exit 7; echo "delivery $SEGQ_DELIVERIES" >> {log}'
    with started("work", queue, "--procs", 1, "--", "sh", "-c", script) as pool:
        eventually(lambda: lines(log) == ["delivery 2"])
        pool.terminate()
        _, err = pool.communicate(timeout=PATIENCE)
    assert b"sh exited with 7); next attempt in 1 s" in err
    assert held(queue) == []


def test_an_item_that_fails_too_often_becomes_a_dead_letter_and_is_put_back(queue: Path, tmp_path: Path) -> None:
    fill(queue, "bad", "good")
    log, mended = tmp_path / "log", tmp_path / "mended"
    script = f"read item; test $item = good || test -e {mended} || exit 9; echo $item >> {log}"
    work = ("work", queue, "--procs", 1, "--exit-when-empty", "--max-deliveries", 1, "--", "sh", "-c", script)
    ended = segq(*work)
    assert ended.returncode == 1
    assert b"sh exited with 9); given up after 1 deliveries" in ended.stderr
    assert lines(log) == ["good"]
    listed = segq("dead", "list", queue, "--json")
    (letter,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (letter["value"], letter["reason"], letter["deliveries"]) == ("bad", "sh exited with 9", 1)
    assert b"sh exited with 9" in segq("dead", "list", queue).stdout
    assert segq("dead", "show", queue, letter["id"], "--value").stdout == b"bad\n"
    assert json.loads(segq("dead", "show", queue, letter["id"]).stdout) == letter
    assert segq("dead", "requeue", queue).returncode == 2
    assert segq("dead", "requeue", queue, letter["id"]).stdout == b"1 letter put back\n"
    mended.touch()
    assert segq(*work).returncode == 0
    assert lines(log) == ["good", "bad"]
    assert segq("dead", "list", queue).returncode == 3


def test_an_item_that_takes_its_worker_with_it_becomes_a_dead_letter(queue: Path) -> None:
    fill(queue, "poison")
    script = "kill -9 $PPID"
    ended = segq("work", queue, "--procs", 1, "--exit-when-empty", "--max-deliveries", 2, "--", "sh", "-c", script)
    assert ended.stderr.count(b"was killed by signal 9; another one starts") == 2
    with library.Queue(queue, create=False) as target:
        (letter,) = target.dead
        assert (letter.value, letter.deliveries) == ("poison", 2)
    assert segq("dead", "purge", queue, "--yes").stdout == b"1 letter thrown away\n"


def test_a_lease_is_extended_while_the_command_runs(tmp_path: Path) -> None:
    path = tmp_path / "leased"
    with library.Queue(path, lease=0.3) as target:
        target.put("slow")
        script = f"echo begun >> {tmp_path}/log; sleep 1.5"
        ended = segq("work", path, "--procs", 2, "--exit-when-empty", "--", "sh", "-c", script)
        assert ended.returncode == 0
        assert lines(tmp_path / "log") == ["begun"]
        assert target.stats().items == 0


def test_either_a_command_or_a_function_has_to_be_given(queue: Path) -> None:
    assert segq("work", queue).returncode == 2
    assert segq("work", queue, "--call", "a:b", "--", "true").returncode == 2
