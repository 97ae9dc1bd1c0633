"""NATS servers that die, come back, or cannot be reached any more, and clients that are killed: the account closes each time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accounts import ROOT, until
from nats_load import Load
from nats_server import Cluster, Server, binary

import segq

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(binary() is None, reason="there is no nats-server on this machine (.ci/nats-server installs one)"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("nats", reason="needs nats-py: pip install 'segq[nats]'")
    with Cluster() as made:
        yield made


@pytest.fixture
def address(cluster: Cluster) -> str:
    return f"{cluster.url}/{uuid.uuid4().hex[:12]}"


def leader_of(address: str) -> str:
    """Which server leads the stream, asked of the server itself."""
    import nats

    servers, _, stream = address.rpartition("/")

    async def ask() -> str:
        client = await nats.connect([f"nats://{host}" for host in servers.removeprefix("nats://").split(",")])
        answer = json.loads((await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=5)).data)
        await client.close()
        return str(answer["cluster"]["leader"])

    return asyncio.run(ask())


REPLICATED: dict[str, Any] = {"replicas": 3, "grace": 3.0, "connect_timeout": 20.0}


def test_the_leader_is_killed_and_comes_back(cluster: Cluster, address: str) -> None:
    load = Load(address, **REPLICATED)
    load.goes_on()
    leader = cluster.named(leader_of(address))
    leader.kill()
    load.goes_on()
    leader.start().wait()
    load.goes_on()
    load.finish()


def test_all_servers_are_killed_and_come_back(cluster: Cluster, address: str) -> None:
    load = Load(address, **REPLICATED)
    load.goes_on()
    for each in cluster.servers:
        each.kill()
    for each in cluster.servers:
        each.start()
    load.goes_on(60)
    load.finish()


class Proxy:
    """Forwards a port until it is told to hold everything back, without closing anything: a partition."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self._flows.wait()
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def hold(self) -> None:
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self.flow()
        self._listener.close()
        for each in self._sockets:
            each.close()


def test_a_client_is_cut_off_and_finds_another_server(cluster: Cluster, address: str) -> None:
    proxy = Proxy(cluster.servers[0].port)
    try:
        stream = address.rpartition("/")[2]
        load = Load(f"nats://127.0.0.1:{proxy.port}/{stream}", **REPLICATED)
        load.goes_on()
        proxy.hold()
        load.goes_on(60)  # by the servers that it was told of when it connected
        proxy.flow()
        load.goes_on()
        load.finish()
    finally:
        proxy.close()


def test_a_client_is_cut_off_from_the_only_server_for_a_while(cluster: Cluster) -> None:  # after it, for its pace
    with Server() as server:
        proxy = Proxy(server.port)
        try:
            load = Load(f"nats://127.0.0.1:{proxy.port}/only", grace=3.0)
            load.goes_on()
            proxy.hold()
            time.sleep(5)  # longer than a message is kept for somebody who is silent
            proxy.flow()
            load.goes_on(60)
            load.finish()
        finally:
            proxy.close()


def test_the_capacity_holds_in_a_cluster_that_loses_its_leader(cluster: Cluster, address: str) -> None:
    load = Load(address, capacity=40, batch=7, **REPLICATED)
    most = 0
    with segq.connect(address) as q:

        def look() -> bool:
            nonlocal most
            with contextlib.suppress(segq.UnreachableError):
                most = max(most, q.stats().items)
            return len(load.confirmed) > 400

        until(look, 60, "400 items put")
        leader = cluster.named(leader_of(address))
        leader.kill()
        load.goes_on()
        leader.start().wait()
        until(look, 60, "400 items put")
    load.finish()
    assert most <= 40


def test_room_that_an_ack_made_is_room_for_the_next_put(address: str) -> None:
    with segq.connect(address, capacity=2, **REPLICATED) as q:
        q.put_many([0, 1])
        for n in range(200):
            assert q.get(timeout=30) == n
            q.put_nowait(n + 2)


CLIENT = """
import sys, segq, os
role, address, number = sys.argv[1:]
q = segq.connect(address)
count = 0
def say(*words): os.write(1, (" ".join(words) + "\\n").encode())
while role == "put":
    ids = [f"{number}-{count + i}" for i in range(10)]
    count += 10
    say("begun", *ids)
    q.put_many(ids)
    say("stored", *ids)
while role == "get":
    messages = q.receive_many(10, timeout=60)
    say("received", *(f"{m.value}#{m.id}" for m in messages))
    for m in messages:
        m.ack()
        say("acked", m.value)
"""


def test_clients_are_killed_at_work(tmp_path: Path) -> None:
    pytest.importorskip("nats", reason="needs nats-py: pip install 'segq[nats]'")
    with Server() as server:
        address = f"{server.url}/killed"
        segq.connect(address, grace=1.0).close()
        reports: list[Path] = []

        def start(role: str) -> subprocess.Popen[bytes]:
            report = tmp_path / f"{len(reports)}"
            reports.append(report)
            with report.open("wb") as out:
                return subprocess.Popen([sys.executable, "-c", CLIENT, role, address, str(len(reports))], stdout=out, cwd=ROOT)

        roles = ["put", "get", "put", "get"]
        running = [start(role) for role in roles]
        try:
            for victim in (0, 1, 2, 3, 1, 0):
                before = sum(each.stat().st_size for each in reports)
                until(lambda b=before: sum(each.stat().st_size for each in reports) > b + 20_000, 30, "work goes on")
                os.kill(running[victim].pid, signal.SIGKILL)
                running[victim].wait()
                running[victim] = start(roles[victim])
        finally:
            for each in running:
                each.kill()
                each.wait()
        begun, stored, delivered, acked = set(), set(), {}, set()
        for report in reports:
            for line in report.read_text().split("\n")[:-1]:
                what, *words = line.split()
                if what == "received":
                    for word in words:
                        value, _, identity = word.partition("#")
                        delivered.setdefault(value, set()).add(identity)
                else:
                    {"begun": begun, "stored": stored, "acked": acked}[what].update(words)
        with segq.connect(address) as q:
            deadline = time.monotonic() + 30
            while q.stats().items:
                assert time.monotonic() < deadline
                with contextlib.suppress(segq.Empty):
                    for message in q.receive_many(500, timeout=1):
                        assert message.value not in acked, "acknowledged, and delivered again"
                        delivered.setdefault(message.value, set()).add(message.id)
                        message.ack()
        assert stored <= delivered.keys() <= begun
        assert all(len(ids) == 1 for ids in delivered.values())
