"""What an import reads from, and how it is opened by the library's name."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Iterator
from typing import Any, Protocol

from segq._core.base.errors import QueueError

KINDS: dict[
    str, tuple[str, str, dict[str, Any]]
] = {  # the module; the new queue's serializer, unless another is asked for; settings
    "rocksq": (
        "rocksq",
        "raw",
        {"max_bytes": 1 << 60},
    ),  # a limit that segq.compat.rocksq has as well: with one, bytes are counted
    "persist-queue": ("persist_queue", "msgpack", {}),
    "turbo-queue": ("turbo_queue", "json", {}),
    "diskcache": ("disk_cache", "msgpack", {}),
}


class SourceError(QueueError):
    """The source cannot be imported as it is; the message says why, and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What has to be said of some sources: which of several queues in one place, and how its items were stored."""

    table: str | None = None
    serializer: str = "pickle"


class Source(Protocol):
    """A queue of another library. Opening and reading it leaves its items where they are."""

    total: int

    def fingerprint(self) -> str:
        """Another one if items were put or got since."""

    def read(self, skip: int) -> Iterator[Any]:
        """The items after the first `skip`, in the order in which they would have been got."""

    def close(self) -> None: ...


def open_source(kind: str, path: str, options: Options, scratch: str) -> Source:
    """The queue of library `kind` at `path`; `scratch` is a place for a copy. Raises SourceError."""
    if kind not in KINDS:
        raise SourceError(f"there is no import from {kind!r}; there is one from {', '.join(sorted(KINDS))}")
    opened: Source = importlib.import_module(f"segq.transfer.{KINDS[kind][0]}").open_source(path, options, scratch)
    return opened


def library(module: str, package: str) -> Any:
    """The other library, which reads its own files."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SourceError(f"reading these files needs the library that wrote them: pip install {package} ({error})") from error


def digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()
