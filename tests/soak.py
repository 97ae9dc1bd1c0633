"""Everything at once for as long as you like: `python -m tests.soak --minutes N [--seed S] [--processes 8..32] [--rounds R]`.

In rounds of about half a minute: a queue or a topic with settings drawn by lot (capacity or not, bytes, lease, time to live, small
and large segments, durability), producers and consumers that put and take in all the ways there are, small items and large ones,
killed at random, one by one or all together, and replaced. Each round ends with everything drained and held against what its
processes reported; its settings and who is killed when follow from its seed (the timing does not). Prints the figures, and ends
with status 1 at the first account that does not close, with the seed to repeat the round and the directory as it was left.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "stress"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "crash"))

from accounts import Ledger, close_account
from levels import stored_at_most
from test_random_kills import PATIENCE, Run
from test_topics_under_fire import THREE, TopicRun

ROUND_SECONDS = 25.0  # of putting; what comes after (draining, closing the account) takes about as long again when busy
MOST_ITEMS = 40_000  # for each producer of a round, which bounds the time that closing an account takes


@dataclasses.dataclass(slots=True)
class Figures:
    """What happened, added up."""

    rounds: int = 0
    items: int = 0
    deliveries: int = 0
    redeliveries: int = 0
    kills: int = 0
    lost: int = 0
    invented: int = 0

    def add(self, account: Ledger) -> None:
        """An account of a queue, or of one label of a topic."""
        possible = {identity for writing in account.writings if writing.end != "failed" for identity in writing.ids}
        seen = {delivery.identity for delivery in account.deliveries}
        self.deliveries += len(account.deliveries)
        self.redeliveries += len(account.deliveries) - len(seen)
        self.lost += max(0, len(account.missing()) - account.taken_unseen)
        self.invented += len(seen - possible)

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds: {self.items} items, {self.deliveries} deliveries, {self.kills} kills,"
            f" {self.redeliveries} redeliveries, lost {self.lost}, invented {self.invented}"
        )


class ForATime:
    """A run whose producers go on for a time, and are all killed then."""

    deadline = float("inf")
    hands: list[Any]
    kills: int

    def producing(self) -> bool:
        if time.monotonic() < self.deadline:
            return any(hand.role == "produce" for hand in self.hands)
        for hand in [hand for hand in self.hands if hand.role == "produce"]:
            hand.process.kill()
            self.kills += hand.process.wait(PATIENCE) != 0
            self.hands.remove(hand)
        return False


class QueueForATime(ForATime, Run):
    """Of a queue."""


class TopicForATime(ForATime, TopicRun):
    """Of a topic."""


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """What follows from a seed."""

    seed: int
    kind: str
    producers: int
    consumers: int  # of a topic: for each label
    pause: float  # seconds between kills, at most
    settings: dict[str, Any]

    @classmethod
    def drawn(cls, seed: int, fewest: int, most: int) -> Round:
        chance = random.Random(seed)
        processes = chance.randint(fewest, most)
        kind = chance.choice(["queue", "queue", "topic"])
        settings: dict[str, Any] = {}
        if chance.random() < 0.8:
            settings["segment_items"] = chance.choice([50, 200, 1000, 5000])
        if chance.random() < 0.4:
            settings["capacity"] = chance.choice([200, 1000, 20_000])
        if chance.random() < 0.2:
            settings["max_bytes"] = chance.choice([5_000_000, 50_000_000])
        if chance.random() < 0.3:
            settings["lease"] = 600.0  # no lease runs out: what comes again has to have a death behind it
        if chance.random() < 0.15:
            settings["durability"] = "power"
        if kind == "topic":
            if chance.random() < 0.3:
                settings["ttl"] = 3600.0
            consumers = max(1, processes // 5)
            return cls(seed, kind, max(1, processes - 3 * consumers), consumers, chance.choice([0.3, 1.0]), settings)
        if chance.random() < 0.2:
            settings["prefetch"] = 1
        consumers = max(1, min(processes - 1, round(processes * chance.uniform(0.3, 0.7))))
        return cls(seed, kind, processes - consumers, consumers, chance.choice([0.1, 0.3, 1.0]), settings)

    def __str__(self) -> str:
        each = " for each label" if self.kind == "topic" else ""
        return f"seed {self.seed}: {self.kind}, {self.producers} producers, {self.consumers} consumers{each}, {self.settings}"

    def play(self, place: Path, seconds: float, figures: Figures) -> None:
        """Raises AssertionError, with what the processes said, if the account does not close."""
        run: Any = (TopicForATime if self.kind == "topic" else QueueForATime)(
            place, self.seed, self.producers, self.consumers, MOST_ITEMS, **self.settings
        )
        run.deadline = time.monotonic() + seconds
        accounts: list[Ledger] = []
        try:
            run.kill_now_and_then(0.01, self.pause)
            run.finish()
            if self.kind == "topic":
                run.scene.close_accounts()
                accounts = [run.scene.account(label) for label in THREE]
                levels = [stored_at_most([*run.scene.reports, *existing(run.scene.taken[label])])[0] for label in THREE]
            else:
                accounts = [close_account(run.path, run.reports)]
                levels = [stored_at_most(run.reports)[0]]
            capacity = self.settings.get("capacity")
            assert capacity is None or max(levels) <= capacity, f"{max(levels)} items were stored at once"
        except BaseException as error:
            error.add_note(run.said())
            raise
        finally:
            run.end()
            figures.kills += run.kills
            figures.rounds += 1
            reports = run.scene.reports if self.kind == "topic" else run.reports
            figures.items += len(Ledger(existing(reports)).stored())
            for account in accounts or [Ledger(existing(reports))] * (self.kind == "queue"):
                figures.add(account)


def existing(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.exists()]


def soak(minutes: float, seed: int, processes: tuple[int, int], rounds: int) -> int:
    """Returns the exit status."""
    print(f"soak: {minutes:g} minutes, {processes[0]} to {processes[1]} processes, seed {seed}", flush=True)
    figures, end = Figures(), time.monotonic() + 60 * minutes
    base = Path(tempfile.mkdtemp(prefix="segq-soak-"))
    while time.monotonic() < end and (not rounds or figures.rounds < rounds):
        drawn = Round.drawn(seed + figures.rounds, *processes)
        place = base / str(drawn.seed)
        place.mkdir()
        begun, before = time.monotonic(), dataclasses.replace(figures)
        try:
            drawn.play(place, min(ROUND_SECONDS, max(5.0, end - begun)), figures)
        except Exception:
            traceback.print_exc()
            print(f"FAILED {drawn}\n{figures}\nleft as it was in {place}; again, from the same draw:", flush=True)
            span = f"{processes[0]}..{processes[1]}"
            print(f"  python -m tests.soak --seed {drawn.seed} --rounds 1 --processes {span}", flush=True)
            return 1
        done = [figures.items - before.items, figures.kills - before.kills, figures.redeliveries - before.redeliveries]
        print(
            f"{drawn}: {done[0]} items, {done[1]} kills, {done[2]} redeliveries, {time.monotonic() - begun:.0f} s", flush=True
        )
        shutil.rmtree(place)
    base.rmdir()
    print(figures, flush=True)
    return 0


def span(text: str) -> tuple[int, int]:
    """`8..32`, or one number."""
    fewest, _, most = text.partition("..")
    chosen = int(fewest), int(most or fewest)
    if not 2 <= chosen[0] <= chosen[1]:
        raise argparse.ArgumentTypeError("at least two processes: 8..32, or 16")
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Everything at once, killed at random.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1000 % 1_000_000_000)
    parser.add_argument("--processes", type=span, default=(8, 32), help="how many at a time: a number, or 8..32")
    parser.add_argument("--rounds", type=int, default=0, help="at most so many")
    given = parser.parse_args()
    return soak(given.minutes, given.seed, given.processes, given.rounds)


if __name__ == "__main__":
    sys.exit(main())
