"""`TaskGroup` and `MultiTask`: functions run in many processes until the program is told to end."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NoReturn

_log = logging.getLogger("segq.compat.turbo_queue")


class TaskGroup:
    """A function, its keyword arguments, and in how many processes it runs.

    Each process gets the keyword `process_id` as well, counted from `process_number_start`.
    """

    def __init__(self) -> None:
        self.function_to_call: Callable[..., Any] | None = None
        self.kwargs: dict[str, Any] = {}
        self.daemon = True  # turbo-queue starts all as daemons, whatever this says; so does this
        self.include_task_number = True  # turbo-queue reads it nowhere
        self.process_count = 1
        self.process_number_start = 11


class MultiTask:
    """Starts the processes of all groups and waits for them."""

    def __init__(self) -> None:
        self.process_list: list[BaseProcess] = []
        self.task_group_list: list[TaskGroup] = []
        self.loop = asyncio.new_event_loop()

    def add_task(self, task: TaskGroup) -> None:
        """Adds a group; one without a function is left out."""
        if task.function_to_call:
            self.task_group_list.append(task)

    def start_all(self) -> None:
        """Starts everything and returns when all processes have ended. SIGTERM, SIGINT and SIGTSTP end them, and then this one.

        What is scheduled on `loop` runs meanwhile.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTSTP):
            signal.signal(number, _leave)
        try:
            for group in self.task_group_list:
                self._start(group)
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(self._ended())
        finally:
            self._end()
            asyncio.set_event_loop(None)
            self.loop.close()

    def _start(self, group: TaskGroup) -> None:
        for number in range(group.process_number_start, group.process_number_start + group.process_count):
            process = multiprocessing.Process(
                target=group.function_to_call, kwargs={**group.kwargs, "process_id": number}, daemon=True
            )
            process.start()
            self.process_list.append(process)

    async def _ended(self) -> None:
        waiting = [self.loop.create_future() for _ in self.process_list]
        for process, future in zip(self.process_list, waiting, strict=True):
            self.loop.add_reader(process.sentinel, self._has_ended, process.sentinel, future)
        await asyncio.gather(*waiting)

    def _has_ended(self, sentinel: int, future: asyncio.Future[None]) -> None:
        self.loop.remove_reader(sentinel)
        future.set_result(None)

    def _end(self) -> None:
        for process in self.process_list:
            process.terminate()
        for process in self.process_list:
            process.join()
            _log.info("%s (%s) has ended", process.name, process.pid)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)
