"""Starts the processes of a pipeline, keeps them alive, and ends them in order: sources first, then what empties the queues."""

from __future__ import annotations

import dataclasses
import graphlib
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

import segq
from segq.pipeline import child
from segq.pipeline.plan import Plan, StagePlan

log = logging.getLogger("segq.pipeline")

TICK = 0.2  # seconds between two looks at signals and processes
FIRST_DELAY = 0.1  # seconds before a process that died is replaced; doubled each time it dies soon
LONGEST_DELAY = 30.0
STEADY = 10.0  # seconds a process has to live for its earlier deaths to be forgotten

OK, BROKEN, KILLED = 0, 1, 2


@dataclasses.dataclass(slots=True)
class Place:
    """One of the processes that a stage has, and whichever runs there now."""

    stage: StagePlan
    number: int
    process: SpawnProcess | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0
    """When the next may start here."""
    is_finished: bool = False

    @property
    def name(self) -> str:
        return f"{self.stage.name}/{self.number}" if self.stage.processes > 1 else self.stage.name

    def count_death(self) -> float:
        """Says how many seconds the place stays empty."""
        self.deaths = 1 if time.monotonic() - self.started > STEADY else self.deaths + 1
        delay: float = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.deaths - 1, 16))
        self.due = time.monotonic() + delay
        return delay


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a pipeline is at: of each queue the items that wait, are in hand, and were given up; its processes and restarts."""

    queues: dict[str, tuple[int, int, int]]
    running: int
    processes: int
    restarts: int
    ending: str


class Supervisor:
    """A pipeline that runs until it is told to stop, or (`until_done`) until its sources are over and its queues empty.

    The first signal (SIGTERM, SIGINT) drains: sources stop, the rest goes on until the queues are empty, for `plan.drain`
    seconds at most; then every process finishes what it has in hand, for which it has `plan.grace` seconds before it is killed.
    The second signal kills at once. Either way nothing is lost: what is not done is in the queues.
    """

    def __init__(self, plan: Plan, *, until_done: bool = False, tell: Callable[[str], None] = log.warning) -> None:
        """Opens (and makes) the queues, and so finds out what is wrong with them. `tell`: what people should know."""
        self._plan, self._until_done, self._tell = plan, until_done, tell
        self._queues: dict[str, segq.Queue | segq.Topic] = {}
        try:
            for queue in plan.queues:
                os.makedirs(os.path.dirname(queue.path), exist_ok=True)
                self._queues[queue.name] = queue.open()
            for stage in plan.stages:  # a label that nobody has begun would miss what the source puts first
                if stage.label is not None and stage.taken_from is not None:
                    topic = self._queues[stage.taken_from.name]
                    assert isinstance(topic, segq.Topic)
                    topic.subscribe(stage.label).close()
        except BaseException:
            self.close()
            raise
        self._order = _order(plan)
        self._places = [Place(stage, number + 1) for stage in plan.stages for number in range(stage.processes)]
        self._signals: list[int] = []
        self._obeyed = self._restarts = 0
        self._ending = ""
        self._end_by = float("inf")
        self._broken = False
        # A stage starts from nothing, so that what it imports cannot depend on what the supervisor did.
        self._context = multiprocessing.get_context("spawn")

    @property
    def interrupted(self) -> bool:
        """Whether it was Ctrl-C that ended it."""
        return signal.SIGINT in self._signals

    def run(self, each: Callable[[Status], None] = lambda _status: None) -> int:
        """Returns OK, BROKEN (a stage could not be started, or could not go on), or KILLED; `each` is called several times a
        second. In the main thread: it takes the signals."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not all(place.is_finished for place in self._places):
                self._obey()
                for place in self._places:
                    self._tend(place)
                self._go_on()
                wait([place.process.sentinel for place in self._alive()], timeout=TICK)
                each(self.status())
        finally:
            self._kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        return BROKEN if self._broken else KILLED if self._ending == "killed" else OK

    def status(self) -> Status:
        """A look at the queues and the processes."""
        queues = {}
        for name, queue in self._queues.items():
            stats = queue.stats()
            waiting = sum(label.waiting for label in stats.labels) if stats.kind == "topic" else stats.waiting
            claimed = sum(label.claimed for label in stats.labels) if stats.kind == "topic" else stats.claimed
            queues[name] = (waiting, claimed, stats.dead)
        alive = sum(1 for _ in self._alive())
        return Status(queues=queues, running=alive, processes=len(self._places), restarts=self._restarts, ending=self._ending)

    def close(self) -> None:
        """Lets go of the queues."""
        for queue in self._queues.values():
            queue.close()

    # --- signals, and the order of the end ---

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _obey(self) -> None:
        if len(self._signals) == self._obeyed:
            return
        self._obeyed = len(self._signals)
        if self._ending not in ("drain", "finish", "killed") and self._obeyed == 1:
            self._begin(
                "drain", self._plan.drain, f"draining for up to {self._plan.drain:g} s, the sources stop; a second signal kills"
            )
        else:
            self._ending = "killed"
            self._tell("killed: what was in hand goes back to the queues")
            self._kill()

    def _begin(self, ending: str, seconds: float, words: str) -> None:
        self._ending, self._end_by = ending, time.monotonic() + seconds
        self._tell(words)
        for place in self._places:
            if ending == "finish" or place.stage.role == "source":
                self._stop(place)

    def _go_on(self) -> None:
        """From one part of the end to the next."""
        sources = [place for place in self._places if place.stage.role == "source"]
        quiet = all(place.is_finished for place in sources) and self._is_empty()
        match self._ending:
            case "" if self._until_done and quiet:
                self._begin("finish", self._plan.grace, "all is done")
            case "drain" if quiet or time.monotonic() > self._end_by:
                self._begin("finish", self._plan.grace, "every process finishes what it has in hand")
            case "finish" if time.monotonic() > self._end_by:
                self._tell(f"not ended within {self._plan.grace:g} s, and killed: {', '.join(p.name for p in self._alive())}")
                self._ending = "killed"
                self._kill()

    def _is_empty(self) -> bool:
        """Whether no queue has anything for a stage of ours. Looked at in the order in which items go: none slips by."""
        return not any(self._queues[name].stats().items for name in self._order)

    def _stop(self, place: Place) -> None:
        place.due = float("inf")
        if place.process is None:
            place.is_finished = True
        elif place.process.pid is not None:
            place.process.terminate()

    def _kill(self) -> None:
        for place in self._places:
            if place.process is not None:
                place.process.kill()
                place.process.join()
                place.process.close()
                place.process = None
            place.is_finished = True

    # --- processes ---

    def _alive(self) -> Iterator[Any]:
        return (place for place in self._places if place.process is not None)

    def _tend(self, place: Place) -> None:
        """Whatever the place needs now: a first process, another one, or nothing."""
        if place.process is not None and place.process.exitcode is not None:
            self._bury(place, place.process.exitcode)
        if place.process is None and not place.is_finished and time.monotonic() >= place.due:
            self._start(place)

    def _start(self, place: Place) -> None:
        arguments = (place.stage, self._plan.directory, os.getpid())
        place.process = self._context.Process(target=child.main, args=arguments, name=place.name)
        resource_tracker.ensure_running()  # starting that as a side effect of the next line would let SIGINT through again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            place.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        place.started = time.monotonic()

    def _bury(self, place: Place, code: int) -> None:
        assert place.process is not None
        pid = place.process.pid
        place.process.close()
        place.process = None
        if code == child.UNUSABLE:
            self._broken = place.is_finished = True
            if not self._ending:
                self._begin("finish", self._plan.grace, f"{place.name} cannot work: the pipeline ends")
        elif code == child.DONE or self._ending == "finish" or place.due == float("inf"):
            place.is_finished = True
        else:
            how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
            delay = place.count_death()
            self._restarts += 1
            self._tell(f"{place.name} (pid {pid}) {how}; another one starts in {delay:g} s")


def _order(plan: Plan) -> list[str]:
    """The queues that some stage takes from, each after those from which items come into it."""
    before: dict[str, set[str]] = {}
    for stage in plan.stages:
        if stage.taken_from is not None:
            before.setdefault(stage.taken_from.name, set())
            if stage.put_to is not None:
                before.setdefault(stage.put_to.name, set()).add(stage.taken_from.name)
    taken = {stage.taken_from.name for stage in plan.stages if stage.taken_from is not None}
    try:
        return [name for name in graphlib.TopologicalSorter(before).static_order() if name in taken]
    except graphlib.CycleError:  # then nothing comes to an end before all that goes round has come to one
        return [queue.name for queue in plan.queues if queue.name in taken]
