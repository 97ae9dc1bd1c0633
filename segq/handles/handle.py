"""What all handles have in common: opened on first use, closed at exit, and harmless in a forked child.

A handle survives neither fork nor pickling as it is: in a forked child, and in a child it was sent to, it is a description that
opens itself on first use. The parent's RocksDB instances, locks and mapped files are never touched there.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import threading
import weakref
from types import TracebackType
from typing import Any, Self

from segq._core.background.expire import Tidier
from segq._core.background.release_idle import Keeper
from segq._core.base.errors import ClosedError, QueueError, SettingsError
from segq._core.base.settings import Settings
from segq._core.directory import owners, tally
from segq._core.directory.catalog import Catalog
from segq._core.directory.index import EVERYBODY, Index
from segq._core.directory.owners import Owner
from segq._core.put.producer import Producer
from segq._core.recovery import recovery
from segq._core.system.locks import StructureLock
from segq._core.take.consumer import Consumer
from segq.handles.sized import Sized

_handles: weakref.WeakSet[Handle] = weakref.WeakSet()


class Parts:
    """What an open handle is made of. Those who put have a producer, those who get a consumer."""

    producer: Producer | None = None
    consumer: Consumer | None = None
    dead: Handle | None = None

    def __init__(self, path: str, settings: Settings, catalog: type[Catalog]) -> None:
        structure = StructureLock(path)  # the only one of this handle: it is reentrant, two of them would wait for each other
        with structure:
            self.index = Index.open(path)
            self.catalog = catalog(path, settings, self.index, structure)
            self._settle_the_dead(path)
            self.owner = Owner.register(path)
            self.index.clear_owner(self.owner.slot)
        self.keeper = Keeper(self.index)
        self.tidier = Tidier(catalog(path, settings, self.index, structure))
        self.tally = tally.Tally(self.catalog)
        self.tally_lock = threading.Lock()

    def _settle_the_dead(self, path: str) -> None:
        self.rescued = recovery.rescue(self.catalog, 0)
        recovery.rescue_orphans(self.catalog)
        if not owners.slots(path):  # the first handle: a shutdown lasts as long as somebody has the queue open
            self.index.shutdown = 0
            recovery.put_right(self.catalog)

    def close(self) -> None:
        self.tidier.stop()
        self.keeper.stop()
        try:
            if self.producer is not None:
                self.producer.close()
        finally:
            if self.consumer is not None:
                self.consumer.close()
            if self.dead is not None:
                self.dead.close()
            with self.catalog.structure:
                self.index.clear_owner(self.owner.slot)
                self.owner.close()
            self.index.freed(EVERYBODY)
            self.index.close()


class Handle(Sized):
    """Opened on first use: `_producer` and `_consumer` are there then, and asking for them opens it."""

    path: str
    settings: Settings

    def _describe(self, path: str, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self._closed = False
        self._parts: Any = None
        self._pid = os.getpid()
        self._opening = threading.Lock()

    def _assemble(self) -> Parts:
        """Opens what it is made of."""
        raise NotImplementedError

    def close(self) -> None:
        """Seals what this handle wrote and gives back what it holds; what is stored stays. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        parts, self._parts = self._parts, None
        _handles.discard(self)
        if parts is not None and self._pid == os.getpid():
            self._detach()
            parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<segq.{type(self).__name__} {self.path!r}{' closed' if self._closed else ''}>"

    def __getattr__(self, name: str) -> Any:
        if name in ("_producer", "_consumer"):
            return getattr(self._open(), name[1:])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _open(self) -> Any:
        parts = self._parts
        if parts is not None:
            return parts
        if self._closed:
            raise ClosedError(f"{self.path}: this handle is closed; open it again", path=self.path)
        with self._opening:
            if self._parts is None:
                parts = self._assemble()
                if parts.producer is not None:
                    self._producer = parts.producer
                if parts.consumer is not None:
                    self._consumer = parts.consumer
                self._parts, self._pid = parts, os.getpid()
                _handles.add(self)
                _close_at_exit_of_children()
            assert self._parts is not None
            return self._parts

    def _detach(self) -> None:
        for name in ("_producer", "_consumer"):
            self.__dict__.pop(name, None)

    def _forked(self) -> None:
        """In a forked child: let go of everything of the parent's without touching it."""
        parts, self._parts = self._parts, None
        self._opening = threading.Lock()
        if parts is not None:
            self._detach()
            parts.owner.forget()
            if parts.consumer is not None:
                parts.consumer.forsake()
            _inherited.append(parts)


_inherited: list[Parts] = []


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle._forked()  # noqa: SLF001
    _handles.clear()


def _close_all() -> None:
    for handle in list(_handles):
        with contextlib.suppress(QueueError, OSError):
            handle.close()


_registered_in = 0


def _close_at_exit_of_children() -> None:
    """multiprocessing ends its children without `atexit`; it has a register of its own."""
    global _registered_in  # noqa: PLW0603
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None and _registered_in != os.getpid():
        _registered_in = os.getpid()
        util.Finalize(None, _close_all, exitpriority=100)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_all)


def check_timeout(timeout: float) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise SettingsError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if timeout < 0:
        raise SettingsError("'timeout' must be a non-negative number")
