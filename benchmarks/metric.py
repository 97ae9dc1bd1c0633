"""What is measured: the name in the JSON, what people read, and the unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that a repetition yields."""

    name: str
    title: str
    unit: str
    digits: int = 0

    def show(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("rate", "rate", "items/s"),
        Metric("put_rate", "put", "items/s"),
        Metric("get_rate", "get", "items/s"),
        Metric("put_drift", "late/early put", "x", 2),
        Metric("get_drift", "late/early get", "x", 2),
        Metric("bandwidth", "rate", "MiB/s"),
        Metric("written_ratio", "written/payload", "", 3),
        Metric("cancelled_ratio", "cancelled/payload", "", 3),
        Metric("p50", "p50", "µs", 1),
        Metric("p95", "p95", "µs", 1),
        Metric("p99", "p99", "µs", 1),
        Metric("max", "max", "µs", 1),
        Metric("producer_cpu", "producer CPU", "µs/item", 2),
        Metric("consumer_cpu", "consumer CPU", "µs/item", 2),
        Metric("consumer_peak", "consumer peak", "MiB", 1),
        Metric("idle_cpu", "idle CPU", "% of a core", 3),
    )
}
