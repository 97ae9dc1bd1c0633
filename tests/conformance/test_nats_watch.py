"""A queue of a NATS server, watched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import nats_server
import pytest
from accounts import until
from cli_command import PATIENCE, environment

import segq
from segq.watch import RemoteWatcher, watcher_of
from segq.watch.snapshot import MISSING, OPEN, REFUSED

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        nats_server.binary() is None, reason="there is no nats-server on this machine (.ci/nats-server installs one)"
    ),
]
pytest.importorskip("nats", reason="needs nats-py: pip install 'segq[nats]'")


@pytest.fixture
def server() -> Iterator[nats_server.Server]:
    with nats_server.Server() as server:
        yield server


def test_rates_and_backlog_are_the_servers(server: nats_server.Server) -> None:
    watcher = watcher_of(f"{server.url}/jobs?patience=5")
    assert isinstance(watcher, RemoteWatcher)
    assert watcher.look().state == MISSING
    with segq.connect(f"{server.url}/jobs", capacity=100) as q:
        q.put_many(range(10))
        seen = watcher.look()
        assert (seen.state, seen.kind, seen.items, seen.waiting, seen.capacity) == (OPEN, "queue", 10, 10, 100)
        assert [event.text for event in seen.events] == ["the queue is there"]
        message = q.receive()
        q.get_many(3)
        q.put_many(range(5))
        seen = watcher.look()
        assert (seen.items, seen.claimed) == (12, 1)
        assert (seen.totals.put, seen.totals.get, seen.totals.ack) == (5, 4, 3)
        assert seen.interval
        assert seen.rates.put == pytest.approx(5 / seen.interval)
        message.ack()
    segq.remove(f"{server.url}/jobs")
    assert watcher.look().state == MISSING
    watcher.close()


def test_labels_come_and_go(server: nats_server.Server) -> None:
    address = f"{server.url}/news"
    with segq.connect(address, "topic") as topic:
        topic.put("before anybody")
        watcher = watcher_of(address)
        assert watcher.look().kind == "topic"
        topic.subscribe("mail").close()
        seen = watcher.look()
        assert [(label.label, label.lag) for label in seen.labels] == [("mail", 1)]
        assert [event.text for event in seen.events] == ["label 'mail' began"]
        topic.remove_label("mail")
        assert [event.text for event in watcher.look().events] == ["label 'mail' is gone"]
        watcher.close()


def test_a_server_that_is_away_is_said_to_be_and_seen_again(server: nats_server.Server) -> None:
    with segq.connect(f"{server.url}/jobs") as q:
        q.put("kept")
    watcher = watcher_of(f"{server.url}/jobs?patience=0.5")
    assert watcher.look().state == OPEN
    server.kill()
    seen = watcher.look()
    assert seen.state == REFUSED
    assert seen.error
    server.start().wait()
    until(lambda: watcher.look().state == OPEN, PATIENCE, "the server is back")
    assert watcher.look().items == 1
    watcher.close()


def test_the_command_takes_an_address(server: nats_server.Server) -> None:
    with segq.connect(f"{server.url}/jobs") as q:
        q.put_many(range(7))
    command = [sys.executable, "-m", "segq", "watch", f"{server.url}/jobs", "--once", "--interval", "0.1"]
    said = subprocess.run([*command, "--json"], capture_output=True, check=True, timeout=PATIENCE, env=environment()).stdout
    assert json.loads(said)["items"] == 7
    shown = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE, env=environment(), text=True).stdout
    assert f"{server.url}/jobs" in shown
    assert "backlog" in shown
    assert "its server does not say who uses it" in shown
