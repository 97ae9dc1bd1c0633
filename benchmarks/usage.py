"""What a process used, as the kernel accounts for it.

`write_bytes` of ``/proc/self/io`` counts bytes at the moment a page of a file becomes dirty, whichever thread of the
process dirtied it (RocksDB's too) and however (stores into mapped files too); a page dirtied, written out and dirtied
again counts twice. `cancelled_write_bytes` counts dirty pages whose file was deleted before they reached the disk: it
is reported apart and never subtracted, so what is reported is an upper bound of what the disk saw. The file system's
own journal is in neither.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_CPUCLOCK_SCHED = 2  # include/linux/posix-timers.h: the precise CPU clock of a whole process


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Bytes this process has dirtied so far, and those of them that were cancelled; None where not accounted."""

    dirtied: int
    cancelled: int

    @classmethod
    def so_far(cls) -> Written | None:
        fields = _fields(Path("/proc/self/io"))
        if "write_bytes" not in fields:
            return None
        return cls(dirtied=int(fields["write_bytes"]), cancelled=int(fields["cancelled_write_bytes"]))


def total_written(counts: Iterable[Written | None]) -> Written | None:
    """The sum over processes; None if any of them could not tell."""
    total = Written(dirtied=0, cancelled=0)
    for each in counts:
        if each is None:
            return None
        total = Written(dirtied=total.dirtied + each.dirtied, cancelled=total.cancelled + each.cancelled)
    return total


def peak_memory() -> float | None:
    """The most memory this process ever had resident, mapped files included, in MiB (VmHWM)."""
    kilobytes = _fields(Path("/proc/self/status")).get("VmHWM")
    return None if kilobytes is None else int(kilobytes.split()[0]) / 1024


def cpu_of(pid: int) -> float:
    """CPU seconds of another process of ours, all its threads, to the nanosecond (Linux)."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def _fields(path: Path) -> Mapping[str, str]:
    try:
        text = path.read_text()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
