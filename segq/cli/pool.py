"""The parent of the workers: starts them, replaces those that die, ends them gently."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

import click

from segq.cli import exits, worker

TICK = 0.2  # seconds between two looks at the signals
FIRST_DELAY = 0.1  # seconds before a worker that died is replaced; doubled each time it dies soon
LONGEST_DELAY = 30.0
STEADY = 10.0  # seconds a worker has to live for its earlier deaths to be forgotten


@dataclasses.dataclass(slots=True)
class Place:
    """One of the pool's N places, and the worker in it."""

    number: int
    process: SpawnProcess | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0
    """When the next worker may start here."""
    is_finished: bool = False

    def seconds_until_next(self) -> float:
        """Counts a death and says how long the place stays empty."""
        self.deaths = 1 if time.monotonic() - self.started > STEADY else self.deaths + 1
        delay: float = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.deaths - 1, 16))
        self.due = time.monotonic() + delay
        return delay


class Pool:
    """N places, each with a worker of the job in it until the work is over or a signal ends it."""

    def __init__(self, job: Any, procs: int, *, main: Callable[[Any], None] = worker.main, quiet: bool = False) -> None:
        self._job, self._main = job, main
        self._places = [Place(number + 1) for number in range(procs)]
        self._quiet = quiet
        self._signals: list[int] = []
        self._obeyed = 0
        self._ending = False
        self._failed = False
        # A worker starts from nothing, so that whatever the task imports cannot depend on what the parent did.
        self._context = multiprocessing.get_context("spawn")

    def run(self) -> int:
        """Returns the exit code when all workers have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        while not all(place.is_finished for place in self._places):
            self._obey()
            for place in self._places:
                self._tend(place)
            wait([place.process.sentinel for place in self._places if place.process is not None], timeout=TICK)
        if signal.SIGINT in self._signals:
            return exits.INTERRUPTED
        return exits.FAILED if self._failed else exits.OK

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _obey(self) -> None:
        if len(self._signals) == self._obeyed:
            return
        self._obeyed = len(self._signals)
        if self._obeyed == 1:
            self._end(SpawnProcess.terminate)
            self._say("ending: every worker finishes the item in hand")
        else:
            self._end(SpawnProcess.kill)
            self._say("the workers were killed: what they held goes back to the queue")

    def _end(self, how: Callable[[SpawnProcess], None]) -> None:
        self._ending = True
        for place in self._places:
            if place.process is None:
                place.is_finished = True
            else:
                how(place.process)

    def _tend(self, place: Place) -> None:
        """Whatever the place needs now: a first worker, another one, or nothing."""
        if place.process is not None and place.process.exitcode is not None:
            self._bury(place, place.process.exitcode)
        if place.process is None and not place.is_finished and time.monotonic() >= place.due:
            place.process = self._context.Process(target=self._main, args=(self._job,), name=f"worker {place.number}")
            worker.start(place.process)
            place.started = time.monotonic()

    def _bury(self, place: Place, code: int) -> None:
        assert place.process is not None
        pid = place.process.pid
        place.process.close()
        place.process = None
        if code in (worker.DONE, worker.DONE_WITH_FAILURES) or self._ending:
            place.is_finished = True
            self._failed |= code == worker.DONE_WITH_FAILURES
        elif code == worker.UNUSABLE:
            place.is_finished = self._failed = True
            self._end(SpawnProcess.terminate)
        else:
            how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
            delay = place.seconds_until_next()
            self._say(f"worker {place.number} (pid {pid}) {how}; another one starts in {delay:g} s")

    def _say(self, text: str) -> None:
        if not self._quiet:
            click.echo(f"segq: {text}", err=True)
