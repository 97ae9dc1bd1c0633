"""Workloads within one process, where RocksQ and persist-queue know no other way; and what these publish of themselves."""

from __future__ import annotations

from benchmarks.programme.contestants import (
    LARGE,
    MIDDLE,
    PERSIST_QUEUE,
    ROCKSQ,
    SEGQ,
    SMALL,
    at_least,
    durable,
    others,
    segq_as,
)
from benchmarks.workloads import Entrant, Workload
from benchmarks.workloads.alone import Alone
from benchmarks.workloads.published import Bench, Pushed

_alone = tuple(
    Alone(
        name=name,
        title=f"all put, then all taken by one process, {what}",
        payload=payload,
        entrants=(segq_as(mode=mode), *others([ROCKSQ], mode=mode), *durable(persistent)),
        items=items,
        targets=(*at_least(least, ROCKSQ), *at_least(50, *persistent)),
    )
    for name, what, payload, mode, persistent, items, least in (
        ("alone", "100 B", SMALL, "single", PERSIST_QUEUE, lambda scale: scale.single, 4),
        ("alone-batch", "a thousand of 100 B at a time", SMALL, "batch", (), lambda scale: scale.single, 8),
        ("alone-1KiB", "1 KiB", MIDDLE, "single", (), lambda scale: scale.single // 4, 4),
        ("alone-1MiB", "1 MiB", LARGE, "single", (), lambda scale: scale.large, 3),
    )
)

_rocksq_scripts = tuple(
    Pushed(
        name=f"rocksq-{name}",
        title=f"RocksQ's own scripts: {what}, one process, written then read, and mixed",
        size=size,
        items=items,
        entrants=tuple(
            entrant
            for mode in ("written then read", "mixed")
            for entrant in (
                segq_as(f"{SEGQ}, {mode}", mode=mode),
                Entrant(label=f"{ROCKSQ}, {mode}", adapter=ROCKSQ, mode=mode),
            )
        ),
        targets=tuple(
            target
            for mode in ("written then read", "mixed")
            for target in at_least(least, f"{ROCKSQ}, {mode}", of=f"{SEGQ}, {mode}")
        ),
    )
    for name, what, size, items, least in (
        ("small", "small items (the number in ASCII)", 0, lambda scale: scale.published, 4),
        ("1KiB", "1 KiB", MIDDLE.size, lambda scale: scale.published, 4),
        ("1MiB", "1 MiB", LARGE.size, lambda scale: scale.published_large, 3),
    )
)

_persist_queue_cases = tuple(
    Bench(
        name=f"persist-queue-{name}",
        title=f"persist-queue's own benchmark: a queue opened, short strings {what}, one process",
        read=read,
        entrants=(
            Entrant(label=SEGQ, adapter="segq, not yet made", mode="segq"),
            *(
                Entrant(label=f"persist-queue, {kind}", adapter=f"persist-queue, {adapter}", mode="persistqueue")
                for kind, adapter in (
                    ("SQLite, transaction", "SQLite"),
                    ("SQLite, bulk", "SQLite, bulk"),
                    ("file, transaction", "file, task_done"),
                    ("file, bulk", "file, bulk"),
                )
            ),
        ),
        targets=(),
    )
    for name, what, read in (("write", "written", False), ("write-read", "written and read", True))
)

WORKLOADS: tuple[Workload, ...] = (*_alone, *_rocksq_scripts, *_persist_queue_cases)
