"""What a dead process held is with somebody else within two seconds (about one is promised; see guarantee G6)."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from accounts import until
from scene import PATIENCE, Actor, Scene

import segq
from segq._core.format.format import IndexWord

SECONDS = 2.0


def seconds_until_blocked_receive_returns(queue: segq.Queue, victim: Actor) -> tuple[float, segq.Message]:
    """Kills `victim` while a thread of this process is blocked in `receive`."""
    found: list[tuple[float, segq.Message]] = []

    def wait() -> None:
        message = queue.receive(timeout=PATIENCE)
        found.append((time.monotonic(), message))

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert queue._parts is not None
    words = queue._parts.index.words
    until(lambda: words[IndexWord.ITEMS_SLEEPERS], PATIENCE, "the consumer is blocked")
    killed = time.monotonic()
    victim.kill()
    waiter.join(PATIENCE)
    assert found, f"nothing came within {PATIENCE} s\n{victim.said()}"
    return found[0][0] - killed, found[0][1]


def test_a_message_held_by_a_killed_consumer_comes_again_to_a_blocked_one(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with scene.open() as queue:
        scene.fill(queue, 3)
        victim = scene.start("grasps")
        victim.until_ready()
        seconds, message = seconds_until_blocked_receive_returns(queue, victim)
        assert message.deliveries == 2
        assert seconds < SECONDS
        message.ack()


def test_a_message_of_a_sealed_segment_comes_again_as_quickly(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with scene.open() as queue:
        scene.fill(queue, 3)
    victim = scene.start("grasps")
    victim.until_ready()
    with scene.open() as queue:
        seconds, message = seconds_until_blocked_receive_returns(queue, victim)
        assert message.deliveries == 2
        assert seconds < SECONDS
        message.ack()


def test_items_claimed_ahead_by_a_killed_consumer_come_to_a_blocked_one_as_first_deliveries(tmp_path: Path) -> None:
    """All that the dead one had claimed and not handed out comes as if nobody had had it."""
    scene = Scene(tmp_path, prefetch=10)
    with scene.open() as queue:
        scene.fill(queue, 9)
        victim = scene.start("gets", faults="get.taken=kill")
        victim.must_die()
        began = time.monotonic()
        messages = [queue.receive(timeout=PATIENCE) for _ in range(9)]
        assert time.monotonic() - began < SECONDS
        assert [message.deliveries for message in messages] == [1] * 9
        for message in messages:
            message.ack()
