"""The parent of the demo's processes: starts them, kills and replaces some if asked to, sees when all is done."""

from __future__ import annotations

import dataclasses
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

import click

import segq
from segq.cli import ending
from segq.cli.demo import hands, trails
from segq.cli.demo.corpus import Source
from segq.cli.worker import start

TICK = 0.05  # seconds between two looks at the processes and the queue
STALL = 30.0  # seconds without any progress after which the run is given up; a rescue takes about one
FAREWELL = 10.0  # seconds a process gets to end after SIGTERM


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run consists of. `directory` takes the trails, `shares` has the sources of each producer."""

    queue: str
    directory: str
    shares: Sequence[Sequence[Source]]
    workers: int
    kills: int
    seconds: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The run at a moment."""

    elapsed: float
    lines: int
    put: int
    done: int
    backlog: int
    segments: dict[str, int]
    producers: int
    workers: int
    killed: int


@dataclasses.dataclass(slots=True)
class Hand:
    """A place for a producer or a worker, and the process that is in it now."""

    kind: str
    number: int
    target: Callable[..., None]
    arguments: tuple[Any, ...]
    life: int = 0
    kills: int = 0
    process: SpawnProcess | None = None

    def start(self) -> None:
        """Puts a new process into the place."""
        self.life += 1
        queue, directory, *rest = self.arguments
        self.process = multiprocessing.get_context("spawn").Process(
            target=self.target,
            args=(queue, directory, self.number, self.life, *rest),
            name=f"{self.kind} {self.number}",
        )
        start(self.process)

    def is_running(self) -> bool:
        """Raises ClickException if the process failed by itself."""
        if self.process is None:
            return False
        code = self.process.exitcode
        if code:
            raise click.ClickException(f"{self.kind} {self.number} ended with {code}; that is not part of the demo")
        return code is None

    def kill_and_replace(self) -> None:
        """SIGKILL, at whatever instruction the process is."""
        assert self.process is not None
        self.process.kill()
        self.process.join()
        if self.process.exitcode:  # otherwise it was just done
            self.kills += 1
            self.start()

    def end(self, seconds: float) -> None:
        """Lets the process end by itself; kills it when it has not after so many seconds."""
        if self.process is None:
            return
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


class Run:
    """One run of a plan. `queue` is the parent's own handle, through which it watches."""

    def __init__(self, plan: Plan, queue: segq.Queue) -> None:
        self._plan = plan
        self._queue = queue
        self._lines = sum(source.lines for share in plan.shares for source in share)
        self._started = time.monotonic()
        deadline = None if plan.seconds is None else time.time() + plan.seconds
        common = (plan.queue, plan.directory)
        self.producers = [
            Hand("producer", number, hands.producer, (*common, share, deadline)) for number, share in enumerate(plan.shares)
        ]
        self.workers = [Hand("worker", number, hands.worker, common) for number in range(plan.workers)]
        self._everybody = [*self.producers, *self.workers]
        self._moments = sorted(random.uniform(0.02, 0.98) for _ in range(plan.kills))  # noqa: S311  # not a secret

    def __enter__(self) -> Self:
        """Starts all processes."""
        self._started = time.monotonic()
        try:
            for hand in self._everybody:
                hand.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        """Ends all processes."""
        self._end()

    def positions(self) -> list[tuple[Sequence[Source], trails.Position]]:
        """How far each producer came."""
        return [(share, trails.last_position(self._plan.directory, number)) for number, share in enumerate(self._plan.shares)]

    def watch(self) -> Iterator[Progress]:
        """Tells how it goes, many times a second, until all is done. Raises ClickException when it cannot go on."""
        moved, since = (-1, -1), time.monotonic()
        while True:
            producing = sum([hand.is_running() for hand in self.producers])
            working = sum([hand.is_running() for hand in self.workers])
            now = self._progress(producing, working)
            yield now
            if not producing and now.backlog == 0:
                return
            if (now.put, now.done) != moved:
                moved, since = (now.put, now.done), time.monotonic()
            elif time.monotonic() - since > STALL:
                raise click.ClickException(f"nothing has moved for {STALL:g} s, with {now.backlog} items in the queue")
            ending.leave_if_asked()
            self._kill_if_due(now)
            time.sleep(TICK)

    def _end(self) -> None:
        for hand in self._everybody:
            if hand.process is not None:
                hand.process.terminate()
        for hand in self._everybody:
            hand.end(FAREWELL)

    def _progress(self, producers: int, workers: int) -> Progress:
        stats = self._queue.stats()
        return Progress(
            elapsed=time.monotonic() - self._started,
            lines=self._lines,
            put=sum(position.put for _, position in self.positions()),
            done=trails.results_noted(self._plan.directory),
            backlog=stats.items,
            segments=stats.segments,
            producers=producers,
            workers=workers,
            killed=sum(hand.kills for hand in self._everybody),
        )

    def _kill_if_due(self, now: Progress) -> None:
        """The moments are spread over the run's progress, so a fast machine sees as many kills as a slow one."""
        part = now.done / max(1, now.lines)
        if self._plan.seconds is not None:
            part = max(part, now.elapsed / self._plan.seconds)
        if not self._moments or part < self._moments[0]:
            return
        self._moments.pop(0)
        kinds = [[hand for hand in kind if hand.is_running()] for kind in (self.producers, self.workers)]
        victims = random.choice([kind for kind in kinds if kind] or [[]])  # noqa: S311
        if victims:
            random.choice(victims).kill_and_replace()  # noqa: S311
