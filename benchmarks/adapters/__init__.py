"""The contestants: one small file each, and this table of them.

To enter another one: write a module with a function ``adapter() -> Adapter`` that raises `UnavailableError` when
the package is not installed, and name it in `MODULES`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from benchmarks.adapters.contract import (
    Adapter,
    CeilingTicket,
    FanHandle,
    FanTicket,
    Handle,
    Settings,
    Ticket,
    UnavailableError,
)

__all__ = [
    "MODULES",
    "Adapter",
    "CeilingTicket",
    "FanHandle",
    "FanTicket",
    "Handle",
    "Settings",
    "Ticket",
    "UnavailableError",
    "adapter_named",
]

MODULES = {
    "segq": "benchmarks.adapters.segq_queue",
    "segq, not yet made": "benchmarks.adapters.segq_queue:not_yet_made",
    "segq topic": "benchmarks.adapters.segq_topic",
    "RocksQ MpmcQueue": "benchmarks.adapters.rocksq_mpmc",
    "multiprocessing.Queue": "benchmarks.adapters.multiprocessing_queue",
    "multiprocessing.SimpleQueue": "benchmarks.adapters.simple_queue",
    "faster-fifo": "benchmarks.adapters.faster_fifo",
    "turbo-queue": "benchmarks.adapters.turbo_queue",
    "litequeue": "benchmarks.adapters.litequeue",
    "diskcache.Deque": "benchmarks.adapters.diskcache_deque",
    "localqueue": "benchmarks.adapters.localqueue",
    "nque": "benchmarks.adapters.nque",
    "RocksQ": "benchmarks.adapters.rocksq_queue",
    "persist-queue, file": "benchmarks.adapters.persist_queue:file",
    "persist-queue, SQLite": "benchmarks.adapters.persist_queue:sqlite",
    "persist-queue, SQLite ack": "benchmarks.adapters.persist_queue:sqlite_ack",
    "persist-queue, SQLite, bulk": "benchmarks.adapters.persist_queue:sqlite_bulk",
    "persist-queue, file, bulk": "benchmarks.adapters.persist_queue:file_bulk",
    "persist-queue, file, task_done": "benchmarks.adapters.persist_queue:file_done",
    "plain write": "benchmarks.adapters.plain_write",
    "plain write, synced": "benchmarks.adapters.plain_write:synced",
    "RocksDB puts": "benchmarks.adapters.rocksdb_put",
    "RocksDB puts of blocks": "benchmarks.adapters.rocksdb_put:blocks",
}


@cache
def adapter_named(name: str) -> Adapter:
    """The adapter of that name; raises `UnavailableError`, saying why, if this machine cannot run it."""
    module, _, maker = MODULES[name].partition(":")
    adapter: Adapter = getattr(import_module(module), maker or "adapter")()
    return adapter
