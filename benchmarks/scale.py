"""How much work a run does: enough to believe, a minute's worth, or just enough to test the harness."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Counts are per repetition; durations are seconds."""

    name: str
    repetitions: int
    few: int
    """Repetitions of workloads with many entrants or with long ones."""
    single: int
    batch: int
    durable: int
    """For contestants that commit each item to a database: a hundred times slower than the others."""
    latency: int
    """Items at 1,000 a second."""
    latency_slow: int
    """Items at 100 a second."""
    latency_fast: int
    """Items at 10,000 a second."""
    large: int
    tasks: int
    task_unit: float
    """Seconds of the shortest task of a mix."""
    bursts: int
    burst: int
    starts: int
    """Short-lived processes, one after the other."""
    memory: int
    published: int
    published_large: int
    published_repetitions: int
    persist: int
    backlog_small: int
    backlog_small_queues: int
    """The short backlog is over in milliseconds: this many fresh queues of it make one repetition."""
    backlog_large: int
    backlog_repetitions: int
    idle_consumers: int
    idle_window: float
    idle_repetitions: int
    patience: float
    """A repetition that takes longer than this is called stuck and ended."""


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            repetitions=1,
            few=1,
            single=400,
            batch=4_000,
            durable=20,
            latency=40,
            latency_slow=10,
            latency_fast=100,
            large=4,
            tasks=20,
            task_unit=0.001,
            bursts=2,
            burst=100,
            starts=1,
            memory=1_000,
            published=100,
            published_large=4,
            published_repetitions=1,
            persist=20,
            backlog_small=3_000,
            backlog_small_queues=1,
            backlog_large=6_000,
            backlog_repetitions=1,
            idle_consumers=2,
            idle_window=0.2,
            idle_repetitions=1,
            patience=120,
        ),
        Scale(
            name="quick",
            repetitions=2,
            few=1,
            single=80_000,
            batch=320_000,
            durable=500,
            latency=1_000,
            latency_slow=150,
            latency_fast=6_000,
            large=96,
            tasks=200,
            task_unit=0.005,
            bursts=5,
            burst=10_000,
            starts=3,
            memory=100_000,
            published=100_000,
            published_large=100,
            published_repetitions=1,
            persist=500,
            backlog_small=10_000,
            backlog_small_queues=10,
            backlog_large=300_000,
            backlog_repetitions=1,
            idle_consumers=6,
            idle_window=1.5,
            idle_repetitions=1,
            patience=120,
        ),
        Scale(
            name="full",
            repetitions=7,
            few=3,
            single=500_000,
            batch=2_000_000,
            durable=5_000,
            latency=4_000,
            latency_slow=800,
            latency_fast=30_000,
            large=512,
            tasks=200,
            task_unit=0.01,
            bursts=10,
            burst=50_000,
            starts=10,
            memory=500_000,
            published=1_000_000,
            published_large=1_000,
            published_repetitions=2,
            persist=1_000,
            backlog_small=10_000,
            backlog_small_queues=50,
            backlog_large=10_000_000,
            backlog_repetitions=3,
            idle_consumers=100,
            idle_window=10,
            idle_repetitions=3,
            patience=1200,
        ),
    )
}
