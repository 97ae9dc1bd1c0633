"""Workloads that ask for something else than how many items a second: how soon, how fair, how large, how idle."""

from __future__ import annotations

from benchmarks.programme.contestants import (
    ANY_SIZE,
    FASTER_FIFO,
    IN_MEMORY,
    NQUE,
    PEER,
    RAW,
    ROCKSQ,
    SEGQ,
    SIMPLE,
    SMALL,
    at_least,
    durable,
    others,
    peer,
    segq,
    segq_as,
)
from benchmarks.target import Target
from benchmarks.workloads import Entrant, Workload
from benchmarks.workloads.backlog import Backlog
from benchmarks.workloads.burst import Burst
from benchmarks.workloads.fairness import Fairness
from benchmarks.workloads.fanout import FanOut
from benchmarks.workloads.idle import Idle
from benchmarks.workloads.latency import Latency
from benchmarks.workloads.memory import Memory
from benchmarks.workloads.startup import Startup
from benchmarks.workloads.watched import Watched

SHORT, TENTH, LONG = "segq, short", "segq, a tenth", "segq, long"
LABELS = (1, 2, 8)
MODULES = {
    "litequeue": "litequeue",
    "diskcache.Deque": "diskcache",
    "localqueue": "localqueue",
    NQUE: "nque",
    "persist-queue, SQLite": "persistqueue",
    ROCKSQ: "rocksq.blocking",
    FASTER_FIFO: "faster_fifo",
    SIMPLE: "multiprocessing.queues",
}

_latency_targets = tuple(Target(metric=metric, of=SEGQ, against=PEER, at_most=1) for metric in ("p50", "p99"))

WORKLOADS: tuple[Workload, ...] = (
    Latency(
        name="latency-100",
        title="from put to a waiting get, 100 items a second, 100 B",
        payload=SMALL,
        period=10_000_000,
        few=True,
        entrants=(segq, peer, *others(IN_MEMORY)),
        items=lambda scale: scale.latency_slow,
        targets=_latency_targets,
    ),
    Latency(
        name="latency",
        title="from put to a waiting get, 1,000 items a second, 100 B",
        payload=SMALL,
        entrants=(segq, peer),
        items=lambda scale: scale.latency,
        targets=_latency_targets,
    ),
    Latency(
        name="latency-10k",
        title="from put to a waiting get, 10,000 items a second, 100 B",
        payload=SMALL,
        period=100_000,
        entrants=(segq, peer, *others(IN_MEMORY)),
        items=lambda scale: scale.latency_fast,
        targets=_latency_targets,
    ),
    Fairness(
        name="fairness",
        title="200 tasks of mixed length, 4 workers: the time of all against the ideal",
        payload=SMALL,
        entrants=(segq, segq_as("segq, acked", mode="acked"), peer, *others(IN_MEMORY)),
        targets=tuple(Target(metric="against_ideal", of=label, at_most=1.1) for label in (SEGQ, "segq, acked")),
    ),
    Burst(
        name="burst",
        title="bursts to a sleeping consumer: the time until each is drained, 100 B",
        payload=SMALL,
        entrants=(segq, peer, *others(IN_MEMORY)),
        targets=(),
    ),
    Backlog(
        name="backlog",
        title="all put, then all taken, 100 B",
        payload=SMALL,
        entrants=(
            segq_as(SHORT, mode="many", items=lambda scale: scale.backlog_small),
            segq_as(TENTH, items=lambda scale: scale.backlog_large // 10),
            segq_as(LONG, items=lambda scale: scale.backlog_large),
        ),
        targets=(
            *at_least(0.85, SHORT, metric="put_rate", of=LONG),
            *at_least(0.85, SHORT, metric="get_rate", of=LONG),
            Target(metric="consumer_peak", of=LONG, at_most=100),
        ),
    ),
    Memory(
        name="memory",
        title="peak memory of both sides with a backlog, 100 B (who commits each item: a smaller one)",
        payload=SMALL,
        entrants=(segq, peer, *durable(ANY_SIZE)),
        targets=(),
    ),
    Startup(
        name="startup",
        title="a process that lives for one item: import, open, put, get, close",
        payload=SMALL,
        entrants=(
            segq_as(mode="segq"),
            Entrant(label=PEER, adapter=PEER, mode="multiprocessing.queues"),
            *(Entrant(label=name, adapter=name, mode=module) for name, module in MODULES.items()),
        ),
        targets=(),
    ),
    FanOut(
        name="fan-out",
        title="put_many(1000) → get_many(1000) of each label, 100 B",
        payload=SMALL,
        entrants=(
            *(Entrant(label=f"segq, {n}", adapter="segq topic", settings=RAW, mode=f"{n}") for n in LABELS),
            *(Entrant(label=f"RocksQ, {n}", adapter="RocksQ MpmcQueue", mode=f"{n}") for n in LABELS),
        ),
        targets=(
            *at_least(5, f"RocksQ, {LABELS[0]}", of=f"segq, {LABELS[0]}"),
            Target(metric="producer_cpu", of=f"segq, {LABELS[-1]}", against=f"segq, {LABELS[0]}", at_most=1.1),
        ),
    ),
    Watched(
        name="watched",
        title="put → get while `segq watch` looks at the queue once a second, 100 B",
        payload=SMALL,
        entrants=(Entrant(label="segq, watched", adapter=SEGQ, settings=RAW, mode="watched"), segq),
        items=lambda scale: scale.batch,
        targets=(
            *at_least(0.95, SEGQ, of="segq, watched"),
            Target(metric="producer_cpu", of="segq, watched", against=SEGQ, at_most=1.1),
            Target(metric="consumer_cpu", of="segq, watched", against=SEGQ, at_most=1.1),
        ),
    ),
    Idle(
        name="idle",
        title="consumers waiting on an empty queue",
        entrants=(segq, peer),
        targets=(Target(metric="idle_cpu", of=SEGQ, at_most=1),),
    ),
)
