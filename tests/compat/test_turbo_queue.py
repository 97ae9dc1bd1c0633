"""The stand-in for turbo-queue: its quickstart, its batches, and a dequeuer killed in the middle of one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import accounts
import pytest
from cli_command import environment

import segq
from segq.compat import turbo_queue

# The quickstart of turbo-queue's README, as printed but for the two things that nothing can run: the missing colon of
# `def process_data(data)`, and the path.
QUICKSTART = """
import turbo_queue

queue_name = 'data_in'
root_path = {path!r}

### cleanup queues from pervious restarts
clean_turbo_queue = turbo_queue.{Startup}()
clean_turbo_queue.queue_name = queue_name
clean_turbo_queue.root_path = root_path
clean_turbo_queue.on_start_cleanup()

### enqueue data
enqueue = turbo_queue.{Enqueue}()
enqueue.queue_name = queue_name
enqueue.root_path = root_path
enqueue.max_ready_files = 5
enqueue.max_events_per_file = 1000
enqueue.start()

enqueue.update_enqueue_active_state()
while enqueue.enqueue_active:
  data = '''{{"data":"add_to_queue"}}'''
  enqueue.add(data)
  enqueue.update_enqueue_active_state()

seen = []
def process_data(data):
  seen.append(data)
  return

### Dequeue data
dequeue = turbo_queue.{Dequeue}()
dequeue.queue_name = queue_name
dequeue.root_path = root_path
get_data = dequeue.get()
data = next(get_data)
while data:
  process_data(data)
  data = next(get_data)

print(len(seen), set(seen), dequeue.total_gets(), dequeue.total_batch())
data = next(get_data)  # "call next(get_data) again to check the queue for more data"
print(data)
"""


@pytest.mark.parametrize("names", [("Startup", "Enqueue", "Dequeue"), ("startup", "enqueue", "dequeue")])
def test_the_quickstart_runs_as_printed(tmp_path: Path, names: tuple[str, str, str]) -> None:
    written = QUICKSTART.format(path=str(tmp_path), **dict(zip(("Startup", "Enqueue", "Dequeue"), names, strict=True)))
    program = "import sys, segq.compat.turbo_queue as t; sys.modules['turbo_queue'] = t\n" + written
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ['1000 {\'{"data":"add_to_queue"}\'} 1000 1', '{"data":"add_to_queue"}']


def made(kind: type, path: Path, events: int = 10, age: int = 60, **more: Any) -> Any:
    it = kind()
    it.root_path, it.queue_name = str(path), "q"
    it.max_events_per_file, it.max_batch_age = events, age
    for name, value in more.items():
        setattr(it, name, value)
    return it


def through(generator: Any) -> list[Any]:
    """What comes until None."""
    return list(iter(lambda: next(generator), None))


@pytest.fixture
def place(tmp_path: Path) -> Any:
    yield tmp_path
    if (tmp_path / "q").is_dir():
        report = segq.check(tmp_path / "q")
        assert report.ok, report.problems


def test_a_batch_is_what_fills_a_file_and_none_ends_it(place: Path) -> None:
    with made(turbo_queue.Enqueue, place) as enqueue, made(turbo_queue.Dequeue, place) as dequeue:
        for n in range(25):
            enqueue.add({"n": n})
        assert enqueue.get_ready_length() == 2
        generator = dequeue.get()
        assert through(generator) == [{"n": n} for n in range(10)]
        assert through(generator) == [{"n": n} for n in range(10, 20)]
        assert through(generator) == []  # five wait, and are not old enough
        assert (dequeue.total_gets(), dequeue.total_batch()) == (20, 2)
        assert enqueue.queue().qsize() == 5


def test_a_batch_that_does_not_fill_is_ready_when_it_is_old(place: Path) -> None:
    with made(turbo_queue.Enqueue, place, age=1) as enqueue, made(turbo_queue.Dequeue, place) as dequeue:
        begun = time.time()
        enqueue.add("one")
        enqueue.add("two")
        generator = dequeue.get()
        got: list[Any] = []
        accounts.until(lambda: got.extend(through(generator)) or got, 20, "the batch became old")
        assert got == ["one", "two"]
        assert time.time() - begun >= 1


def test_enqueue_is_active_while_there_is_room_for_another_file(place: Path) -> None:
    with made(turbo_queue.Enqueue, place, max_ready_files=2) as enqueue, made(turbo_queue.Dequeue, place) as dequeue:
        assert enqueue.enqueue_active is False
        enqueue.update_enqueue_active_state()
        assert enqueue.enqueue_active is True
        for n in range(20):
            enqueue.add(n)
        assert enqueue.enqueue_active is False
        enqueue.drop_overflow = True
        enqueue.add("dropped")
        assert through(dequeue.get()) == list(range(10))
        enqueue.update_enqueue_active_state()
        assert enqueue.enqueue_active is True
        assert enqueue.queue().qsize() == 10


def test_without_auto_cleanup_the_batch_stays_until_it_is_said(place: Path) -> None:
    with made(turbo_queue.Enqueue, place) as enqueue, made(turbo_queue.Dequeue, place, auto_cleanup=False) as dequeue:
        for n in range(20):
            enqueue.add([n])
        generator = dequeue.get()
        assert through(generator) == [[n] for n in range(10)]
        assert next(generator) is None
        assert next(dequeue.get()) is None
        dequeue.roll_back()
        assert through(generator) == [[n] for n in range(10)]
        dequeue.clean_up()
        assert through(dequeue.get()) == [[n] for n in range(10, 20)]
        dequeue.clean_up()
        dequeue.clean_up()  # with nothing in hand: nothing to do
        dequeue.roll_back()
        assert enqueue.queue().stats().items == 0


def test_cleaning_up_in_the_middle_gives_back_what_was_not_handed_out(place: Path) -> None:
    with made(turbo_queue.Enqueue, place) as enqueue, made(turbo_queue.Dequeue, place, auto_cleanup=False) as dequeue:
        for n in range(10):
            enqueue.add([n])
        generator = dequeue.get()
        assert [next(generator) for _ in range(4)] == [[0], [1], [2], [3]]
        dequeue.clean_up()
        assert enqueue.queue().peek(100)[0][4] == [4]
        assert enqueue.queue().qsize() == 6


def test_another_generator_goes_on_where_the_first_was(place: Path) -> None:
    with made(turbo_queue.Enqueue, place) as enqueue, made(turbo_queue.Dequeue, place) as dequeue:
        for n in range(10):
            enqueue.add([n])
        first = dequeue.get()
        assert next(first) == [0]
        assert through(dequeue.get()) == [[n] for n in range(1, 10)]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("queue_name", 5),
        ("root_path", Path("x")),
        ("max_ready_files", 0),
        ("max_events_per_file", True),
        ("max_batch_age", 1.5),
    ],
)
def test_properties_refuse_what_turbo_queue_refuses(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=name):
        setattr(turbo_queue.Enqueue(), name, wrong)
    with pytest.raises(ValueError, match="auto_cleanup"):
        turbo_queue.Dequeue().auto_cleanup = 1


def test_an_event_that_json_cannot_hold_is_refused_and_files_of_turbo_queue_are_pointed_out(place: Path) -> None:
    with made(turbo_queue.Enqueue, place) as enqueue, pytest.raises(TypeError):
        enqueue.add({1, 2})
    (place / "old").mkdir()
    (place / "old" / "ready_1_2.db").write_bytes(b"")
    with made(turbo_queue.Enqueue, place, queue_name="old") as enqueue, pytest.raises(segq.NotAQueueError, match="segq import"):
        enqueue.start()


def test_items_that_segq_put_are_events(place: Path) -> None:
    with segq.Queue(place / "q", serializer="json") as queue:
        queue.put_many([{"n": 1}, ["segq"], "x"])
    with made(turbo_queue.Dequeue, place) as dequeue:
        generator = dequeue.get()
        assert through(generator) == [{"n": 1}, ["segq"], "x"]


def take_some(path: Path, how_many: int, told: Any, *, clean: bool) -> None:
    dequeue = made(turbo_queue.Dequeue, path, auto_cleanup=clean)
    generator = dequeue.get()
    for _ in range(how_many):
        told.send(next(generator))
    signal.pause()


def test_a_dequeuer_killed_in_the_middle_of_a_batch_loses_nothing(place: Path) -> None:
    how_many = 137
    context = multiprocessing.get_context("spawn")
    with made(turbo_queue.Enqueue, place, events=500) as enqueue, made(turbo_queue.Dequeue, place) as dequeue:
        for n in range(1000):
            enqueue.add({"n": n})
        hears, told = context.Pipe(duplex=False)
        victim = context.Process(target=take_some, args=(place, how_many, told), kwargs={"clean": False})
        victim.start()
        handed = [hears.recv()["n"] for _ in range(how_many)]
        assert handed == list(range(how_many))
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
        generator = dequeue.get()
        got: list[int] = []
        accounts.until(lambda: got.extend(e["n"] for e in through(generator)) or len(got) >= 1000, 30, "all came")
        assert sorted(got) == list(range(1000))  # all of it, the victim's batch too, and nothing twice
        assert enqueue.queue().stats().items == 0


def add_for_ever(path: Path, told: Any) -> None:
    enqueue = made(turbo_queue.Enqueue, path, events=100, age=1)
    for n in range(1_000_000):
        enqueue.add({"n": n})
        told.send(n)


def test_an_enqueuer_killed_before_its_batch_is_full_loses_nothing(place: Path) -> None:
    context = multiprocessing.get_context("spawn")
    hears, told = context.Pipe(duplex=False)
    victim = context.Process(target=add_for_ever, args=(place, told))
    victim.start()
    added = [hears.recv() for _ in range(250)]
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    while hears.poll():
        try:
            added.append(hears.recv())
        except EOFError:
            break
    with made(turbo_queue.Dequeue, place) as dequeue:
        generator = dequeue.get()
        got: list[int] = []
        accounts.until(lambda: got.extend(e["n"] for e in through(generator)) or len(got) >= len(added), 30, "all came")
        assert got[: len(added)] == added


TASKS = """
import os, sys, time
from segq.compat import turbo_queue

def note(where, process_id):
    open(f"{where}/{process_id}", "w").close()
    while len(sys.argv) > 2: time.sleep(0.01)

if __name__ == "__main__":
    tasks = turbo_queue.MultiTask()
    group = turbo_queue.TaskGroup()
    group.function_to_call, group.kwargs, group.process_count = note, {"where": sys.argv[1]}, 3
    tasks.add_task(group)
    tasks.add_task(turbo_queue.TaskGroup())
    tasks.start_all()
    print("ended", [p.exitcode for p in tasks.process_list])
"""


def test_task_groups_run_in_processes_of_their_own_and_end_with_the_parent(tmp_path: Path) -> None:
    program = tmp_path / "tasks.py"
    program.write_text(TASKS)
    notes = tmp_path / "notes"
    notes.mkdir()
    run = [sys.executable, "-W", "ignore", str(program), str(notes)]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=60, env=environment(), cwd=tmp_path)
    assert ended.stdout == "ended [0, 0, 0]\n", ended.stderr
    assert sorted(os.listdir(notes)) == ["11", "12", "13"]
    assert sorted(os.listdir(tmp_path)) == ["notes", "tasks.py"]  # turbo-queue writes a log where it is imported
    for name in os.listdir(notes):
        (notes / name).unlink()
    with subprocess.Popen([*run, "stay"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as running:
        accounts.until(lambda: len(os.listdir(notes)) == 3, 30, "the tasks run")
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 0, running.stderr and running.stderr.read()
