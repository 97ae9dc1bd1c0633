"""diskcache's Deque: a table in SQLite (large values in files), shared by processes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError
from benchmarks.adapters.polling import waiting


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str

    def open(self) -> Handle:
        from diskcache import Deque  # type: ignore[import-not-found, import-untyped, unused-ignore]

        deque = Deque(directory=self.path)

        def take() -> Any:
            try:
                return deque.popleft()
            except IndexError:
                return None

        return Handle(put=deque.append, get=waiting(take), close=deque.cache.close, drained=lambda: len(deque) == 0)


@dataclass(frozen=True, slots=True)
class DiskcacheDeque:
    """`diskcache.Deque`."""

    version: str
    name: str = "diskcache.Deque"
    survives: str = "every item whose append returned"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        ticket = _Ticket(str(directory / "deque"))
        ticket.open().close()
        return ticket


def adapter() -> DiskcacheDeque:
    try:
        import diskcache  # noqa: F401 - whether it can be
    except ImportError as error:
        raise UnavailableError(f"diskcache is not installed ({error}): pip install diskcache") from error
    return DiskcacheDeque(version("diskcache"))
