"""The examples run as their docstrings say, end by themselves and show what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nats_server
import pytest
from cli_command import PATIENCE, ROOT, environment

EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: object, patience: float = PATIENCE) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=patience, env=environment()).stdout


def test_every_example_has_a_test_and_says_how_to_run_it() -> None:
    tested = {
        "worker_pool.py",
        "producer.py",
        "consumer.py",
        "crash_safe_receive.py",
        "topic.py",
        "three_nodes.py",
        "kafka_roundtrip.py",
        "asyncio_workers.py",
        "from_rocksq.py",
        "non_blocking.py",
    }
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
    for name in tested - {"consumer.py"}:
        assert f"python examples/{name}" in (EXAMPLES / name).read_text()


def test_the_worker_pool_finds_what_a_single_process_finds() -> None:
    shown = run("worker_pool.py")
    pool = re.search(r"200 answers, in all (\d+) primes", shown)
    alone = re.search(r"one process finds (\d+)", shown)
    assert pool is not None
    assert alone is not None
    assert pool[1] == alone[1]


def test_the_consumer_gets_live_what_the_producer_puts(tmp_path: Path) -> None:
    path = tmp_path / "readings"
    consumer = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "consumer.py"), str(path)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    with consumer:
        run("producer.py", path)
        out, _ = consumer.communicate(timeout=PATIENCE)
    assert [int(number) for number in re.findall(r"got reading (\d+)", out)] == list(range(1, 21))
    assert out.endswith("that was all: 20 of 20 readings taken\n")


def test_the_consumer_finds_what_an_earlier_producer_left(tmp_path: Path) -> None:
    run("producer.py", tmp_path / "readings")
    assert run("consumer.py", tmp_path / "readings").endswith("that was all: 20 of 20 readings taken\n")


def test_the_order_of_a_killed_process_comes_back() -> None:
    shown = run("crash_safe_receive.py").splitlines()
    assert shown[0] == "the child works on 'order 4711', delivery 1"
    assert re.fullmatch(r"'order 4711' came back after \d+\.\d s, delivery 2", shown[2])
    assert shown[-2:] == ["'order 4711' is done now, delivery 3", "orders left: 0"]


def test_each_label_of_the_topic_gets_every_headline() -> None:
    shown = run("topic.py").splitlines()
    for label in ("mailer", "archive"):
        lines = [line.removeprefix(f"{label}: ") for line in shown if line.startswith(label)]
        assert lines == ["rain", "sun", "wind", "fog", "snow", "missed 0, behind 0"]
    assert shown[-1] == "stored now: 0"


@pytest.mark.external
def test_nothing_is_lost_when_one_of_three_nodes_dies() -> None:
    pytest.importorskip("nats", reason="needs nats-py: pip install 'segq[nats]'")
    if nats_server.binary() is None:
        pytest.skip("there is no nats-server on this machine (.ci/nats-server installs one)")
    shown = run("three_nodes.py", "--server", nats_server.binary(), patience=4 * PATIENCE).splitlines()
    assert any(re.fullmatch(r"node \d is killed, \d+ orders are done", line) for line in shown)
    assert shown[-1] == "1000 of 1000 orders are done, 0 are left"


def test_the_coroutines_answer_what_the_other_process_asks() -> None:
    assert run("asyncio_workers.py") == "50 squares, the last of them 2401; jobs left: 0\n"


def test_a_queue_of_rocksqs_kind_is_shared_by_two_processes() -> None:
    shown = run("from_rocksq.py").splitlines()
    assert shown[:3] == ["Failed to push item: Queue is full", "popped in another process: [b'a', b'b', b'c']", "left: 0"]
    assert shown[3:] == [f"{label} [b'rain', b'sun'] False" for label in ("mail", "log")]


def test_the_kafka_example_says_what_it_needs() -> None:
    assert run("kafka_roundtrip.py").startswith("this example needs")


def test_what_must_not_wait_is_done_as_soon_as_it_can_be() -> None:
    assert run("non_blocking.py").splitlines() == [
        "three gets wait: [False, False, False]",
        "two of them got ['a', 'b']",
        "puts that are stored: [True, True, False, False]",
        "got [0, 1, 2, 3]",
        "all are stored: [None, None, None, None]",
    ]
