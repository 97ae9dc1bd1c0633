"""Producers and consumers killed at random moments under load and started again; the account has to close."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from accounts import ROOT, close_account, events
from levels import stored_at_most

HANDS = Path(__file__).with_name("hands.py")
PATIENCE = 120.0


@dataclasses.dataclass(slots=True)
class Hand:
    """A process at work."""

    role: str
    process: subprocess.Popen[bytes]
    report: Path
    output: Path
    count: int

    def left(self) -> int:
        """How many of its items a producer has not put (those of which nobody knows are put again, under a new name)."""
        return self.count - sum(len(event.ids) for event in events(self.report) if event.what == "stored")


class Run:
    """Some producers and consumers on one queue, killed and replaced."""

    def __init__(
        self, place: Path, seed: int, producers: int, consumers: int, items: int, sizes: str = "mixed", **settings: Any
    ) -> None:
        self.place, self.sizes, self.settings = place, sizes, settings
        self.path, self.stop = place / "queue", place / "stop"
        self.chance = random.Random(seed)
        self.reports: list[Path] = []
        self.kills = 0
        self.hands = [self.start("produce", items) for _ in range(producers)]
        self.hands += [self.start("consume", 0) for _ in range(consumers)]

    def start(self, role: str, count: int) -> Hand:
        name = f"{role}{len(self.reports)}"
        report, output = self.place / f"{name}.report", self.place / f"{name}.out"
        seed, settings = str(self.chance.random()), json.dumps(self.settings)
        places = [str(self.path), str(report), settings]
        command = [sys.executable, str(HANDS), role, *places, seed, str(count), str(self.stop), self.sizes]
        with output.open("wb") as out:
            environment = os.environ | {"PYTHONPATH": str(ROOT), "SEGQ_FAILPOINTS": "", "PYTHONFAULTHANDLER": "1"}
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        self.reports.append(report)
        return Hand(role, process, report, output, count)

    def producing(self) -> bool:
        return any(hand.role == "produce" for hand in self.hands)

    def kill_now_and_then(self, shortest: float, longest: float) -> None:
        """Until the producers are done."""
        deadline = time.monotonic() + 5 * PATIENCE
        while self.producing():
            self.wait(self.chance.uniform(shortest, longest))
            assert time.monotonic() < deadline, f"the producers are not done\n{self.said()}"
            working = [hand for hand in self.hands if hand.report.exists() and hand.report.stat().st_size]
            everybody = self.chance.random() < 0.08
            for hand in working if everybody else self.chance.sample(working, min(1, len(working))):
                hand.process.send_signal(signal.SIGKILL)
            self.replace_the_dead()

    def wait(self, seconds: float) -> None:
        """For that long, or until a process has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and all(hand.process.poll() is None for hand in self.hands):
            time.sleep(0.002)
        self.replace_the_dead(only_ended=True)

    def replace_the_dead(self, *, only_ended: bool = False) -> None:
        for hand in list(self.hands):
            code = hand.process.poll() if only_ended else self._killed(hand)
            if code is None:
                continue
            self.hands.remove(hand)
            assert code in (0, -signal.SIGKILL), (
                f"{hand.report.stem} ended with {code}\n{hand.output.read_text()}\n{self.said()}"
            )
            if code:
                self.kills += 1
                if hand.role == "consume" or hand.left() > 0:
                    self.hands.append(self.start(hand.role, hand.left() if hand.role == "produce" else 0))

    @staticmethod
    def _killed(hand: Hand) -> int | None:
        """How it ended; waits for one that was sent SIGKILL a moment ago."""
        try:
            return hand.process.wait(0.02)
        except subprocess.TimeoutExpired:
            return None

    def finish(self) -> None:
        """Lets the consumers take the rest and end."""
        self.stop.touch()
        for hand in self.hands:
            code = hand.process.wait(PATIENCE)
            assert code in (0, -signal.SIGKILL), f"{hand.report.stem} ended with {code}\n{hand.output.read_text()}"

    def end(self) -> None:
        for hand in self.hands:
            if hand.process.poll() is None:
                hand.process.kill()
                hand.process.wait()

    def said(self) -> str:
        return "\n".join(
            f"--- {out.stem}: {out.read_text()[-500:]}" for out in sorted(self.place.glob("*.out")) if out.stat().st_size
        )


def stress(place: Path, seed: int, producers: int, consumers: int, items: int, pause: float, **settings: Any) -> None:
    print(f"seed {seed}: {producers} producers of {items} items, {consumers} consumers, {settings}")
    run = Run(place, seed, producers, consumers, items, **settings)
    try:
        run.kill_now_and_then(0.01, pause)
        run.finish()
        ledger = close_account(run.path, run.reports)
    except BaseException as error:
        error.add_note(f"seed {seed}, {run.kills} kills\n{run.said()}")
        raise
    finally:
        run.end()
    most, counts = stored_at_most(run.reports)
    print(f"{run.kills} kills, {len(ledger.stored())} items stored, {len(ledger.deliveries)} deliveries, {dict(counts)}")
    assert run.kills, "nobody was killed"
    capacity = settings.get("capacity")
    assert capacity is None or most <= capacity, f"{most} items were stored at one moment, capacity {capacity}"


def seed_from(offset: int) -> int:
    """A new one each time; SEGQ_SEED repeats a run (its timing apart)."""
    return int(os.environ.get("SEGQ_SEED", time.time_ns() // 1000 % 1_000_000_000)) + offset


def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    stress(tmp_path, seed_from(0), 3, 3, 12_000, 0.4, segment_items=1000)


def test_random_kills_never_let_the_queue_hold_more_than_its_capacity(tmp_path: Path) -> None:
    stress(tmp_path, seed_from(1), 3, 2, 4_000, 0.4, segment_items=200, capacity=64)


@pytest.mark.parametrize(
    ("items", "settings"),
    [(600, {"capacity": 12}), *(pytest.param(6000, each, marks=pytest.mark.torture) for each in ({}, {"capacity": 30}))],
    ids=str,
)
def test_random_kills_while_large_items_are_written_over_those_that_are_done_lose_nothing(
    tmp_path: Path, items: int, settings: dict[str, Any]
) -> None:
    stress(tmp_path, seed_from(2), 2, 3, items, 0.5, sizes="large", **settings)


ROUNDS = int(os.environ.get("SEGQ_ROUNDS", "1"))
LONG = [
    {"segment_items": 1000},
    {},
    {"segment_items": 50},
    {"segment_items": 300, "capacity": 40},
    {"segment_items": 300, "capacity": 2000, "max_bytes": 3_000_000},
    {"segment_items": 200, "lease": 120.0},
    {"segment_items": 200, "durability": "power"},
    {"segment_items": 100, "prefetch": 1},
]


@pytest.mark.torture
@pytest.mark.parametrize("settings", LONG, ids=lambda settings: "-".join(settings) or "plain")
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_random_kills_for_minutes_lose_nothing(tmp_path: Path, settings: dict[str, Any], round_: int) -> None:
    slow = "durability" in settings or settings.get("capacity", 1000) < 1000 or settings.get("segment_items", 1000) < 100
    stress(tmp_path, seed_from(round_), 4, 4, 5_000 if slow else 40_000, 0.8, **settings)
