"""How much work a run does: enough to believe, a minute's worth, or just enough to test the harness."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Counts are per repetition; durations are seconds."""

    name: str
    repetitions: int
    single: int
    batch: int
    durable: int
    """For contestants that commit each item to a database: a hundred times slower than the others."""
    latency: int
    large: int
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
            single=400,
            batch=4_000,
            durable=20,
            latency=40,
            large=4,
            backlog_small=3_000,
            backlog_small_queues=1,
            backlog_large=6_000,
            backlog_repetitions=1,
            idle_consumers=2,
            idle_window=0.2,
            idle_repetitions=1,
            patience=30,
        ),
        Scale(
            name="quick",
            repetitions=3,
            single=100_000,
            batch=400_000,
            durable=1_000,
            latency=1_200,
            large=96,
            backlog_small=10_000,
            backlog_small_queues=10,
            backlog_large=300_000,
            backlog_repetitions=2,
            idle_consumers=20,
            idle_window=1.5,
            idle_repetitions=1,
            patience=45,
        ),
        Scale(
            name="full",
            repetitions=7,
            single=500_000,
            batch=2_000_000,
            durable=10_000,
            latency=5_000,
            large=512,
            backlog_small=10_000,
            backlog_small_queues=50,
            backlog_large=10_000_000,
            backlog_repetitions=3,
            idle_consumers=100,
            idle_window=10,
            idle_repetitions=3,
            patience=600,
        ),
    )
}
