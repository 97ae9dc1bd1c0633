"""Bridges between local queues and topics; those that reach other engines are in tests/conformance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from accounts import ROOT, check_clean, until

import segq
from segq._core.system.journal import Journal

FORWARD = "import sys, segq; segq.Bridge(sys.argv[1], sys.argv[2], batch=20).run()"


def test_everything_is_forwarded_in_order_and_acknowledged(tmp_path: Path) -> None:
    with segq.Queue(tmp_path / "a") as a, segq.Bridge(tmp_path / "a", f"segq://{tmp_path}/b", batch=7) as bridge:
        a.put_many(range(50))
        assert bridge.run(until_empty=True) == 50
        assert a.stats().items == 0
        assert bridge.stats().forwarded == 50
        assert bridge.stats().lag == 0
        with segq.Queue(tmp_path / "b", create=False) as b:
            assert b.get_many(100) == list(range(50))


def test_from_a_label_to_a_topic(tmp_path: Path) -> None:
    with segq.Topic(tmp_path / "a") as a:
        a.put_many([1, 2, 3])
        with segq.Bridge(tmp_path / "a", tmp_path / "b", label="far", start="newest", topic=True) as bridge:
            assert bridge.run(until_empty=True) == 1
    with segq.Subscription(tmp_path / "b", "x") as x:
        assert x.get_many(9) == [3]


def test_a_full_target_is_waited_for_and_the_bridge_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    with segq.Queue(tmp_path / "a") as a, segq.Queue(tmp_path / "b", capacity=8) as b:
        a.put_many(range(20))
        with segq.Bridge(tmp_path / "a", tmp_path / "b") as bridge:
            thread = threading.Thread(target=bridge.run)
            thread.start()
            until(lambda: b.qsize() == 8, 20, "the target is full")
            assert b.get_many(3) == [0, 1, 2]
            until(lambda: b.qsize() >= 7, 20, "it goes on")
            bridge.stop()
            thread.join(20)
            assert not thread.is_alive()
        left = b.get_many(50)
        assert left == list(range(3, 3 + len(left)))


def test_leases_are_extended_while_the_target_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segq.Queue(tmp_path / "a", lease=0.6) as a:
        a.put(1)
        bridge = segq.Bridge(tmp_path / "a", tmp_path / "b")
        away = threading.Event()
        away.set()
        put_many = segq.Queue.put_many

        def sometimes(self: segq.Queue, *arguments: Any, **options: Any) -> None:
            if away.is_set():
                raise segq.StorageError("on purpose")
            put_many(self, *arguments, **options)

        monkeypatch.setattr(segq.Queue, "put_many", sometimes)
        thread = threading.Thread(target=bridge.run)
        thread.start()
        until(lambda: bridge.stats().in_hand == 1, 20, "it is received")
        with pytest.raises(segq.Empty):
            a.receive(timeout=0.9)
        stats = bridge.stats()
        assert (stats.trouble, stats.lag) == ("on purpose", 1)
        assert stats.down_since is not None
        away.clear()
        until(lambda: bridge.stats().forwarded == 1, 60, "the target is back")
        bridge.stop()
        thread.join(20)
        bridge.close()
        assert a.stats().items == 0


def test_what_was_stored_and_not_acknowledged_is_not_stored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segq.Queue(tmp_path / "a") as a:
        a.put_many(range(5))

        def die(*_arguments: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, segq.Bridge(tmp_path / "a", tmp_path / "b") as bridge:
            patched.setattr(segq.Bridge, "_acknowledge", staticmethod(die))
            with pytest.raises(KeyboardInterrupt):
                bridge.run()
        a.put(5)
        with segq.Bridge(tmp_path / "a", tmp_path / "b") as bridge:
            until(lambda: bridge.run(until_empty=True) or a.stats().items == 0, 20, "all is forwarded")
            assert bridge.stats().duplicates == 5
    with segq.Queue(tmp_path / "b") as b:
        assert b.get_many(50) == list(range(6))


def test_a_bridge_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    with segq.Queue(tmp_path / "a") as a, segq.Queue(tmp_path / "b") as b:
        put = 0
        for _ in range(2):
            process = subprocess.Popen([sys.executable, "-c", FORWARD, tmp_path / "a", tmp_path / "b"], cwd=ROOT)
            before = b.qsize()
            a.put_many(range(put, put + 400))
            put += 400
            until(lambda before=before: b.qsize() >= before + 100, 30, "it forwards")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with segq.Bridge(tmp_path / "a", tmp_path / "b") as bridge:
            until(lambda: bridge.run(until_empty=True) * 0 == 0 and a.stats().items == 0, 30, "all is forwarded")
        got = b.get_many(put + 1000)
        assert set(got) == set(range(put))
        assert len(got) - put <= 20  # a batch, if a kill came between the queue's write and the journal's
    check_clean(tmp_path / "a")
    check_clean(tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("x", "x"), segq.SettingsError),
        (("missing", "x"), segq.NotAQueueError),
        (("topic", "x"), segq.SettingsError),
        (("mars://x/y", "x"), segq.SettingsError),
    ],
)
def test_what_no_waiting_mends_is_raised(tmp_path: Path, arguments: tuple[str, str], error: type[Exception]) -> None:
    segq.Topic(tmp_path / "topic").close()
    source, target = (each if "://" in each else str(tmp_path / each) for each in arguments)
    with pytest.raises(error), segq.Bridge(source, target) as bridge:
        bridge.run(until_empty=True)


def test_a_journal_survives_a_torn_write(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    journal = Journal(path)
    assert journal.ids == set()
    journal.write(["a", "b"])
    journal.write(["c"])
    journal.close()
    with open(path, "r+b") as file:
        file.seek(16)
        file.write(b"torn")
    damaged = Journal(path)
    assert damaged.ids == {"a", "b"}
    damaged.write(["d"])
    damaged.close()
    again = Journal(path)
    assert again.ids == {"d"}
    again.close()


def test_the_command_forwards_and_ends(tmp_path: Path) -> None:
    with segq.Queue(tmp_path / "a") as a:
        a.put_many(range(10))
        ended = subprocess.run(
            [sys.executable, "-m", "segq", "bridge", tmp_path / "a", tmp_path / "b", "--exit-when-empty"],
            capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        )  # fmt: skip
        assert ended.returncode == 0
        assert "10 forwarded" in ended.stderr
        assert a.stats().items == 0
    with segq.Queue(tmp_path / "b") as b:
        assert b.get_many(50) == list(range(10))
