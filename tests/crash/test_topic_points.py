"""SIGKILL at the steps that only topics have: a label that begins, goes, or is told what it missed.

For each label, items put since it began = acknowledged + missed + still to do, whatever was killed in between.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accounts import ROOT, until
from ways import TOPICS

import segq
from segq._core.format import format as fmt

BEGINS = "s = segq.Subscription(path, 'new'); s.get_many(5); s.get_many(100, timeout=0)"
GOES = "segq.Topic(path).remove_label('idle')"
ALL_GO = """
for label in ("idle", "busy"):
    segq.Topic(path).remove_label(label)
"""
FINISHES = """
for label in ("busy", "idle"):
    with segq.Subscription(path, label) as s:
        while s.lag.items: s.get_many(7)
"""
DROPS = """
t = segq.Topic(path)
for n in range(200): t.put(n)
"""
WAYS: dict[str, list[tuple[str, int]]] = {
    "label.begun": [(BEGINS, 1)],
    "label.created": [(BEGINS, 1)],
    "label.chosen": [(BEGINS, 1), (BEGINS, 2)],
    "label.ledger": [(BEGINS, 1), (BEGINS, 2)],
    "label.noted": [(ALL_GO, 1)],
    "label.removed": [(GOES, 1)],
    "gone.renamed": [(FINISHES, 1), (FINISHES, 2)],
    "gone.booked": [(FINISHES, 1), (FINISHES, 2), (FINISHES, 3)],
    "gone.all_booked": [(FINISHES, 1), (FINISHES, 2)],
    "drop.begun": [(DROPS, 1), (DROPS, 3)],
    "drop.marked": [(DROPS, 1), (DROPS, 3)],
    "drop.done": [(DROPS, 1), (DROPS, 3)],
}


def test_every_point_of_topics_has_a_way_there() -> None:
    assert set(WAYS) == TOPICS


@pytest.mark.parametrize("live", [False, True], ids=["reopened", "live"])
@pytest.mark.parametrize(("point", "code", "times"), [(point, *way) for point, ways in WAYS.items() for way in ways])
def test_a_death_there_neither_loses_nor_doubles_anything(
    tmp_path: Path, point: str, code: str, times: int, live: bool
) -> None:
    path = str(tmp_path / "topic")
    droppable: dict[str, Any] = {"capacity": 48, "on_full": "drop_oldest"} if code is DROPS else {}
    topic = segq.Topic(path, segment_items=8, **droppable)
    busy, idle = topic.subscribe("busy"), topic.subscribe("idle")
    for n in range(0, 48, 8):
        topic.put_many(range(n, n + 8))
    assert busy.get_many(11) == list(range(11))
    idle.close()
    if not live:
        busy.close()
        topic.close()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SEGQ_FAILPOINTS": f"{point}=kill:{times}"}
    script = f"import segq, sys\npath = sys.argv[1]\n{code}"
    ended = subprocess.run([sys.executable, "-c", script, path], env=environment, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    if not live:
        topic = segq.Topic(path)
        busy = topic.subscribe("busy")
    with topic, busy, topic.subscribe("idle") as idle, topic.subscribe("new") as new:
        put = sum_of(busy)
        assert put >= 48
        if code is not DROPS:
            assert put == 48
        if code not in (GOES, ALL_GO):  # there it began anew
            assert sum_of(idle) == put
        topic.put("after")
        for subscription in (busy, idle, new):
            before = sum_of(subscription)
            taken = take(subscription)
            assert "after" in taken
            assert len(taken) == len(set(map(str, taken)))
            assert sum_of(subscription) == before
            assert subscription.lag.items == 0
        if code is not DROPS:
            assert (busy.missed, idle.missed, new.missed) == (0, 0, 0)
    assert segq.check(path).ok
    assert [name for name in os.listdir(path) if fmt.parse_segment(name)] == []


def sum_of(subscription: segq.Subscription) -> int:
    """All items that there were for a label so far."""
    found = subscription.stats()
    return found.acknowledged + found.missed + found.lag


def take(subscription: segq.Subscription) -> list[Any]:
    found: list[Any] = []
    until(lambda: not subscription.lag.items or found.extend(take_some(subscription)), 20, "nothing is left")
    return found


def take_some(subscription: segq.Subscription) -> list[Any]:
    try:
        return subscription.get_many(100, block=False)
    except segq.Empty:
        return []
