"""What a contestant has to offer to be raced.

The parent calls `Adapter.prepare` once per repetition and gives the `Ticket` to every process; each opens its own
`Handle` from it. A handle is a bundle of the contestant's *own* bound methods, so that no wrapper is
timed along with them. What a contestant cannot do is None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, Protocol


class UnavailableError(Exception):
    """This contestant cannot run here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a workload asks of a contestant beyond its defaults."""

    serializer: str | None = None
    """None is the contestant's default; "raw" means the items are bytes and may be stored as they are."""
    capacity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """One process's end of a queue."""

    put: Callable[[Any], object]
    close: Callable[[], object]
    """Returns when everything put through this handle is on its way without this process."""
    get: Callable[[], Any] | None = None
    put_many: Callable[[list[Any]], object] | None = None
    get_many: Callable[[int], list[Any]] | None = None
    receive: Callable[[], Any] | None = None
    """Takes one message, acknowledges it, returns its value."""
    lease: Callable[[], tuple[Any, Callable[[], object]]] | None = None
    """Takes one message; returns its value, and how to acknowledge it."""
    commit: Callable[[], object] | None = None
    """Where `put` does not: makes durable what was put."""
    drained: Callable[[], bool] | None = None
    """True once nothing is left to take. Asked after the producers have closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FanHandle:
    """One process's end of a queue with labels: of those who put, or of those who take for one label."""

    put_many: Callable[[list[Any]], object] | None
    get_many: Callable[[int], list[Any]] | None
    close: Callable[[], object]


class FanTicket(Protocol):
    """How a process finds a queue with labels. `one_process`: all has to be done by one, which opens it without a label."""

    @property
    def one_process(self) -> bool: ...

    def open(self, label: str | None = None) -> FanHandle: ...


class Ticket(Protocol):
    """How a process finds the queue: picklable while a process is being spawned."""

    def open(self) -> Handle: ...


class CeilingTicket(Ticket, Protocol):
    """How a process finds what can only be written."""

    def stored(self) -> int:
        """Bytes of payload that are there, once the writer has closed."""


class Adapter(Protocol):
    """A contestant."""

    name: str
    version: str
    survives: str
    """What it promises when its processes are killed, in a few words: shown beside its speed."""

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> Any:
        """A `Ticket`; a `FanTicket` if it has labels."""
