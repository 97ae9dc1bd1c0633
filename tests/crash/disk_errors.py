"""Lets one disk operation after the other fail: `python disk_errors.py PLACE SCENARIO ERROR FIRST STEP`.

The operations are those of `os`, `mmap` and RocksDB that segq's modules call; each fails once, with what the disk or the
kernel would say, and works from then on. Whatever then raises has to be a `QueueError`; what was acknowledged has to be there,
what failed must not be, and the handle has to go on. Prints the operation of each failure that this is not true of.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from accounts import Report, close_account, item, item_id

import segq
import segq._core.directory.owners
import segq._core.segment.batch
import segq._core.segment.rocksdb
import segq._core.system.fs

OPERATIONS = {
    "open",
    "mkdir",
    "rename",
    "ftruncate",
    "posix_fallocate",
    "fsync",
    "write",
    "pwrite",
    "pread",
    "unlink",
    "listdir",
    "scandir",
}
SETTINGS: dict[str, Any] = {"segment_items": 12}


class Disk:
    """Counts operations and fails the one that is `failing`."""

    def __init__(self) -> None:
        self.failing = 0
        self.error = errno.ENOSPC
        self.failed: str | None = None
        self.count = 0

    def begin(self, failing: int, error: int) -> None:
        self.failing, self.error, self.count, self.failed = failing, error, 0, None

    def asked(self, operation: str) -> bool:
        self.count += 1
        if self.count != self.failing:
            return False
        caller = sys._getframe(2)
        while "segq" + os.sep not in caller.f_code.co_filename and caller.f_back:
            caller = caller.f_back
        self.failed = f"{operation} in {os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno} {caller.f_code.co_name}"
        return True


DISK = Disk()


class FailingModule:
    """`os` or `mmap`, with some functions that may fail."""

    def __init__(self, module: Any, names: set[str]) -> None:
        self.__dict__["_module"] = module
        for name in names:
            self.__dict__[name] = self._guarded(name, getattr(module, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    @staticmethod
    def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            if DISK.asked(name):
                raise OSError(DISK.error, os.strerror(DISK.error))
            return function(*arguments, **options)

        return guarded


class FailingRdict:
    """RocksDB, whose opening and writing may fail; after a failed write it refuses every other, as the real one does."""

    def __init__(self, path: str, options: Any, access_type: Any) -> None:
        self._broken = False
        self._ask("RocksDB open")
        self._real = REAL_RDICT(path, options, access_type=access_type)

    def _ask(self, operation: str) -> None:
        if self._broken or DISK.asked(operation):
            self._broken = operation != "RocksDB open"
            raise Exception(f"IO error: {os.strerror(DISK.error)}: While appending to file: x.log")  # noqa: TRY002  # as rocksdict does

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._ask("RocksDB write")
        self._real[key] = value

    def put(self, *arguments: Any, **options: Any) -> None:
        self._ask("RocksDB write")
        self._real.put(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


REAL_RDICT: Any = segq._core.segment.rocksdb.Rdict


def install() -> None:
    segq._core.segment.rocksdb.Rdict = FailingRdict  # type: ignore[misc,assignment]
    for module in (segq._core.system.fs, segq._core.directory.owners, segq._core.segment.blob):
        module.os = FailingModule(os, OPERATIONS)  # type: ignore[attr-defined]
    for module in (segq._core.system.fs, segq._core.segment.batch):
        module.mmap = FailingModule(mmap, {"mmap"})  # type: ignore[attr-defined]


# --- what is done while something fails -------------------------------------------------------------------------------


class Work:
    """A user who goes on after every error of the queue, and opens it again if it cannot be opened."""

    def __init__(self, path: Path, report: Report, settings: dict[str, Any]) -> None:
        self.path, self.report, self.settings = path, report, settings
        self.handles = self.number = self.failures = 0
        self.queue = self.open()

    def open(self) -> segq.Queue:
        self.handles += 1
        queue = self.trying(lambda: segq.Queue(self.path, **self.settings))
        self.queue = queue or segq.Queue(self.path, **self.settings)
        return self.queue

    def trying(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except segq.Empty:
            raise
        except segq.QueueError:
            self.failures += 1
            assert self.failures < 20, "the queue does not recover"
            return None

    def put(self, count: int, size: int = 0, *, many: bool = False) -> None:
        ids = [item_id(f"w.{self.handles}", self.number + n, size) for n in range(count)]
        self.number += count
        for some in [ids] if many else [[identity] for identity in ids]:
            self.report.say("begun", *some)
            try:
                self.queue.put_many([item(i) for i in some]) if many else self.queue.put(item(some[0]))
            except segq.QueueError:
                self.report.say("failed", *some)
                self.trying(lambda: None)
            else:
                self.report.say("stored", *some)

    def take(self, count: int) -> None:
        for _ in range(count):
            self.trying(lambda: self.report.get(self.queue, timeout=5))
            self.trying(lambda: self.report.get(self.queue, 3, timeout=5))
            for message in self.trying(lambda: self.report.receive(self.queue, 2, timeout=5)) or ():
                self.trying(lambda m=message: self.report.ack(m))
            for message in self.trying(lambda: self.report.receive(self.queue, 1, timeout=5)) or ():
                self.trying(lambda m=message: self.report.nack(m))

    def reopen(self) -> None:
        self.trying(self.queue.close)
        self.open()


def producing(work: Work) -> None:
    work.put(5)
    work.put(4, 70_000, many=True)
    work.put(1)
    work.put(14, 20_000, many=True)
    work.put(2)
    work.reopen()
    work.put(2)
    work.put(14, many=True)
    work.put(14, 30_000)


def consuming(work: Work) -> None:
    work.put(20)
    work.put(5, 70_000, many=True)
    work.reopen()
    work.put(9)
    work.take(4)
    work.put(2)
    work.take(1)


SCENARIOS: dict[str, Callable[[Work], None]] = {f.__name__: f for f in (producing, consuming)}


def run(place: Path, scenario: str, settings: dict[str, Any], failing: int, error: int) -> bool:
    """False if the scenario has fewer operations than `failing`. Fails if the account does not close."""
    place.mkdir(parents=True)
    report = Report(place / "work.report")
    DISK.begin(failing, error)
    work = Work(place / "queue", report, settings)
    SCENARIOS[scenario](work)
    work.trying(work.queue.close)
    failed = DISK.failed
    DISK.failing = 0
    report.end()
    close_account(place / "queue", [report.path])
    return failed is not None


def failures(place: Path, scenario: str, settings: dict[str, Any], error: int, first: int, step: int) -> Iterator[str]:
    at = first
    while True:
        try:
            if not run(place / str(at), scenario, settings, at, error):
                return
        except BaseException:
            yield f"operation {at}, {DISK.failed}:\n{traceback.format_exc()}"
            if DISK.failed is None:
                return
        else:
            shutil.rmtree(place / str(at))
        at += step


def main(place: str, scenario: str, durability: str, error: str, first: str, step: str) -> None:
    install()
    found = 0
    settings = SETTINGS | {"durability": durability}
    for text in failures(Path(place), scenario, settings, getattr(errno, error), int(first), int(step)):
        found += 1
        print(text, flush=True)
    sys.exit(f"{found} errors were not survived" if found else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
