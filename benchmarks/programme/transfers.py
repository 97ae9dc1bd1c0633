"""Workloads in which some processes put while others take."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.adapters import Settings
from benchmarks.payload import BytesPayload, DictPayload
from benchmarks.programme.contestants import (
    ANY_SIZE,
    DURABLE,
    FASTER_FIFO,
    IN_MEMORY,
    LARGE,
    MIDDLE,
    NQUE,
    PEER,
    ROCKSQ,
    SEGQ,
    SMALL,
    TURBO_QUEUE,
    at_least,
    durable,
    others,
    peer,
    segq,
    segq_as,
)
from benchmarks.scale import Scale
from benchmarks.target import Target
from benchmarks.workloads import Entrant, Workload
from benchmarks.workloads.alone import Beside
from benchmarks.workloads.ceiling import WRITE_ONLY, Ceiling
from benchmarks.workloads.transfer import Transfer

PLAIN, SYNCED = "plain write", "plain write, synced"
PUTS, BLOCKS = "RocksDB puts", "RocksDB puts of blocks"
FAR_FROM_FULL = 1 << 30
CROWDS = ((2, 2), (1, 8), (8, 1), (16, 16))


def _singles(scale: Scale) -> int:
    return scale.single


def _batches(scale: Scale) -> int:
    return scale.batch


def _large(scale: Scale) -> int:
    return scale.large


def _crowd(label: str, adapter: Entrant) -> tuple[Entrant, ...]:
    return tuple(
        Entrant(
            label=f"{label}, {producers}x{consumers}",
            adapter=adapter.adapter,
            settings=adapter.settings,
            producers=producers,
            consumers=consumers,
        )
        for producers, consumers in CROWDS
    )


def _of_batches(size: int) -> Transfer:
    """Smaller batches beside the peers that have them; a thousand at a time is the workload `peers-batch`."""
    return Transfer(
        name=f"batch-{size}",
        title=f"put_many({size}) → get_many({size}), beside others that have batches, 100 B",
        payload=SMALL,
        few=True,
        entrants=(
            segq_as(mode="batch", batch=size),
            peer,
            *others([FASTER_FIFO], mode="batch", batch=size),
            *durable([NQUE], mode="batch", batch=size),
        ),
        items=_singles,
        targets=(),
    )


def _of_size(name: str, size: int, items: Callable[[Scale], int], share: int) -> Transfer:
    return Transfer(
        name=f"size-{name.replace(' ', '')}",
        title=f"single, {name} an item",
        payload=BytesPayload(size),
        few=True,
        entrants=(segq, peer, *others(IN_MEMORY), *durable(ANY_SIZE, share)),
        items=items,
        targets=(),
        columns=("rate", "bandwidth", "producer_cpu", "consumer_cpu", "written_ratio"),
    )


WORKLOADS: tuple[Workload, ...] = (
    Transfer(
        name="single",
        title="put → get, one item at a time, 1 producer, 1 consumer, 100 B",
        payload=SMALL,
        entrants=(segq, peer),
        items=_singles,
        targets=at_least(3, PEER),
    ),
    Transfer(
        name="single-4x4",
        title="put → get, one item at a time, 4 producers, 4 consumers, 100 B",
        payload=SMALL,
        producers=4,
        consumers=4,
        entrants=(segq, peer),
        items=_singles,
        targets=at_least(3, PEER),
    ),
    Transfer(
        name="crowd",
        title="put → get, one item at a time, by few and by many processes (producers x consumers), 100 B",
        payload=SMALL,
        few=True,
        entrants=(*_crowd(SEGQ, segq), *_crowd(PEER, peer), *_crowd(FASTER_FIFO, *others([FASTER_FIFO]))),
        items=_singles,
        targets=at_least(0.8, f"{SEGQ}, 2x2", of=f"{SEGQ}, 16x16"),
    ),
    Transfer(
        name="batch",
        title="put_many(1000) → get_many(1000), against single items, 100 B",
        payload=SMALL,
        entrants=(segq_as(mode="batch", items=_batches), peer),
        items=_singles,
        targets=at_least(5, PEER),
    ),
    _of_batches(10),
    _of_batches(100),
    Transfer(
        name="peers",
        title="single, beside other queues for processes, 100 B",
        payload=SMALL,
        few=True,
        entrants=(segq, peer, *others([*IN_MEMORY, TURBO_QUEUE]), *durable()),
        items=_singles,
        targets=(*at_least(1, *IN_MEMORY, TURBO_QUEUE), *at_least(50, *DURABLE)),
    ),
    Beside(
        name="peers-batch",
        title="a thousand at a time, beside other queues for processes (RocksQ: within one process), 100 B",
        payload=SMALL,
        few=True,
        entrants=(
            segq_as(mode="batch", items=_batches),
            *others([FASTER_FIFO, NQUE], mode="batch"),
            *others([TURBO_QUEUE]),  # batches of its own making
            *others([ROCKSQ], mode="alone batch"),
        ),
        items=_singles,
        targets=(*at_least(4, FASTER_FIFO, NQUE, TURBO_QUEUE), *at_least(8, ROCKSQ)),
    ),
    _of_size("16 B", 16, _singles, 1),
    _of_size("1 KiB", MIDDLE.size, lambda scale: scale.single // 2, 1),
    _of_size("64 KiB", 1 << 16, lambda scale: scale.large * 4, 4),
    _of_size("1 MiB", LARGE.size, _large, 16),
    Transfer(
        name="acked",
        title="put → receive and ack of each, 100 B",
        payload=SMALL,
        entrants=(segq_as(mode="acked"), peer),
        items=_singles,
        targets=at_least(2, PEER),
    ),
    Transfer(
        name="capacity",
        title="put → get with a capacity set and far from full, 100 B",
        payload=SMALL,
        entrants=(
            Entrant(label="segq, bounded", adapter=SEGQ, settings=Settings(serializer="raw", capacity=FAR_FROM_FULL)),
            segq,
        ),
        items=_singles,
        targets=at_least(0.85, SEGQ, of="segq, bounded"),
    ),
    Transfer(
        name="dicts",
        title="put → get of small dicts, each with its default serializer",
        payload=DictPayload(),
        entrants=(Entrant(label=SEGQ, adapter=SEGQ), peer),
        items=_singles,
        targets=at_least(2, PEER),
    ),
    Ceiling(
        name="large",
        title="put → get of 1 MiB items, against writes of the same bytes alone",
        payload=LARGE,
        entrants=(segq, *others([PLAIN, SYNCED, PUTS], mode=WRITE_ONLY), peer),
        items=_large,
        targets=(
            Target(metric="bandwidth", of=SEGQ, against=PLAIN, at_least=0.6),
            Target(metric="written_ratio", of=SEGQ, at_most=1.15),
        ),
    ),
    Ceiling(
        name="ceiling",
        title="put → get of single items and of batches, against writes of the same bytes alone, 100 B",
        payload=SMALL,
        few=True,
        entrants=(
            segq,
            *others([PLAIN, PUTS], mode=WRITE_ONLY),
            segq_as("segq, by 1000", mode="batch", items=_batches),
            *(
                Entrant(label=f"{name}, by 1000", adapter=name, mode=f"{WRITE_ONLY} batch", items=_batches)
                for name in (PLAIN, PUTS, BLOCKS)
            ),
        ),
        items=_singles,
        targets=(),
        columns=("rate", "bandwidth", "producer_cpu", "written_ratio"),
    ),
)
