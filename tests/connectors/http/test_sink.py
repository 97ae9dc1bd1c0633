"""`HttpSink` against a real server on loopback: nothing is lost, whatever the server, or a signal, does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest
from accounts import ROOT, until

import segq
from segq.connectors.http import HttpSink, Request

pytest.importorskip("aiohttp", reason="needs the extra http")
from api_server import ApiServer

pytestmark = pytest.mark.external
PATIENCE = 60.0


@contextlib.contextmanager
def running(sink: HttpSink) -> Iterator[threading.Event]:
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            sink.run(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert not failures, failures


def all_settled(queue: segq.Queue) -> None:
    until(lambda: queue.stats().items == 0, PATIENCE, "everything is settled")


def quick(queue: segq.Queue, url: str, **settings: Any) -> HttpSink:
    return HttpSink(queue, url, **({"backoff": 0.01, "longest_backoff": 0.05} | settings))


def test_many_requests_are_under_way_and_every_item_is_sent_once(queue_path: str) -> None:
    with segq.Queue(queue_path) as q, ApiServer(seconds=0.05) as api:
        items = [f"item {n}" for n in range(300)]
        q.put_many(items)
        sink = quick(q, api.url, concurrency=40)
        with running(sink):
            all_settled(q)
        assert api.accepted == dict.fromkeys(items, 1)
        assert 10 < api.most <= 40
        assert sink.counts.sent == 300


def test_an_api_that_fails_at_random_gets_every_item(queue_path: str) -> None:
    def answer(text: str, times: int) -> tuple[int, dict[str, str], str]:
        return (503 if times < 1 + int(text) % 4 else 200), {}, "try again"

    with segq.Queue(queue_path) as q, ApiServer(answer) as api:
        q.put_many([str(n) for n in range(100)])
        sink = quick(q, api.url)
        with running(sink):
            all_settled(q)
        assert api.accepted == {str(n): 1 for n in range(100)}
        assert all(len(keys) == 1 for keys in api.keys.values())  # the same key at each attempt
        assert sink.counts.retried == sum(n % 4 for n in range(100))


def test_what_is_refused_becomes_a_dead_letter_at_once_and_what_keeps_failing_in_the_end(queue_path: str) -> None:
    def answer(text: str, _times: int) -> tuple[int, dict[str, str], str]:
        return {"bad": (422, {}, "no such customer"), "ill": (500, {}, "oh no")}.get(text, (200, {}, ""))

    with segq.Queue(queue_path, max_deliveries=3) as q, ApiServer(answer) as api:
        q.put_many(["bad", "ill", "good"])
        with running(quick(q, api.url)):
            all_settled(q)
        letters = {letter.value: letter for letter in q.dead}
        assert letters["bad"].reason == "HTTP 422: no such customer"
        assert letters["ill"].reason == "HTTP 500: oh no (attempt 3)"
        assert (letters["bad"].deliveries, letters["ill"].deliveries) == (1, 3)
        assert api.asked == {"bad": 1, "ill": 3, "good": 1}


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(queue_path: str, form: str) -> None:
    asked: list[float] = []

    def answer(_text: str, times: int) -> tuple[int, dict[str, str], str]:
        asked.append(monotonic())
        after = "1" if form == "seconds" else formatdate(time() + 2, usegmt=True)
        return (429, {"Retry-After": after}, "") if times == 1 else (200, {}, "")

    with segq.Queue(queue_path) as q, ApiServer(answer) as api:
        q.put("x")
        with running(quick(q, api.url)):
            all_settled(q)
    assert asked[1] - asked[0] > 0.95


def test_an_outage_uses_up_no_deliveries(queue_path: str) -> None:
    """An API that is away for longer than the items' attempts would last."""
    away = threading.Event()
    away.set()
    attempts = 0

    def answer(_text: str, _times: int) -> tuple[int, dict[str, str], str]:
        nonlocal attempts
        attempts += away.is_set()
        return (503 if away.is_set() else 200), {}, ""

    with segq.Queue(queue_path, max_deliveries=5) as q, ApiServer(answer) as api:
        q.put_many([str(n) for n in range(200)])
        sink = quick(q, api.url, concurrency=20, longest_backoff=0.3)
        with running(sink):
            until(lambda: attempts >= 30, PATIENCE, "the outage has lasted")
            away.clear()
            all_settled(q)
        assert len(api.accepted) == 200
        assert len(q.dead) == 0
        assert sink.counts.retried < attempts


def test_no_connection_and_no_answer_in_time_are_tried_again(queue_path: str) -> None:
    def slow_once(_text: str, times: int) -> tuple[int, dict[str, str], str]:
        api.seconds = 5.0 if times == 1 else 0.0
        return 200, {}, ""

    with segq.Queue(queue_path) as q, ApiServer(slow_once) as api:
        q.put("x")
        with running(quick(q, api.url, timeout=0.3)):
            all_settled(q)
        assert api.asked["x"] >= 2
    with segq.Queue(queue_path, max_deliveries=2) as q:
        q.put("nobody is there")
        with running(quick(q, api.url, breaker=0)):
            all_settled(q)
        (letter,) = q.dead
        assert "Connect" in letter.reason


def test_a_stop_lets_what_is_under_way_end_and_gives_back_what_takes_too_long(queue_path: str) -> None:
    with segq.Queue(queue_path) as q, ApiServer(seconds=0.3) as api:
        q.put_many([str(n) for n in range(50)])
        sink = quick(q, api.url, concurrency=10)
        with running(sink) as stop:
            until(lambda: len(api.asked) == 10, PATIENCE, "ten are under way")
            stop.set()
        assert len(api.accepted) == sink.counts.sent == 50 - q.qsize()
        assert q.stats().claimed == 0
        api.seconds = 60.0
        begun = monotonic()
        sink = quick(q, api.url, concurrency=5, grace=0.2)
        with running(sink) as stop:
            until(lambda: sink.counts.under_way == 5, PATIENCE, "five are under way")
            stop.set()
        assert monotonic() - begun < 30
        assert q.stats().claimed == 0
        assert q.qsize() + len(api.accepted) == 50


def test_the_rate_is_not_exceeded(queue_path: str) -> None:
    with segq.Queue(queue_path) as q, ApiServer() as api:
        q.put_many([str(n) for n in range(30)])
        begun = monotonic()
        with running(quick(q, api.url, rate=50)):
            all_settled(q)
        assert monotonic() - begun >= 29 / 50


def test_a_lease_shorter_than_the_answer_does_not_send_twice(queue_path: str) -> None:
    with segq.Queue(queue_path, lease=0.3) as q, ApiServer(seconds=1.2) as api:
        q.put("x")
        with running(quick(q, api.url)):
            all_settled(q)
        assert api.asked["x"] == 1


def test_a_convert_says_what_is_sent_where(queue_path: str) -> None:
    def convert(value: dict[str, Any]) -> Request | None:
        if value["n"] < 0:
            return None
        return Request(method="PUT", url=f"orders/{value['n']}", body=b"%d" % (10 // value["n"]))

    with segq.Queue(queue_path) as q, ApiServer() as api:
        q.put_many([{"n": n} for n in (-1, 0, 1, 5)])
        with running(quick(q, api.url, convert=convert)):
            all_settled(q)
        assert api.accepted == {"10": 1, "2": 1}
        (letter,) = q.dead
        assert letter.value == {"n": 0}
        assert "ZeroDivisionError" in letter.reason


def test_settings_that_cannot_work_are_refused_by_name(queue_path: str) -> None:
    with segq.Queue(queue_path) as q:
        for wrong in ({"url": "localhost"}, {"timeout": 0}, {"concurrency": 1.5}, {"rate": -1}, {"colour": 1}):
            with pytest.raises(segq.SettingsError, match=next(iter(wrong))):
                HttpSink.from_settings(q, **({"url": "http://localhost/"} | wrong))


SINK = """
import sys, threading, segq
from segq.connectors.http import HttpSink
with segq.Queue(sys.argv[1], create=False) as queue:
    HttpSink(queue, sys.argv[2], concurrency=20, backoff=0.02).run(threading.Event())
"""


def test_sinks_that_are_killed_time_and_again_lose_nothing(queue_path: str, tmp_path: Path) -> None:
    def answer(text: str, times: int) -> tuple[int, dict[str, str], str]:
        return (500 if (int(text) + times) % 5 == 0 else 200), {}, ""

    def sink() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", SINK, queue_path, api.url], env=os.environ | {"PYTHONPATH": str(ROOT)})

    count = 600
    with segq.Queue(queue_path) as q, ApiServer(answer, seconds=0.02) as api:
        q.put_many([str(n) for n in range(count)])
        for kill in range(4):
            before = len(api.accepted)
            with sink() as process:
                until(lambda before=before: len(api.accepted) > min(before + 60, count - 1), PATIENCE, f"sink {kill} works")  # type: ignore[misc]
                process.send_signal(signal.SIGKILL)
        with sink() as process:
            all_settled(q)
            process.kill()
    with segq.Queue(queue_path) as q:  # settles what the last one held
        assert set(api.accepted) == {str(n) for n in range(count)}
        repeated = sum(api.accepted.values()) - count
        assert repeated <= 4 * 20  # what was under way when a sink was killed
        assert len(q.dead) == 0
