"""The stages that every pipeline has: commands and functions, as sources, workers and sinks.

Each hop of an item is: put where it goes, and only then acknowledged where it came from. Who dies in between repeats it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

import segq
from segq.connectors.backoff import backoff
from segq.pipeline.registry import named

log = logging.getLogger("segq.pipeline")

_RECEIVE_SECONDS = 0.2  # how soon a stage that waits for items sees that it shall stop
_BATCH = 100  # items worked on before their results are stored together
_BATCH_SECONDS = 0.05
_REASON = 4000  # characters of a traceback, or of what a command complained about


_Kind = TypeVar("_Kind")


# --- sources ---


class FunctionSource:
    """A function, called without arguments, that returns or yields items; all are put, and then the source is over.

    Items that come quickly are put together: what a killed source had yielded in the last twentieth of a second may not have
    been put. A source that is started anew begins anew; what it has to skip is its own affair.
    """

    def __init__(self, queue: segq.Queue | segq.Topic, function: str | Callable[[], Iterable[Any]]) -> None:
        self._queue, self._function = queue, _function(function)

    @classmethod
    def from_settings(cls, queue: segq.Queue | segq.Topic, **settings: Any) -> Self:
        """The same with all settings by name."""
        return _made(cls, queue, **settings)

    def run(self, stop: threading.Event) -> None:
        """Puts until there is nothing more, or `stop` is set."""
        items = iter(self._function())
        try:
            _put_all(self._queue, items, stop)
        finally:
            if isinstance(items, Iterator) and hasattr(items, "close"):
                items.close()


class CommandSource:
    """A command; each line that it prints is an item: text, or (`json`) a value. Over when it exits with 0."""

    def __init__(self, queue: segq.Queue | segq.Topic, command: Sequence[str], json: bool = False) -> None:
        self._queue, self._command, self._json = queue, _argv(command), json

    @classmethod
    def from_settings(cls, queue: segq.Queue | segq.Topic, **settings: Any) -> Self:
        """The same with all settings by name."""
        return _made(cls, queue, **settings)

    def run(self, stop: threading.Event) -> None:
        """Puts until the command ends, or `stop` is set: then it is sent SIGTERM. Raises QueueError if it fails."""
        with subprocess.Popen(self._command, stdout=subprocess.PIPE, process_group=0) as process:  # noqa: S603  # its purpose
            ending = threading.Thread(target=_end_on, args=(process, stop), daemon=True)
            ending.start()
            try:
                assert process.stdout is not None
                _put_all(self._queue, map(self._item, process.stdout), stop)
            except BaseException:
                process.terminate()
                raise
        if process.returncode and not stop.is_set():
            raise segq.QueueError(f"{self._command[0]} {_how_it_ended(process.returncode)}")

    def _item(self, line: bytes) -> Any:
        text = line.rstrip(b"\n").decode("utf-8", "surrogateescape")
        return json.loads(text) if self._json else text


def _end_on(process: subprocess.Popen[bytes], stop: threading.Event) -> None:
    while process.poll() is None:
        if stop.wait(_RECEIVE_SECONDS):
            process.terminate()
            return


def _put_all(queue: segq.Queue | segq.Topic, items: Iterable[Any], stop: threading.Event) -> None:
    batch: list[Any] = []
    due = 0.0
    for item in items:
        if not batch:
            due = time.monotonic() + _BATCH_SECONDS
        batch.append(item)
        if len(batch) >= _BATCH or time.monotonic() >= due or stop.is_set():
            _put(queue, batch, stop)
            batch = []
        if stop.is_set():
            return
    _put(queue, batch, stop)


def _put(queue: segq.Queue | segq.Topic, items: list[Any], stop: threading.Event) -> None:
    """Waits for room; not for ever once it is to stop. Raises Full then."""
    while True:
        try:
            queue.put_many(items, timeout=1.0)
        except segq.Full:
            if stop.is_set():
                raise
        else:
            return


# --- workers, and sinks that are nothing else ---


class _Finished:
    """Items that are worked on, whose results are not stored yet."""

    def __init__(self, to: segq.Queue | segq.Topic | None, in_hand: set[segq.Message]) -> None:
        self._to, self._in_hand = to, in_hand
        self._messages: list[segq.Message] = []
        self._results: list[Any] = []
        self._due = 0.0

    def __bool__(self) -> bool:
        return bool(self._messages)

    def add(self, message: segq.Message, result: Any) -> None:
        """One more; a result of None is none."""
        if not self._messages:
            self._due = time.monotonic() + _BATCH_SECONDS
        self._messages.append(message)
        if result is not None:
            self._results.append(result)

    @property
    def is_due(self) -> bool:
        """Whether they have waited long enough. Where nothing is to be stored they need not wait at all."""
        return self._to is None or len(self._messages) >= _BATCH or time.monotonic() >= self._due

    def settle(self, stop: threading.Event) -> None:
        """Stores the results, and only then acknowledges. If there is no room and it is to stop, all go back."""
        stored = True
        if self._results and self._to is not None:
            try:
                _put(self._to, self._results, stop)
            except segq.Full as error:
                log.warning("%d items go back: %s", len(self._messages), error)
                stored = False
        for message in self._messages:
            self._in_hand.discard(message)
            _settled(message.ack if stored else message.nack)
        self._messages, self._results = [], []


class _Worker:
    """Takes items, works on each, puts the results, acknowledges."""

    def __init__(
        self, queue: segq.Queue | segq.Subscription, to: segq.Queue | segq.Topic | None, first: float, longest: float
    ) -> None:
        self._queue, self._to, self._first, self._longest = queue, to, first, longest

    def work(self, message: segq.Message) -> Any:
        """The result; None for none. An exception is a failure."""
        raise NotImplementedError

    def why(self, error: Exception) -> str:
        """The reason for a dead letter."""
        return f"{type(error).__name__}: {error}"

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set, or the queue is shut down and empty.

        Results that come quickly are stored together. An item that was delivered before is in hand alone: should it be what
        killed its worker, the others must not share its fate.
        """
        with _kept_alive(self._queue) as in_hand:
            finished = _Finished(self._to, in_hand)
            while not stop.is_set():
                try:
                    message = self._queue.receive(timeout=0 if finished else _RECEIVE_SECONDS)
                except segq.Empty:
                    finished.settle(stop)
                    continue
                except segq.ShutDown:
                    break
                in_hand.add(message)
                alone = message.deliveries > 1
                if alone:
                    finished.settle(stop)
                try:
                    result = self.work(message)
                except Exception as error:  # the user's function: whatever it raises
                    in_hand.discard(message)
                    self._failed(message, error)
                else:
                    finished.add(message, result)
                if alone or finished.is_due:
                    finished.settle(stop)
            finished.settle(stop)

    def _failed(self, message: segq.Message, error: Exception) -> None:
        most, reason = self._queue.settings.max_deliveries, self.why(error)
        log.warning("%s failed: %s", message.id, reason.partition("\n")[0], extra={"id": message.id})
        if most is not None and message.deliveries >= most:
            try:
                _settled(lambda: message.reject(reason))
            except segq.QueueError as refused:
                log.error("%s cannot be given up yet: %s", message.id, refused)
                _settled(lambda: message.nack(delay=self._longest))
        else:
            _settled(lambda: message.nack(delay=backoff(message.deliveries, self._first, self._longest)))


class FunctionWorker(_Worker):
    """A function of one value; what it returns goes to the next queue, None goes nowhere. An exception is tried again later.

    `function`: or its name. `backoff`, `longest_backoff`: seconds before the second attempt, and at most; the queue's
    `max_deliveries` says how often.
    """

    def __init__(
        self, queue: segq.Queue | segq.Subscription, function: str | Callable[[Any], Any],
        to: segq.Queue | segq.Topic | None = None, backoff: float = 1.0, longest_backoff: float = 60.0,
    ) -> None:  # fmt: skip
        super().__init__(queue, to, backoff, longest_backoff)
        self._function = _function(function)

    @classmethod
    def from_settings(cls, queue: segq.Queue | segq.Subscription, **settings: Any) -> Self:
        """The same with all settings by name."""
        return _made(cls, queue, **settings)

    def work(self, message: segq.Message) -> Any:
        return self._function(message.value)

    def why(self, error: Exception) -> str:
        return f"{super().why(error)}\n{''.join(traceback.format_exception(error))[-_REASON:].strip()}"


class CommandWorker(_Worker):
    """A command, run for each item with it on its standard input; what it prints goes to the next queue, nothing goes nowhere.

    It succeeds by exiting with 0; else the item is tried again later, with the end of what it complained about as the reason.
    It finds SEGQ_ID and SEGQ_DELIVERIES in its environment. `json`: what it prints is a value, not text.
    """

    def __init__(
        self, queue: segq.Queue | segq.Subscription, command: Sequence[str], to: segq.Queue | segq.Topic | None = None,
        json: bool = False, timeout: float | None = None, backoff: float = 1.0, longest_backoff: float = 60.0,
    ) -> None:  # fmt: skip
        super().__init__(queue, to, backoff, longest_backoff)
        self._command, self._json, self._timeout = _argv(command), json, timeout

    @classmethod
    def from_settings(cls, queue: segq.Queue | segq.Subscription, **settings: Any) -> Self:
        """The same with all settings by name."""
        return _made(cls, queue, **settings)

    def work(self, message: segq.Message) -> Any:
        environment = os.environ | {"SEGQ_ID": str(message.id), "SEGQ_DELIVERIES": str(message.deliveries)}
        ended = subprocess.run(  # noqa: S603  # running what the user named is the purpose
            self._command, input=_as_input(message.value), env=environment, capture_output=True, check=False,
            timeout=self._timeout, process_group=0,
        )  # fmt: skip
        if ended.returncode:
            complaint = ended.stderr.decode("utf-8", "replace").strip()[-_REASON:]
            raise segq.QueueError(f"{self._command[0]} {_how_it_ended(ended.returncode)}{f': {complaint}' * bool(complaint)}")
        text = ended.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")
        return None if not text else json.loads(text) if self._json else text

    def why(self, error: Exception) -> str:
        return str(error)


def _made(kind: Callable[..., _Kind], queue: Any, **settings: Any) -> _Kind:
    try:
        return kind(queue, **settings)
    except TypeError as error:
        raise segq.SettingsError(str(error).partition("__init__() ")[2] or str(error)) from error


def _function(function: str | Callable[..., Any]) -> Callable[..., Any]:
    found = function if callable(function) else named(function, f"function = {function!r}")
    if not callable(found):
        raise segq.SettingsError(f"function = {function!r} is a {type(found).__name__}, nothing to call")
    return found


def _argv(command: object) -> list[str]:
    if not isinstance(command, (list, tuple)) or not command or not all(isinstance(word, str) for word in command):
        raise segq.SettingsError(f'command must be a list of words, like ["jq", "-c", ".order"], not {command!r}')
    return list(command)


def _how_it_ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"exited with {code}"


def _as_input(value: object) -> bytes:
    """Bytes exactly; text, and anything else as JSON, as a line."""
    if isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape") + b"\n"


def _settled(settle: Callable[[], None]) -> None:
    """A lease that ran out is told, and no more: the item has gone back."""
    try:
        settle()
    except segq.ReceiptError as error:
        log.warning("%s", error)


@contextlib.contextmanager
def _kept_alive(queue: segq.Queue | segq.Subscription) -> Iterator[set[segq.Message]]:
    """The set of messages whose lease, if the queue has one, is extended for as long as they are in it."""
    in_hand: set[segq.Message] = set()
    lease = queue.settings.lease
    if lease is None:
        yield in_hand
        return
    over = threading.Event()

    def extend() -> None:
        while not over.wait(lease / 3):
            for message in list(in_hand):
                with contextlib.suppress(segq.ReceiptError):
                    message.extend(lease)

    thread = threading.Thread(target=extend, daemon=True)
    thread.start()
    try:
        yield in_hand
    finally:
        over.set()
        thread.join()
