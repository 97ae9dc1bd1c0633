"""What others publish of themselves, by their own rules, beside segq: one process, the clock around all of the loop.

RocksQ's scripts (`python/persistent_queue_blocking_*.py` in its repository): item *i* is made within the loop; one is pushed,
one is popped and compared; "written then read" or "mixed", each item popped right after its push. The queue is open when the
clock starts.

persist-queue's `benchmark/run_benchmark.py`: the clock runs from before the queue is opened; strings; "transaction" commits
each item, "bulk" all of them at once; written, or written and then read. Its file queue commits with `task_done`, its SQLite
queue by itself unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from benchmarks.account import AccountError
from benchmarks.adapters import Ticket
from benchmarks.crew import StartLine, clock
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.workloads.contract import Arena, Entrant, Repetition
from benchmarks.workloads.transfer import offered


def push_and_pop(line: StartLine, ticket: Ticket, mixed: bool, size: int, count: int) -> int:
    """Nanoseconds of RocksQ's loops, with items of `size` bytes or, if that is 0, of the number alone."""
    handle = ticket.open()
    put, get = handle.put, offered(handle.get)
    line.cross()
    began = clock()
    if mixed:
        for number in range(count):
            item = b"%d" % number if not size else b"%0*d" % (size, number)
            put(item)
            _compare(get(), item)
    else:
        for number in range(count):
            put(b"%d" % number if not size else b"%0*d" % (size, number))
        for number in range(count):
            _compare(get(), b"%d" % number if not size else b"%0*d" % (size, number))
    elapsed = clock() - began
    handle.close()
    return elapsed


def _compare(found: bytes, expected: bytes) -> None:
    if found != expected:
        raise AccountError(f"{expected[:20]!r} was put, {found[:20]!r} came")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """RocksQ's; an entrant of mode "mixed" pops each item right after its push."""

    name: str
    title: str
    size: int
    items: Callable[[Scale], int]
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    columns: Sequence[str] = ("rate",)

    def repetitions(self, scale: Scale) -> int:
        return scale.published_repetitions

    def footprint(self, scale: Scale) -> int:
        return 2 * self.items(scale) * max(self.size, 100)

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        count = self.items(arena.scale)
        ticket = entrant.prepare(arena.directory)
        with arena.crew(1) as crew:
            work = (ticket, entrant.mode == "mixed", self.size, count)
            elapsed: int = crew.result(crew.start("process", push_and_pop, *work))
        return Repetition(metrics={"rate": count / elapsed * 1e9}, account={"put": count, "got": count})


def open_and_write(line: StartLine, ticket: Ticket, module: str, read: bool, count: int) -> int:
    """Nanoseconds of persist-queue's loops, the opening included."""
    import_module(module)
    line.cross()
    began = clock()
    handle = ticket.open()
    put, get = handle.put, offered(handle.get)
    for number in range(count):
        put(f"bench{number}")
    if handle.commit is not None:
        handle.commit()
    found = [get() for _ in range(count)] if read else []
    elapsed = clock() - began
    handle.close()
    if read and found != [f"bench{number}" for number in range(count)]:
        raise AccountError("what was read is not what was written")
    return elapsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """persist-queue's; an entrant's mode is the module that its user imports."""

    name: str
    title: str
    read: bool
    entrants: Sequence[Entrant]
    targets: Sequence[Target]
    columns: Sequence[str] = ("milliseconds",)

    def repetitions(self, scale: Scale) -> int:
        return scale.few

    def footprint(self, scale: Scale) -> int:  # noqa: ARG002
        return 0

    def run(self, entrant: Entrant, arena: Arena) -> Repetition:
        count = arena.scale.persist
        ticket = entrant.prepare(arena.directory)
        with arena.crew(1) as crew:
            elapsed: int = crew.result(crew.start("process", open_and_write, ticket, entrant.mode, self.read, count))
        return Repetition(
            metrics={"milliseconds": elapsed / 1e6}, account={"put": count, "got": count} if self.read else {"put": count}
        )
