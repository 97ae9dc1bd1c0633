"""The other ceiling: the same bytes put into one bare RocksDB instance, with the settings segq gives its segments' writers.

A batch is a `WriteBatch` with a key for each item, or one value that holds them all, as segq's blocks do. It can only be
written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from benchmarks.adapters.contract import Handle, Settings, UnavailableError

WRITE_BUFFER = 4 << 30  # the data stays in the log, and nothing is rewritten


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str
    in_blocks: bool

    def _instance(self) -> Any:
        from rocksdict import DBCompressionType, Options, Rdict

        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER)
        options.set_arena_block_size(256 << 10)
        options.set_disable_auto_compactions(True)
        options.set_compression_type(DBCompressionType.none())
        options.set_allow_concurrent_memtable_write(False)
        return Rdict(self.path, options)

    def open(self) -> Handle:
        instance = self._instance()
        numbers = count()

        def put(item: bytes) -> None:
            instance[next(numbers).to_bytes(8, "big")] = item

        def put_block(items: list[bytes]) -> None:
            put(b"".join(items))

        return Handle(put=put, put_many=put_block if self.in_blocks else _batches(instance, numbers), close=instance.close)

    def stored(self) -> int:
        instance = self._instance()
        found = sum(len(value) for value in instance.values())
        instance.close()
        return found


def _batches(instance: Any, numbers: count[int]) -> Callable[[list[bytes]], None]:
    from rocksdict import WriteBatch

    def put_many(items: list[bytes]) -> None:
        batch = WriteBatch(raw_mode=True)
        for item in items:
            batch.put(next(numbers).to_bytes(8, "big"), item)
        instance.write(batch)

    return put_many


@dataclass(frozen=True, slots=True)
class RocksdbPut:
    """rocksdict's `Rdict`, its log not synced: as segq's default durability has it."""

    version: str
    in_blocks: bool = False
    survives: str = "what was put, but not a queue"

    @property
    def name(self) -> str:
        return "RocksDB puts of blocks" if self.in_blocks else "RocksDB puts"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        return _Ticket(str(directory / "rocksdb"), self.in_blocks)


def _of(*, in_blocks: bool) -> RocksdbPut:
    try:
        import rocksdict  # noqa: F401 - whether it can be
    except ImportError as error:
        raise UnavailableError(f"rocksdict is not installed ({error}): pip install rocksdict") from error
    return RocksdbPut(version("rocksdict"), in_blocks=in_blocks)


def adapter() -> RocksdbPut:
    return _of(in_blocks=False)


def blocks() -> RocksdbPut:
    return _of(in_blocks=True)
