"""Bridges to and from NATS, while the server and the bridge itself are killed."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import ROOT, until
from nats_server import Server, binary

import segq

pytestmark = [
    pytest.mark.skipif(binary() is None, reason="there is no nats-server on this machine (.ci/nats-server installs one)"),
]

FORWARD = "import sys, segq; segq.Bridge(sys.argv[1], sys.argv[2], batch=50).run()"


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("nats", reason="needs nats-py: pip install 'segq[nats]'")
    with Server() as made:
        yield made


@pytest.mark.external
def test_a_spool_takes_items_while_the_far_side_is_down(tmp_path: Path, server: Server) -> None:
    far = f"{server.url}/far?patience=1&connect_timeout=1"
    with segq.Queue(tmp_path / "spool") as spool, segq.Bridge(tmp_path / "spool", far, batch=10) as bridge:
        server.kill()
        thread = threading.Thread(target=bridge.run)
        thread.start()
        spool.put_many(range(100))
        until(lambda: bridge.stats().down_since is not None, 30, "the bridge notices")
        assert "NATS" in (bridge.stats().trouble or "")
        assert bridge.stats().forwarded == 0
        server.start().wait()
        until(lambda: bridge.stats().forwarded == 100, 60, "all is forwarded")
        until(lambda: spool.stats().items == 0, 20, "and acknowledged")
        bridge.stop()
        thread.join(30)
        with segq.connect(f"{server.url}/far") as q:
            assert q.get_many(500, timeout=10) == list(range(100))


@pytest.mark.external
def test_ids_travel_from_stream_to_stream(server: Server) -> None:
    with segq.connect(f"{server.url}/near") as near:
        near.put_many(["a", "b"])
        with segq.Bridge(f"{server.url}/near", f"{server.url}/far") as bridge:
            bridge.run(until_empty=True)
        with segq.connect(f"{server.url}/far") as far:
            message = far.receive(timeout=10)
            identity = message.identity  # type: ignore[attr-defined]
            far.put_many_as([identity, "other"], ["a", "c"])  # type: ignore[attr-defined]
            message.ack()
            assert far.get_many(9, timeout=10) == ["b", "c"]


@pytest.mark.external
def test_what_the_server_cannot_take_is_rejected_and_the_rest_goes_on(tmp_path: Path, server: Server) -> None:
    with segq.Queue(tmp_path / "spool") as spool, segq.Bridge(tmp_path / "spool", f"{server.url}/far") as bridge:
        if not hasattr(segq.Message, "reject"):
            pytest.skip("local messages cannot be rejected yet")
        spool.put_many(["before", "x" * 2_000_000, "after"])
        bridge.run(until_empty=True)
        assert bridge.stats().rejected == 1
        with segq.connect(f"{server.url}/far") as q:
            assert q.get_many(9, timeout=10) == ["before", "after"]


@pytest.mark.external
def test_the_command_line_takes_addresses(tmp_path: Path, server: Server) -> None:
    address = f"{server.url}/lines"

    def run(*arguments: str, stdin: str = "") -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "segq", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended.stdout

    run("put", address, stdin="".join(f"{n}\n" for n in range(2000)))
    assert "2,000" in run("stats", address)
    assert run("peek", address, "-n", "2") == "0\n1\n"
    assert run("get", address, "--max", "1990").splitlines() == [str(n) for n in range(1990)]
    assert sorted(run("work", address, "--procs", "1", "--exit-when-empty", "--quiet", "--", "cat").split()) == [
        str(n) for n in range(1990, 2000)
    ]
    run("put", address + "-topic", "--topic", "a", "b")
    assert run("get", address + "-topic", "--label", "x") == "a\nb\n"
    assert "x" in run("labels", address + "-topic")
    run("put", address, "again")
    assert run("purge", address, "--yes") == "1 items thrown away\n"
    run("rm", address, "--yes")
    with pytest.raises(segq.NotAQueueError):
        segq.kind_of(address)
    spool = str(tmp_path / "spool")
    run("put", spool, "a", "b")
    run("bridge", spool, address, "--exit-when-empty")
    assert run("get", address) == "a\nb\n"


class Shop:
    """A bridge in a process of its own between a queue that is filled and one that is emptied, while both ends are killed."""

    def __init__(self, server: Server, source: str, target: str) -> None:
        self.server, self.source, self.target = server, source, target
        self._bridge: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self.begun = 0
        self.confirmed: set[int] = set()
        self.got: Counter[int] = Counter()
        self.stored: set[tuple[int, str]] = set()
        self.wrong: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._fill, self._empty)]

    def start_bridge(self) -> None:
        self._bridge = subprocess.Popen([sys.executable, "-c", FORWARD, self.source, self.target], cwd=ROOT)

    def kill_bridge(self) -> None:
        assert self._bridge is not None
        self._bridge.kill()
        self._bridge.wait()

    def _guarded(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            self.wrong.append(error)

    def _fill(self) -> None:
        with segq.connect(self.source) as q:
            while not self._stop.is_set():
                items = range(self.begun, self.begun + 20)
                self.begun += 20
                with contextlib.suppress(segq.UnreachableError):
                    q.put_many(items)
                    self.confirmed.update(items)
                time.sleep(0.01)

    def _empty(self) -> None:
        with segq.connect(self.target) as q:
            while not self._stop.is_set() or self.confirmed - self.got.keys():
                with contextlib.suppress(segq.Empty, segq.UnreachableError, segq.ReceiptError):
                    messages = q.receive_many(100, timeout=0.5)
                    self.got.update(message.value for message in messages)
                    self.stored.update((message.value, message.id) for message in messages)
                    for message in messages:
                        message.ack()

    def run(self, seconds: float) -> int:
        """Returns how often the bridge was killed."""
        dice = random.Random(8)
        kills = 0
        segq.connect(self.source).close()
        segq.connect(self.target).close()
        self.start_bridge()
        for thread in self._threads:
            thread.start()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                before = len(self.got)
                until(lambda before=before: len(self.got) > before + 100 or self.wrong, 60, "items arrive")
                assert not self.wrong, self.wrong
                time.sleep(dice.random() / 2)
                if dice.random() < 0.6:
                    self.kill_bridge()
                    kills += 1
                    self.start_bridge()
                else:
                    self.server.kill(dice.choice([signal.SIGKILL, signal.SIGTERM]))
                    time.sleep(dice.random())
                    self.server.start().wait()
            self._stop.set()
            until(lambda: not self.confirmed - self.got.keys() or self.wrong, 90, "everything confirmed arrives")
        finally:
            self._stop.set()
            self.kill_bridge()
            self.server.start() if not self.server.is_running else None
            for thread in self._threads:
                thread.join(60)
        assert not self.wrong, self.wrong
        assert not any(thread.is_alive() for thread in self._threads)
        assert set(self.got) <= set(range(self.begun)), "invented"
        return kills


@pytest.mark.parametrize("direction", ["to the server", "from the server"])
@pytest.mark.parametrize(
    "seconds", [pytest.param(8, marks=pytest.mark.external), pytest.param(30, marks=pytest.mark.torture, id="long")]
)
def test_both_ends_are_killed_and_the_account_closes(tmp_path: Path, server: Server, direction: str, seconds: float) -> None:
    local, remote = str(tmp_path / "local"), f"{server.url}/remote?grace=2"
    shop = Shop(server, *((local, remote) if direction == "to the server" else (remote, local)))
    kills = shop.run(seconds)
    again, twice = sum(shop.got.values()) - len(shop.got), len(shop.stored) - len(shop.got)
    print(f"{direction}: {len(shop.got)} items, {kills} kills of the bridge, {again} delivered again, {twice} stored twice")
    assert twice <= (0 if direction == "to the server" else 50 * kills)  # a kill between the write and the journal; hardly ever
