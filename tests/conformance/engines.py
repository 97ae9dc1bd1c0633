"""The engines under test: where each keeps its queues, and what it cannot do, with the reason."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

import segq


class Engine:
    """Addresses of one engine. `limits`: what it cannot do, by name, and why; it has to say so by UnsupportedError."""

    def __init__(self, name: str, root: str, limits: dict[str, str]) -> None:
        self.name, self._root, self.limits = name, root, limits
        self._numbers = itertools.count()
        self._opened: list[Any] = []

    def address(self) -> str:
        return f"{self._root}/q{next(self._numbers)}"

    def queue(self, address: str | None = None, **settings: Any) -> Any:
        return self._kept(segq.connect(address or self.address(), **settings))

    def topic(self, address: str | None = None, **settings: Any) -> Any:
        return self._kept(segq.connect(address or self.address(), "topic", **settings))

    def _kept(self, handle: Any) -> Any:
        self._opened.append(handle)
        return handle

    def close(self) -> None:
        for handle in self._opened:
            handle.close()

    @contextlib.contextmanager
    def may_be_unsupported(self, what: str) -> Iterator[None]:
        """The body works, or, where the engine cannot do it, raises UnsupportedError; nothing between."""
        if what in self.limits:
            with pytest.raises(segq.UnsupportedError, match=r"NATS"):
                yield
            pytest.skip(f"{self.name}: {self.limits[what]}")
        yield


LOCAL: dict[str, str] = {}
NATS = {
    "join": "a server keeps no account of what was got and not finished",
    "shutdown": "a server does not know who has a queue open",
    "prefetch": "what is handed ahead counts as a delivery at the server",
    "max_bytes": "the server counts its headers as well (stream_bytes is in its measure)",
    "durability": "whether the server syncs each write is its own setting, which a client does not see",
    "large batch": "1,000 items are the most that the server stores as one write; atomic=False asks for several",
    "missed": "the server does not count by consumer what it dropped before it was delivered",
    "short extension": "a lease is extended by the whole of it",
}
