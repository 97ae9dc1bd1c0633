"""What is done with an item: a command that reads it on stdin, or a Python function that is called with it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import click

import segq
from segq._core.base.errors import ReceiptError
from segq.cli import items
from segq.cli.retries import Retries


class TaskFailedError(Exception):
    """The item was not dealt with; the message says why."""


class TaskUnusableError(Exception):
    """There is no such command or function: no item could ever be dealt with."""


class Task(Protocol):
    """Picklable, so that it reaches a worker process by any start method."""

    def prepare(self) -> None:
        """Called once in the process that will run it. Raises TaskUnusableError."""

    def run(self, message: segq.Message) -> None:
        """Deals with the item. Raises TaskFailedError."""


@dataclasses.dataclass(slots=True)
class Command:
    """A command that is run once for each item. It succeeds by exiting with 0."""

    argv: tuple[str, ...]
    own_group: bool = False
    """In a process group of its own it does not see the terminal's Ctrl-C, so a pool can let it finish."""

    def prepare(self) -> None:
        import shutil

        if shutil.which(self.argv[0]) is None:
            raise TaskUnusableError(f"{self.argv[0]}: no such command")

    def run(self, message: segq.Message) -> None:
        environment = os.environ | {"SEGQ_ID": str(message.id), "SEGQ_DELIVERIES": str(message.deliveries)}
        try:
            ended = subprocess.run(  # running what the user named is the purpose
                self.argv,
                input=items.for_stdin(message.value),
                env=environment,
                check=False,
                process_group=0 if self.own_group else None,
            )
        except OSError as error:
            raise TaskFailedError(f"{self.argv[0]}: {error.strerror}") from error
        if ended.returncode < 0:
            raise TaskFailedError(f"{self.argv[0]} was killed by signal {-ended.returncode}")
        if ended.returncode:
            raise TaskFailedError(f"{self.argv[0]} exited with {ended.returncode}")


@dataclasses.dataclass(slots=True)
class Call:
    """A function `package.module:name`, called with each item. It succeeds by returning."""

    target: str
    _function: Callable[[Any], object] | None = None

    def prepare(self) -> None:
        module, colon, name = self.target.partition(":")
        if not (module and colon and name):
            raise TaskUnusableError(f"{self.target!r} is not of the form package.module:function")
        if "" not in sys.path and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # a console script, unlike `python -m`, does not look where it stands
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise TaskUnusableError(f"{self.target}: {error}") from error
        if not callable(found):
            raise TaskUnusableError(f"{self.target} is a {type(found).__name__}, nothing to call")
        self._function = found

    def run(self, message: segq.Message) -> None:
        assert self._function is not None, "prepare() comes first"
        try:
            self._function(message.value)
        except Exception as error:
            traceback.print_exc()
            raise TaskFailedError(f"{self.target} raised {type(error).__name__}") from error


def attempt(task: Task, message: segq.Message, retries: Retries, *, lease: float | None) -> None:
    """Runs the task; acknowledges the message, or hands it to `retries` when the task failed."""
    try:
        with _kept_alive(message, lease):
            task.run(message)
    except TaskFailedError as error:
        try:
            fate = retries.failed(message, str(error))
        except ReceiptError as lost:
            fate = str(lost)
        click.echo(f"segq: item {message.id} failed ({error}); {fate}", err=True)
    except BaseException:
        message.nack()
        raise
    else:
        try:
            message.ack()
        except ReceiptError as error:
            click.echo(f"segq: warning: item {message.id} is done, but may be done again: {error}", err=True)


@contextlib.contextmanager
def _kept_alive(message: segq.Message, lease: float | None) -> Iterator[None]:
    """Extends the lease, if the queue has one, for as long as the body takes."""
    if lease is None:
        yield
        return
    over = threading.Event()

    def extend() -> None:
        while not over.wait(lease / 3):
            try:
                message.extend(lease)
            except ReceiptError:
                return  # the acknowledgement will say so

    thread = threading.Thread(target=extend, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
