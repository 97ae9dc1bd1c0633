"""`segq run`: what a file may say, and that a pipeline ends as it should, whatever is killed."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from accounts import until
from cli_command import ROOT, environment, segq, started

import segq as library
from segq._core.base.errors import SettingsError
from segq.pipeline import read_plan
from segq.pipeline.stages import CommandSource, CommandWorker, FunctionSource, FunctionWorker

PATIENCE = 90.0

GOOD = """
[pipeline]
name = "squares"
directory = "run"
[queues.raw]
max_deliveries = 2
[queues.done]
path = "elsewhere/done"
[sources.numbers]
kind = "function"
function = "work:numbers"
to = "raw"
[workers.square]
function = "work:square"
from = "raw"
to = "done"
processes = 2
backoff = 0.01
[sinks.keep]
kind = "function"
function = "work:keep"
from = "done"
"""

WORK = """
import os, signal, time
COUNT = int(os.environ.get("COUNT", "300"))
def numbers():
    yield from range(COUNT)
def endless():
    n = 0
    while True:
        yield n
        n += 1
        time.sleep(0.001)
def square(n):
    if n == 13:
        raise ValueError("unlucky")
    if n == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"n": n, "square": n * n}
def slow(n):
    time.sleep(0.005)
    return {"n": n}
def keep(value):
    with open("out", "a") as file:
        file.write(f"{value['n']}\\n")
"""


def made(place: Path, text: str = GOOD) -> Path:
    (place / "work.py").write_text(WORK)
    (place / "pipeline.toml").write_text(text)
    return place / "pipeline.toml"


def kept(place: Path) -> Counter[int]:
    with contextlib.suppress(FileNotFoundError):
        return Counter(int(line) for line in (place / "out").read_text().split("\n")[:-1])
    return Counter()


# --- the file ---


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    plan = read_plan(made(tmp_path))
    assert (plan.name, plan.directory, plan.drain) == ("squares", str(tmp_path), 10.0)
    assert [queue.path for queue in plan.queues] == [f"{tmp_path}/run/raw", f"{tmp_path}/run/elsewhere/done"]
    assert plan.queues[0].settings == {"max_deliveries": 2}
    assert [(stage.role, stage.name, stage.processes) for stage in plan.stages] == [
        ("source", "numbers", 1),
        ("worker", "square", 2),
        ("sink", "keep", 1),
    ]
    assert plan.stages[1].settings == {"function": "work:square", "backoff": 0.01}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[pipeline]", "[pipeline"), "is not TOML"),
        (('name = "squares"', "name = 5"), r"\[pipeline\]: name must be text"),
        (('name = "squares"', "colour = 5"), r"\[pipeline\]: 'colour' is not known"),
        (("[pipeline]", "[pipelines]"), "'pipelines' is not known"),
        (
            ('kind = "function"\nfunction = "work:numbers"', 'kind = "kafak"'),
            "no source of kind 'kafak': command, function, kafka",
        ),
        (('from = "done"', 'from = "dnoe"'), r"\[sinks.keep\]: from = 'dnoe': there is no \[queues.dnoe\]"),
        (('from = "done"', ""), "from is missing"),
        (("processes = 2", "processes = -1"), "number of processes"),
        (('path = "elsewhere/done"', 'path = "nats://host/done"'), "queues are directories"),
        (("processes = 2", 'label = "x"'), "only topics have labels"),
        (("[queues.raw]", "[queues.raw]\ntopic = true"), "say of which label"),
        (("[sinks.keep]", "[sinks.square]"), "two stages are called 'square'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_named_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(SettingsError, match=said):
        read_plan(made(tmp_path, GOOD.replace(*change)))


# --- stages ---


@contextlib.contextmanager
def queues(place: Path) -> Iterator[tuple[library.Queue, library.Queue]]:
    with library.Queue(place / "a", max_deliveries=2) as a, library.Queue(place / "b") as b:
        yield a, b


def emptied(stage: FunctionWorker | CommandWorker, queue: library.Queue) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stage.run, args=(stop,))
    thread.start()
    until(lambda: queue.stats().items == 0, PATIENCE, "the worker has done all")
    stop.set()
    thread.join(PATIENCE)


def test_a_function_is_a_source_and_a_worker(tmp_path: Path) -> None:
    with queues(tmp_path) as (a, b):
        FunctionSource(a, lambda: range(250)).run(threading.Event())
        emptied(FunctionWorker(a, lambda n: None if n % 2 else n * n, to=b), a)
        assert sorted(b.get_many(1000)) == [n * n for n in range(0, 250, 2)]


def test_a_function_that_fails_is_tried_again_and_then_its_item_is_a_dead_letter(tmp_path: Path) -> None:
    times: Counter[int] = Counter()

    def fails(n: int) -> int:
        times[n] += 1
        if n == 3 or (n == 2 and times[n] == 1):
            raise ValueError(f"not {n}")
        return n

    with queues(tmp_path) as (a, b):
        a.put_many(range(5))
        emptied(FunctionWorker(a, fails, to=b, backoff=0.01), a)
        assert sorted(b.get_many(10)) == [0, 1, 2, 4]
        (letter,) = a.dead
        assert (letter.value, letter.deliveries) == (3, 2)
        assert letter.reason.startswith("ValueError: not 3\nTraceback")
        assert times == {0: 1, 1: 1, 2: 2, 3: 2, 4: 1}


def test_a_slow_worker_gives_no_item_back_that_it_has_not_worked_on(tmp_path: Path) -> None:
    with queues(tmp_path) as (a, b):
        a.put_many(range(20))
        pause = threading.Event()
        emptied(FunctionWorker(a, lambda n: pause.wait(0.02) or n, to=b), a)
        assert sorted(b.get_many(100)) == list(range(20))
        assert a.stats().redelivered == 0
        assert len(a.dead) == 0


def test_a_command_is_a_source_and_a_worker(tmp_path: Path) -> None:
    with queues(tmp_path) as (a, b):
        CommandSource(a, ["printf", "1\\n2\\n3"]).run(threading.Event())
        emptied(
            CommandWorker(
                a, ["sh", "-c", "read n; test $n != 2 || { echo oh no >&2; exit 4; }; echo $n$n"], to=b, backoff=0.01
            ),
            a,
        )
        assert sorted(b.get_many(10)) == ["11", "33"]
        (letter,) = a.dead
        assert letter.reason == "sh exited with 4: oh no"
        with pytest.raises(library.QueueError, match="false exited with 1"):
            CommandSource(a, ["false"]).run(threading.Event())
        with pytest.raises(SettingsError, match="list of words"):
            CommandSource.from_settings(a, command="ls -l")
        with pytest.raises(SettingsError, match="colour"):
            FunctionWorker.from_settings(a, function=len, colour=1)


# --- the whole ---


def test_a_pipeline_ends_when_all_is_done_and_its_account_closes(tmp_path: Path) -> None:
    """One number is unlucky, another kills its worker: both are dead letters, all others come through once."""
    ended = segq("run", made(tmp_path), "--exit-when-done", "--status", "0")
    assert ended.returncode == 0, ended.stderr
    assert b"was killed by signal 9; another one starts" in ended.stderr
    with library.Queue(tmp_path / "run" / "raw") as raw:
        assert sorted((letter.value, letter.deliveries) for letter in raw.dead) == [(13, 2), (17, 2)]
    assert kept(tmp_path).keys() == set(range(300)) - {13, 17}


def test_a_file_can_be_checked_without_starting_anything(tmp_path: Path) -> None:
    assert segq("run", made(tmp_path), "--check").stdout.count(b"\n") == 5
    assert not (tmp_path / "run").exists()


@pytest.mark.torture
def test_a_stage_that_cannot_work_ends_the_pipeline(tmp_path: Path) -> None:
    ended = segq("run", made(tmp_path, GOOD.replace("work:square", "work:cube")))
    assert ended.returncode == 1
    assert b"work:cube" in ended.stderr or b"cube" in ended.stderr
    assert b"cannot work: the pipeline ends" in ended.stderr


ENDLESS = GOOD.replace("work:numbers", "work:endless").replace("work:square", "work:slow")


@contextlib.contextmanager
def running(path: Path, *options: str, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    with started("run", path, *(options or ("--quiet",)), cwd=path.parent, **({"stderr": None} | how)) as process:
        try:
            yield process
        finally:
            children = psutil.Process(process.pid).children() if process.poll() is None else []
            process.kill()
            psutil.wait_procs(children, timeout=PATIENCE)


@pytest.mark.torture
def test_the_first_signal_drains_the_queues(tmp_path: Path) -> None:
    path = made(tmp_path, ENDLESS)
    with running(path) as process:
        until(lambda: len(kept(tmp_path)) > 50, PATIENCE, "it works")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    numbers = kept(tmp_path)
    assert numbers == dict.fromkeys(range(len(numbers)), 1)  # all that was put came through, once
    for name in ("raw", "elsewhere/done"):
        with library.Queue(tmp_path / "run" / name) as queue:
            assert queue.stats().items == 0


@pytest.mark.torture
@pytest.mark.skipif(sys.platform != "linux", reason="tells the processes by the names that they have on Linux")
def test_whatever_is_killed_nothing_that_was_put_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path, GOOD.replace("work:square", "work:slow").replace("[pipeline]", "[pipeline]\ndrain = 0"))
    monkeypatch.setenv("COUNT", "300")
    for stage in ("square", "keep", "supervisor"):  # each starts the source anew, which begins anew
        with running(path) as process:
            before = kept(tmp_path).total()
            until(lambda before=before: kept(tmp_path).total() > before + 50, PATIENCE, "it works")  # type: ignore[misc]
            children = psutil.Process(process.pid).children()
            if stage == "supervisor":
                process.kill()
                _, alive = psutil.wait_procs(children, timeout=PATIENCE)
                assert not alive, "the stages go on though nobody supervises them"
            else:
                next(child for child in children if child.name() == stage).kill()
                until(lambda before=before: kept(tmp_path).total() > before + 100, PATIENCE, "it works on")  # type: ignore[misc]
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
    with started("run", path, "--exit-when-done", "--quiet", cwd=tmp_path, stderr=None) as process:
        assert process.wait(PATIENCE) == 0
    assert kept(tmp_path).keys() == set(range(300))


@pytest.mark.torture
def test_the_second_signal_kills_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path = made(tmp_path, ENDLESS.replace("time.sleep(0.005)", "time.sleep(60)"))
    (tmp_path / "work.py").write_text(WORK.replace("time.sleep(0.005)", "time.sleep(60)"))
    with running(path, "--status", "0", stderr=subprocess.PIPE) as process:
        raw = tmp_path / "run" / "raw"
        until(lambda: (raw / "queue.json").exists() and held(raw) > 0, PATIENCE, "a worker sleeps with an item in hand")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert any(b"a second signal kills" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 1
    with library.Queue(raw) as queue:
        until(lambda: queue.stats().claimed == 0, PATIENCE, "what was in hand is back")


def held(path: Path) -> int:
    with library.Queue(path) as queue:
        return queue.stats().claimed


@pytest.mark.external
def test_the_account_of_the_example_closes_with_all_its_kills(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra http")
    show = ROOT / "examples" / "kafka_to_api" / "show.py"
    command = [sys.executable, str(show), "--orders", "1000", "--outage", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("kill -9") == 6
    assert re.search(r"dead letters +1\n +1   HTTP 422: no such customer\n +lost +0\n +invented +0", ended.stdout), ended.stdout
