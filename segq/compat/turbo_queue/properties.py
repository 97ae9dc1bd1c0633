"""What `Startup`, `Enqueue` and `Dequeue` have in common: turbo-queue's properties, and the queue they stand for."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import segq

T = TypeVar("T")


class Property(Generic[T]):
    """An attribute that refuses what turbo-queue's refuses, with ValueError.

    It has no `__get__`, so that reading one, which every `add` does, is reading the instance's dictionary.
    """

    def __init__(self, default: T, fits: Callable[[Any], bool], wanted: str) -> None:
        self.default, self._fits, self._wanted = default, fits, wanted

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type) -> T: ...

    def __set__(self, instance: object, value: T) -> None:
        if not self._fits(value):
            raise ValueError(f"{self._name} must be {self._wanted}, not {value!r}")
        instance.__dict__[self._name] = value


def _text(default: str) -> Property[str]:
    return Property(default, lambda value: type(value) is str, "a string")


def _count(default: int) -> Property[int]:
    return Property(default, lambda value: type(value) is int and value > 0, "an integer > 0")


def flag(default: bool) -> Property[bool]:
    return Property(default, lambda value: type(value) is bool, "True or False")


class Properties:
    """The queue at `root_path/queue_name`, opened when it is first needed. `close()`, or being dropped, closes it."""

    queue_name = _text("example_queue_name")
    root_path = _text("/dc_data")
    num_loaders = _count(1)  # kept for those who set it; any number may load, as in turbo-queue
    num_queues = _count(1)  # the same
    max_ready_files = _count(1)
    max_events_per_file = _count(80_000)
    max_batch_age = _count(10)
    enqueue_active = flag(default=False)
    dequeue_active = flag(default=True)
    processing_hold = flag(default=False)
    drop_overflow = flag(default=False)
    remove_invalid = flag(default=True)  # nothing is removed here: what cannot be read goes to the queue's quarantine

    def __init__(self) -> None:
        for kind in type(self).__mro__:
            for name, value in vars(kind).items():
                if isinstance(value, Property):
                    self.__dict__.setdefault(name, value.default)
        self.version = "0.8.0"
        self.logger = logging.getLogger("segq.compat.turbo_queue")
        self._handle: segq.Queue | None = None
        self._place = ("", "")  # whose it is

    @property
    def path(self) -> str:
        """The directory of the queue, which `segq stats` and the other verbs take as well."""
        return os.path.join(self.root_path, self.queue_name)

    def queue(self) -> segq.Queue:
        """The handle, opened now if need be. Raises NotAQueueError where turbo-queue itself left its files."""
        handle, place = self._handle, (self.root_path, self.queue_name)
        if handle is not None and self._place == place:
            return handle
        self.close()
        self._refuse_turbo_queue()
        self._handle, self._place = segq.Queue(self.path, serializer="json"), place
        return self._handle

    def _refuse_turbo_queue(self) -> None:
        if os.path.isdir(self.path) and not os.path.lexists(os.path.join(self.path, "queue.json")):
            left = [name for name in os.listdir(self.path) if name.partition("_")[0] in ("load", "unload", "ready")]
            if left:
                raise segq.NotAQueueError(
                    f"{self.path} holds files of turbo-queue itself ({left[0]}, …); move the directory away and bring them"
                    f" over: segq import --from turbo-queue --serializer json MOVED {self.path}",
                    path=self.path,
                )

    def get_ready_length(self) -> int:
        """How many batches wait: whole ones of `max_events_per_file` events."""
        return self.queue().qsize() // self.max_events_per_file

    def update_enqueue_active_state(self) -> None:
        """Sets `enqueue_active`: whether fewer than `max_ready_files` batches wait."""
        ready = self.get_ready_length()
        if ready >= self.max_ready_files:
            self.enqueue_active = False
        elif not self.processing_hold and not self.enqueue_active:
            self.enqueue_active = True
            self.logger.info("update_enqueue_active_state to True %s", self.queue_name)

    def setup_logging(
        self, logger_name: str = "turbo_queue", level: int = logging.WARNING, log_file: str = "turbo_queue.log"
    ) -> None:
        """Reports go to `log_file` from now on."""
        self.logger = logging.getLogger(logger_name)
        self.logger.setLevel(level)
        handler = logging.FileHandler(log_file)
        handler.setFormatter(logging.Formatter("%(asctime)s : %(levelname)s : %(name)s : %(message)s"))
        self.logger.addHandler(handler)

    def get_current_epoch_int(self) -> int:
        return int(time.time())

    def get_uuid(self) -> uuid.UUID:
        return uuid.uuid4()

    def close(self) -> None:
        """Closes the queue; using the object again opens it again. turbo-queue has no such method."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be half gone; segq closes its handles at exit itself
            self.close()
