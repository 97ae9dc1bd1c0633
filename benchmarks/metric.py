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
    less_is_better: bool = True

    def show(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"

    @property
    def named(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def _more(name: str, title: str, unit: str, digits: int = 0) -> Metric:
    return Metric(name, title, unit, digits, less_is_better=False)


METRICS = {
    metric.name: metric
    for metric in (
        _more("rate", "rate", "items/s"),
        _more("put_rate", "put", "items/s"),
        _more("get_rate", "get", "items/s"),
        _more("put_drift", "late/early put", "x", 2),
        _more("get_drift", "late/early get", "x", 2),
        _more("bandwidth", "rate", "MiB/s"),
        Metric("written_ratio", "written/payload", "", 3),
        Metric("cancelled_ratio", "cancelled/payload", "", 3),
        Metric("p50", "p50", "µs", 1),
        Metric("p95", "p95", "µs", 1),
        Metric("p99", "p99", "µs", 1),
        Metric("max", "max", "µs", 1),
        Metric("first", "first item after", "µs", 1),
        Metric("makespan", "makespan", "s", 3),
        Metric("against_ideal", "makespan/ideal", "x", 3),
        Metric("startup", "all of it", "ms", 2),
        Metric("importing", "import", "ms", 2),
        Metric("opening", "open", "ms", 2),
        Metric("first_put", "first put", "ms", 2),
        Metric("first_get", "first get", "ms", 2),
        Metric("closing", "close", "ms", 2),
        Metric("milliseconds", "time", "ms", 1),
        Metric("producer_cpu", "producer CPU", "µs/item", 2),
        Metric("consumer_cpu", "consumer CPU", "µs/item", 2),
        Metric("producer_peak", "producer peak", "MiB", 1),
        Metric("consumer_peak", "consumer peak", "MiB", 1),
        Metric("producer_growth", "producer, of the queue", "MiB", 1),
        Metric("consumer_growth", "consumer, of the queue", "MiB", 1),
        Metric("idle_cpu", "idle CPU", "% of a core", 3),
    )
}
