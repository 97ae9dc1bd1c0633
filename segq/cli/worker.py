"""One worker process: takes an item, runs the task, acknowledges; ends between two items when it is asked to."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from types import FrameType

import click

import segq
from segq.cli import place, reports
from segq.cli.retries import Retries
from segq.cli.task import Task, TaskUnusableError, attempt

IDLE = 0.5  # seconds: how soon a waiting worker sees that it shall end, or that its parent died

# Exit codes between worker and pool, away from those a task's own sys.exit is likely to use.
DONE = 0
DONE_WITH_FAILURES = 90
UNUSABLE = 91


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every worker of a pool needs to know."""

    queue: str
    label: str | None
    task: Task
    until_empty: bool
    max_deliveries: int | None = None


class Stop:
    """Whether SIGTERM has come. A flag, not an exception: that could strike between an item's effect and its ack.

    A terminal sends SIGINT to all of us; what it means is the parent's decision. It gets a handler that does nothing
    rather than SIG_IGN, which the commands we run would inherit.
    """

    def __init__(self) -> None:
        self.asked = False
        self._parent = os.getppid()
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, _do_nothing)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def __bool__(self) -> bool:
        return self.asked or os.getppid() != self._parent  # nobody would ever end the worker of a parent that is gone

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


def start(process: SpawnProcess) -> None:
    """Starts a process that makes a `Stop` first of all; until then Ctrl-C is held back from it."""
    resource_tracker.ensure_running()  # starting that as a side effect of the next line would let SIGINT through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def main(job: Job) -> None:
    """The whole life of a worker process."""
    stop = Stop()
    reports.to_stderr()
    try:
        job.task.prepare()
        queue = place.open_source(job.queue, job.label, max_deliveries=job.max_deliveries)
    except (TaskUnusableError, segq.QueueError) as error:
        click.echo(f"segq: error: {error}", err=True)
        sys.exit(UNUSABLE)
    try:
        with queue:
            code = _work(queue, job, stop)
    except segq.QueueError as error:  # a full disk, say: worth another attempt by and by
        click.echo(f"segq: error: {error}", err=True)
        code = 1
    sys.exit(code)


def _work(queue: place.Source, job: Job, stop: Stop) -> int:
    most = queue.settings.max_deliveries
    retries = Retries(again=not job.until_empty or most is not None, max_deliveries=most)
    try:
        while not stop:
            try:
                message = queue.receive(timeout=IDLE)
            except segq.Empty:
                if job.until_empty and queue.stats().waiting == 0:
                    break
                continue
            attempt(job.task, message, retries, lease=queue.settings.lease)
    except segq.ShutDown:
        pass
    finally:
        retries.give_back_all()
    return DONE_WITH_FAILURES if job.until_empty and retries.failures else DONE
