"""The processes of one repetition: spawned alike for every contestant, started at a barrier, never left behind."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from types import TracebackType
from typing import Any, Self, cast

CONTEXT: SpawnContext = get_context("spawn")
"""A fresh interpreter for each process: nothing inherited, and peak memory counts from nothing."""

clock = time.perf_counter_ns
"""One clock for all processes: CLOCK_MONOTONIC on Linux, and system-wide on macOS and Windows as well."""


class WorkerError(Exception):
    """A process of the crew raised, died or was stuck."""


@dataclass(frozen=True, slots=True)
class StartLine:
    """Where every process of a repetition waits until all are ready."""

    barrier: Barrier
    patience: float

    def cross(self) -> int:
        """Wait for the others; returns the time at which this process went on."""
        self.barrier.wait(self.patience)
        return clock()


@dataclass(frozen=True, slots=True, eq=False)
class Worker:
    """A process and the pipe its result comes back through."""

    role: str
    process: SpawnProcess
    connection: Connection


Work = Callable[..., Any]


def _run(connection: Connection, line: StartLine, work: Work, arguments: tuple[Any, ...]) -> None:
    try:
        answer = (True, work(line, *arguments))
    except BrokenBarrierError:
        answer = (False, None)
    except BaseException:  # whatever it was, the parent reports it
        answer = (False, traceback.format_exc())
        line.barrier.abort()
    connection.send(answer)
    connection.close()


class Crew:
    """A context manager: start workers, await their results; leaving it ends whatever still runs.

    The barrier opens when ``size`` workers are at it. ``patience`` seconds after the crew was made it gives up.
    """

    def __init__(self, size: int, patience: float) -> None:
        self._line = StartLine(CONTEXT.Barrier(size), patience)
        self._deadline = time.monotonic() + patience
        self._workers: list[Worker] = []
        self._answers: dict[Worker, Any] = {}

    def start(self, role: str, work: Work, *arguments: Any) -> Worker:
        """Spawn ``work(line, *arguments)``, a module-level function; what it returns must pickle."""
        receiving, sending = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_run, args=(sending, self._line, work, arguments), name=role, daemon=True)
        process.start()
        sending.close()
        worker = Worker(role, process, receiving)
        self._workers.append(worker)
        return worker

    def result(self, worker: Worker) -> Any:
        """What the worker's function returned; raises `WorkerError` as soon as any of the crew has failed."""
        self.first([worker])
        return self._answers.pop(worker)

    def results(self, workers: Sequence[Worker]) -> list[Any]:
        return [self.result(worker) for worker in workers]

    def first(self, workers: Sequence[Worker]) -> Worker:
        """The first of the workers to have an answer (which `result` then returns at once)."""
        while True:
            for worker in workers:
                if worker in self._answers:
                    return worker
            unread = {worker.connection: worker for worker in self._workers if not worker.connection.closed}
            ready = wait(list(unread), max(0.0, self._deadline - time.monotonic()))
            if not ready:
                awaited = ", ".join(worker.role for worker in workers)
                raise WorkerError(f"stuck: no answer from {awaited} in the time allowed")
            for connection in ready:
                self._read(unread[cast("Connection", connection)])

    def _read(self, worker: Worker) -> None:
        try:
            succeeded, answer = worker.connection.recv()
        except EOFError:
            worker.process.join(1)
            raise WorkerError(f"{worker.role} died with exit code {worker.process.exitcode}") from None
        finally:
            worker.connection.close()
        if succeeded:
            self._answers[worker] = answer
        elif answer is not None:
            raise WorkerError(f"{worker.role}: {answer}")
        # Without an answer it was only held up by somebody else's failure, which is still to be read.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            if kind is None:
                worker.process.join(max(0.0, self._deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
            worker.process.join()
            worker.connection.close()
            worker.process.close()
