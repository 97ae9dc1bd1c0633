"""The programme: every workload, who enters it, and what has to come out."""

from __future__ import annotations

from benchmarks.adapters import Settings
from benchmarks.payload import BytesPayload, DictPayload
from benchmarks.target import Target
from benchmarks.workloads.alone import Alone
from benchmarks.workloads.backlog import Backlog
from benchmarks.workloads.ceiling import Ceiling
from benchmarks.workloads.contract import Arena, Entrant, Repetition, Workload
from benchmarks.workloads.fanout import FanOut
from benchmarks.workloads.idle import Idle
from benchmarks.workloads.latency import Latency
from benchmarks.workloads.transfer import Transfer
from benchmarks.workloads.watched import Watched

__all__ = ["WORKLOADS", "Arena", "Entrant", "Repetition", "Workload"]

SEGQ, PEER, PLAIN, SYNCED = "segq", "multiprocessing.Queue", "plain write", "plain write, synced"
SMALL, MIDDLE, LARGE = BytesPayload(100), BytesPayload(1 << 10), BytesPayload(1 << 20)
RAW = Settings(serializer="raw")
FAR_FROM_FULL = 1 << 30
LABELS = (1, 2, 8)
IN_MEMORY = ("multiprocessing.SimpleQueue", "faster-fifo")
IN_BATCHES = ("faster-fifo", "nque", "turbo-queue")
DURABLE = ("litequeue", "diskcache.Deque", "localqueue", "nque")
ROCKSQ = "RocksQ"
PERSIST_QUEUE = ("persist-queue, file", "persist-queue, SQLite", "persist-queue, SQLite ack")

peer = Entrant(label=PEER, adapter=PEER)
segq = Entrant(label=SEGQ, adapter=SEGQ, settings=RAW)

_programme: tuple[Workload, ...] = (
    Transfer(
        name="single",
        title="put → get, one item at a time, 1 producer, 1 consumer, 100 B",
        payload=SMALL,
        entrants=(segq, peer),
        items=lambda scale: scale.single,
        targets=(Target(metric="rate", of=SEGQ, against=PEER, at_least=2.5),),
    ),
    Transfer(
        name="single-4x4",
        title="put → get, one item at a time, 4 producers, 4 consumers, 100 B",
        payload=SMALL,
        producers=4,
        consumers=4,
        entrants=(segq, peer),
        items=lambda scale: scale.single,
        targets=(Target(metric="rate", of=SEGQ, against=PEER, at_least=2),),
    ),
    Transfer(
        name="batch",
        title="put_many(1000) → get_many(1000), against single items, 100 B",
        payload=SMALL,
        entrants=(Entrant(label=SEGQ, adapter=SEGQ, settings=RAW, mode="batch", items=lambda scale: scale.batch), peer),
        items=lambda scale: scale.single,
        targets=(Target(metric="rate", of=SEGQ, against=PEER, at_least=5),),
    ),
    Transfer(
        name="peers",
        title="single, beside other queues for processes",
        payload=SMALL,
        entrants=(
            segq,
            peer,
            *(Entrant(label=name, adapter=name) for name in (*IN_MEMORY, "turbo-queue")),
            *(Entrant(label=name, adapter=name, items=lambda scale: scale.durable) for name in DURABLE),
        ),
        items=lambda scale: scale.single,
        targets=(
            *(Target(metric="rate", of=SEGQ, against=name, at_least=1) for name in (*IN_MEMORY, "turbo-queue")),
            *(Target(metric="rate", of=SEGQ, against=name, at_least=50) for name in DURABLE),
        ),
    ),
    Transfer(
        name="peers-batch",
        title="a thousand at a time, beside other queues for processes",
        payload=SMALL,
        entrants=(
            Entrant(label=SEGQ, adapter=SEGQ, settings=RAW, mode="batch", items=lambda scale: scale.batch),
            *(Entrant(label=name, adapter=name, mode="batch") for name in IN_BATCHES[:-1]),
            Entrant(label=IN_BATCHES[-1], adapter=IN_BATCHES[-1]),  # batches of its own making
        ),
        items=lambda scale: scale.single,
        targets=tuple(Target(metric="rate", of=SEGQ, against=name, at_least=4) for name in IN_BATCHES),
    ),
    Latency(
        name="latency",
        title="from put to a waiting get, one item a millisecond, 100 B",
        payload=SMALL,
        entrants=(segq, peer),
        targets=(
            Target(metric="p50", of=SEGQ, against=PEER, at_most=1.2),
            Target(metric="p99", of=SEGQ, against=PEER, at_most=1.2),
        ),
    ),
    Ceiling(
        name="large",
        title="put → get of 1 MiB items, against plain writes of the same bytes",
        payload=LARGE,
        entrants=(
            segq,
            Entrant(label=PLAIN, adapter=PLAIN, mode="write only"),
            Entrant(label=SYNCED, adapter=SYNCED, mode="write only"),
            peer,
        ),
        items=lambda scale: scale.large,
        targets=(
            Target(metric="bandwidth", of=SEGQ, against=PLAIN, at_least=0.6),
            Target(metric="written_ratio", of=SEGQ, at_most=1.15),
        ),
    ),
    Backlog(
        name="backlog",
        title="all put, then all taken, 100 B",
        payload=SMALL,
        entrants=(
            Entrant(label="segq, short", adapter=SEGQ, settings=RAW, mode="many", items=lambda scale: scale.backlog_small),
            Entrant(label="segq, long", adapter=SEGQ, settings=RAW, items=lambda scale: scale.backlog_large),
        ),
        targets=(
            Target(metric="put_rate", of="segq, long", against="segq, short", at_least=0.85),
            Target(metric="get_rate", of="segq, long", against="segq, short", at_least=0.85),
            Target(metric="consumer_peak", of="segq, long", at_most=100),
        ),
    ),
    Transfer(
        name="acked",
        title="put → receive and ack of each, 100 B",
        payload=SMALL,
        entrants=(Entrant(label=SEGQ, adapter=SEGQ, settings=RAW, mode="acked"), peer),
        items=lambda scale: scale.single,
        targets=(Target(metric="rate", of=SEGQ, against=PEER, at_least=2),),
    ),
    Transfer(
        name="capacity",
        title="put → get with a capacity set and far from full, 100 B",
        payload=SMALL,
        entrants=(
            Entrant(label="segq, bounded", adapter=SEGQ, settings=Settings(serializer="raw", capacity=FAR_FROM_FULL)),
            segq,
        ),
        items=lambda scale: scale.single,
        targets=(Target(metric="rate", of="segq, bounded", against=SEGQ, at_least=0.85),),
    ),
    Watched(
        name="watched",
        title="put → get while `segq watch` looks at the queue once a second, 100 B",
        payload=SMALL,
        entrants=(Entrant(label="segq, watched", adapter=SEGQ, settings=RAW, mode="watched"), segq),
        items=lambda scale: scale.batch,
        targets=(
            Target(metric="rate", of="segq, watched", against=SEGQ, at_least=0.95),
            Target(metric="producer_cpu", of="segq, watched", against=SEGQ, at_most=1.1),
            Target(metric="consumer_cpu", of="segq, watched", against=SEGQ, at_most=1.1),
        ),
    ),
    Transfer(
        name="dicts",
        title="put → get of small dicts, each with its default serializer",
        payload=DictPayload(),
        entrants=(Entrant(label=SEGQ, adapter=SEGQ), peer),
        items=lambda scale: scale.single,
        targets=(Target(metric="rate", of=SEGQ, against=PEER, at_least=2),),
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
            *(Target(metric="rate", of=f"segq, {n}", against=f"RocksQ, {n}", at_least=5) for n in LABELS[:1]),
            Target(metric="producer_cpu", of=f"segq, {LABELS[-1]}", against=f"segq, {LABELS[0]}", at_most=1.1),
        ),
    ),
    *(
        Alone(
            name=name,
            title=f"all put, then all taken by one process, {what}",
            payload=payload,
            entrants=(
                Entrant(label=SEGQ, adapter=SEGQ, settings=RAW, mode=mode),
                Entrant(label=ROCKSQ, adapter=ROCKSQ, mode=mode),
                *(Entrant(label=other, adapter=other, items=lambda scale: scale.durable) for other in others),
            ),
            items=items,
            targets=(Target(metric="rate", of=SEGQ, against=ROCKSQ, at_least=least),),
        )
        for name, what, payload, mode, others, items, least in (
            ("alone", "100 B", SMALL, "single", PERSIST_QUEUE, lambda scale: scale.single, 4),
            ("alone-batch", "a thousand of 100 B at a time", SMALL, "batch", (), lambda scale: scale.single, 8),
            ("alone-1KiB", "1 KiB", MIDDLE, "single", (), lambda scale: scale.single // 4, 4),
            ("alone-1MiB", "1 MiB", LARGE, "single", (), lambda scale: scale.large, 3),
        )
    ),
    Idle(
        name="idle",
        title="consumers waiting on an empty queue",
        entrants=(segq, peer),
        targets=(Target(metric="idle_cpu", of=SEGQ, at_most=1),),
    ),
)

WORKLOADS = {workload.name: workload for workload in _programme}
