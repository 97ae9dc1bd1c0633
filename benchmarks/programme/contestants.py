"""Who takes part, under which names, with which items."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.adapters import Settings
from benchmarks.payload import BytesPayload
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.workloads import Entrant

SEGQ, PEER = "segq", "multiprocessing.Queue"
ROCKSQ = "RocksQ"
SIMPLE, FASTER_FIFO, TURBO_QUEUE, NQUE = "multiprocessing.SimpleQueue", "faster-fifo", "turbo-queue", "nque"
IN_MEMORY = (SIMPLE, FASTER_FIFO)
DURABLE = ("litequeue", "diskcache.Deque", "localqueue", NQUE)
ANY_SIZE = DURABLE[:-1]
"""nque has to be told the largest size of an item, and reserves the disk for it."""
PERSIST_QUEUE = ("persist-queue, file", "persist-queue, SQLite", "persist-queue, SQLite ack")

RAW = Settings(serializer="raw")
SMALL, MIDDLE, LARGE = BytesPayload(100), BytesPayload(1 << 10), BytesPayload(1 << 20)

peer = Entrant(label=PEER, adapter=PEER)
segq = Entrant(label=SEGQ, adapter=SEGQ, settings=RAW)


def segq_as(label: str = SEGQ, **how: Any) -> Entrant:
    """segq, told that bytes are bytes."""
    return Entrant(label=label, adapter=SEGQ, settings=RAW, **how)


def others(names: Iterable[str], **how: Any) -> tuple[Entrant, ...]:
    """Peers under their own names."""
    return tuple(Entrant(label=name, adapter=name, ordered=name != TURBO_QUEUE, **how) for name in names)


def durable(names: Iterable[str] = DURABLE, share: int = 1, **how: Any) -> tuple[Entrant, ...]:
    """Peers that commit each item to a database: they are given fewer items."""
    return others(names, items=_durable(share), **how)


def _durable(share: int) -> Callable[[Scale], int]:
    return lambda scale: max(1, scale.durable // share)


def at_least(ratio: float, *names: str, metric: str = "rate", of: str = SEGQ) -> tuple[Target, ...]:
    return tuple(Target(metric=metric, of=of, against=name, at_least=ratio) for name in names)
