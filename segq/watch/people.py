"""The processes that have a queue open: who they are, what they hold, how busy they are."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections import Counter

import psutil

from segq._core.directory import owners
from segq._core.directory.owners import OwnerRecord
from segq._core.format import format as fmt
from segq._core.format.format import OwnerWord
from segq._core.system.mapped import MappedFile
from segq.watch.snapshot import ProcessView
from segq.watch.totals import HandleKey

_SAME_START = 1.0  # seconds by which two readings of a process's start time may differ (its clock ticks, the clock is set)


@dataclasses.dataclass(slots=True)
class Handle:
    """One open handle, as its owner's file and words describe it."""

    record: OwnerRecord
    puts: int
    gets: int = 0
    alive: bool = True

    @property
    def key(self) -> HandleKey:
        return self.record.slot, self.record.opened


class People:
    """All handles of a queue, look after look, and their processes."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._records: dict[int, tuple[tuple[int, int], OwnerRecord]] = {}
        self._processes: dict[tuple[int, float], psutil.Process | None] = {}
        self._measured: set[tuple[int, float]] = set()
        self._before: dict[HandleKey, tuple[int, int]] = {}

    def look(self, index: MappedFile | None) -> list[Handle]:
        """Who has the queue open, and what they have put. To be called before the ledgers are read, `look_after` after it.

        So nothing counts as put that is not found stored or gone, and nothing as acknowledged that was not handed out.
        """
        handles = []
        records: dict[int, tuple[tuple[int, int], OwnerRecord]] = {}
        for slot in owners.slots(self._queue):
            try:
                status = os.stat(os.path.join(self._queue, fmt.OWNERS_DIR, fmt.slot_name(slot)))
            except OSError:
                continue
            version = (status.st_ino, status.st_mtime_ns)
            known = self._records.get(slot)
            record = known[1] if known is not None and known[0] == version else owners.record(self._queue, slot)
            if record is None or not math.isfinite(record.started + record.opened):
                continue
            records[slot] = (version, record)
            handles.append(Handle(record, _word(index, slot, OwnerWord.PUTS)))
        self._records = records
        return handles

    def look_after(self, handles: list[Handle], index: MappedFile | None) -> None:
        """What they have been handed."""
        for handle in handles:
            slot = handle.record.slot
            handle.gets = _word(index, slot, OwnerWord.GETS) + _word(index, slot, OwnerWord.RECEIVES)

    def processes(
        self, handles: list[Handle], holders: Counter[int], loading: set[int], interval: float | None
    ) -> tuple[ProcessView, ...]:
        """The handles by process; `holders`: what each slot has in hand, `loading`: the slots that have a segment in hand."""
        by_process: dict[tuple[int, float], list[Handle]] = {}
        for handle in handles:
            handle.alive = owners.is_alive(self._queue, handle.record.slot)
            by_process.setdefault((handle.record.pid, handle.record.started), []).append(handle)
        self._processes = {who: self._processes[who] if who in self._processes else _found(*who) for who in by_process}
        self._measured &= by_process.keys()
        views = [self._view(who, group, holders, loading, interval) for who, group in by_process.items()]
        self._before = {handle.key: (handle.puts, handle.gets) for handle in handles}
        return tuple(sorted(views, key=lambda view: (view.started, view.pid)))

    def _view(
        self, who: tuple[int, float], group: list[Handle], holders: Counter[int], loading: set[int], interval: float | None
    ) -> ProcessView:
        put = get = 0
        for handle in group:
            puts, gets = self._before.get(handle.key, (0, 0))
            put += max(0, handle.puts - puts)
            get += max(0, handle.gets - gets)
        slots = [handle.record.slot for handle in group]
        cpu, memory = self._load(who)
        gets = sum(handle.gets for handle in group)
        holds = sum(holders[slot] for slot in slots)
        return ProcessView(
            pid=who[0],
            command=group[0].record.command,
            started=who[1],
            alive=any(handle.alive for handle in group),
            handles=len(group),
            producing=any(handle.puts for handle in group) or bool(loading.intersection(slots)),
            consuming=bool(gets or holds),
            holds=holds,
            puts=sum(handle.puts for handle in group),
            gets=gets,
            put_rate=put / interval if interval else 0.0,
            get_rate=get / interval if interval else 0.0,
            cpu=cpu,
            memory=memory,
        )

    def _load(self, who: tuple[int, float]) -> tuple[float | None, int | None]:
        """(parts of a processor since the last look, resident bytes)"""
        found = self._processes[who]
        if found is not None:
            with contextlib.suppress(psutil.Error), found.oneshot():
                cpu, memory = found.cpu_percent() / 100, int(found.memory_info().rss)
                first = who not in self._measured  # there is nothing yet that it would be measured from
                self._measured.add(who)
                return None if first else cpu, memory
        return None, None


def _found(pid: int, started: float) -> psutil.Process | None:
    """The process of that number, if it is the one that wrote the record and not another's, or another container's."""
    with contextlib.suppress(psutil.Error, ValueError, OverflowError):  # whoever can write there can claim any number
        found = psutil.Process(pid)
        if abs(found.create_time() - started) < _SAME_START:
            return found
    return None


def _word(index: MappedFile | None, slot: int, word: OwnerWord) -> int:
    """What the handle that has a slot counts; 0 without an index."""
    return index.words[(fmt.PAGE + slot * fmt.OWNER_SIZE) // 8 + word] if index is not None else 0
