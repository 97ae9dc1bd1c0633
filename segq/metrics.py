"""Figures of queues for Prometheus. Needs prometheus-client, from the extra `metrics`.

In a program that serves metrics already::

    from prometheus_client import REGISTRY
    from segq.metrics import Collector

    REGISTRY.register(Collector("/var/lib/app/orders", "/var/lib/app/news"))

Else `segq metrics QUEUE…` serves them. Names follow Prometheus' habits (base units, `_total` for what only grows); the label
`queue` is the path. Puts, gets and acks count since the collector was made. Queues are only looked at (see `segq.watch`), and
need not be there yet.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from segq._core.base.errors import SettingsError
from segq.watch import watcher_of
from segq.watch.snapshot import OPEN, LabelView, ProcessView, Snapshot

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as PrometheusCollector
except ImportError as error:
    raise ImportError("segq.metrics needs prometheus-client: pip install 'segq[metrics]'") from error

_Value = float | int | None
_Family = type[CounterMetricFamily] | type[GaugeMetricFamily]

_OF_QUEUES: tuple[tuple[_Family, str, str, Callable[[Snapshot], _Value]], ...] = (
    (GaugeMetricFamily, "segq_items", "Items stored and not acknowledged.", lambda s: s.items),
    (GaugeMetricFamily, "segq_waiting_items", "Of these, items that nobody has in hand.", lambda s: s.waiting),
    (GaugeMetricFamily, "segq_claimed_items", "Of these, items in somebody's hands.", lambda s: s.claimed),
    (GaugeMetricFamily, "segq_capacity_items", "Items there is room for; absent without a limit.", lambda s: s.capacity),
    (GaugeMetricFamily, "segq_payload_bytes", "Payload of the items stored; absent without a limit.", lambda s: s.bytes),
    (GaugeMetricFamily, "segq_capacity_bytes", "Payload there is room for; absent without a limit.", lambda s: s.max_bytes),
    (GaugeMetricFamily, "segq_oldest_item_age_seconds", "Since the oldest item stored was put; 0 if there is none.",
     lambda s: s.oldest_age or 0.0),
    (GaugeMetricFamily, "segq_quarantined", "Segments, files and items that could not be read and were set aside.",
     lambda s: s.quarantined),
    (GaugeMetricFamily, "segq_dead_letter_items", "Items that were given up; absent if the queue keeps none.",
     lambda s: s.dead_letters),
    (GaugeMetricFamily, "segq_shut_down", "1 while the queue is shut down.", lambda s: int(s.shutdown)),
    (CounterMetricFamily, "segq_puts", "Items put.", lambda s: s.totals.put),
    (CounterMetricFamily, "segq_gets", "Items handed out.", lambda s: s.totals.get),
    (CounterMetricFamily, "segq_acks", "Items acknowledged (in a topic, by every label).", lambda s: s.totals.ack),
    (CounterMetricFamily, "segq_redeliveries", "Items that came back, of dead processes or by leases that ran out.",
     lambda s: s.redelivered),
    (CounterMetricFamily, "segq_rescues", "Dead owners whose belongings were given to the living.", lambda s: s.rescues),
    (CounterMetricFamily, "segq_expired_items", "Items whose time ran out before anybody had them.", lambda s: s.expired),
)  # fmt: skip

_OF_LABELS: tuple[tuple[_Family, str, str, Callable[[LabelView], _Value]], ...] = (
    (GaugeMetricFamily, "segq_label_lag_items", "Items a label has not acknowledged.", lambda v: v.lag),
    (GaugeMetricFamily, "segq_label_lag_seconds", "Since the oldest of these was put; 0 if there is none.",
     lambda v: v.lag_seconds if v.lag else 0.0),
    (GaugeMetricFamily, "segq_label_claimed_items", "Of these, items in somebody's hands.", lambda v: v.claimed),
    (CounterMetricFamily, "segq_label_acks", "Items a label acknowledged since it began.", lambda v: v.acknowledged),
    (CounterMetricFamily, "segq_label_missed_items", "Items that expired or were dropped before a label had them.",
     lambda v: v.missed),
)  # fmt: skip

_ROLES: dict[str, Callable[[ProcessView], bool]] = {
    "producer": lambda p: p.alive and p.producing,
    "consumer": lambda p: p.alive and p.consuming,
    "idle": lambda p: p.alive and not p.producing and not p.consuming,
    "dead": lambda p: not p.alive,
}


class Collector(PrometheusCollector):
    """The figures of these queues (or topics; paths or addresses), looked up when they are asked for. Threads may share it.

    Puts and acknowledgements are told by looking: of a handle that is closed, what it put after the last look may be missing. A
    program that wants little of that calls `look` once a second between scrapes, as `segq metrics` does.
    """

    def __init__(self, *queues: str | os.PathLike[str]) -> None:
        """Raises SettingsError if there is none, or one is named twice."""
        self._watchers = [watcher_of(queue) for queue in queues]
        paths = [watcher.path for watcher in self._watchers]
        if not paths or len(set(paths)) < len(paths):
            raise SettingsError(f"name one queue or more, each once, not {paths!r}")
        self._lock = threading.Lock()

    def look(self) -> list[Snapshot]:
        """Looks at every queue, so that the counters count what has happened until now."""
        with self._lock:
            return [watcher.look() for watcher in self._watchers]

    def describe(self) -> Iterable[Metric]:
        """The families there can be; for a registry, which refuses two collectors of the same names."""
        return list(_families([], 0.0))

    def collect(self) -> Iterator[Metric]:
        begun = time.perf_counter()
        snapshots = self.look()
        yield from _families(snapshots, time.perf_counter() - begun)


@contextlib.contextmanager
def serving(collector: Collector, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serves these metrics alone, from a thread, while the body runs; gives the address. Raises OSError if it cannot listen."""
    registry = CollectorRegistry()
    registry.register(collector)
    server, thread = start_http_server(port, addr=host, registry=registry)
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _families(snapshots: list[Snapshot], took: float) -> Iterator[Metric]:
    up = GaugeMetricFamily("segq_up", "1 if the queue is there and can be read.", labels=["queue"])
    for snapshot in snapshots:
        up.add_metric([snapshot.path], int(snapshot.state == OPEN))
    yield up
    there = [snapshot for snapshot in snapshots if snapshot.state == OPEN]
    for kind, name, text, value in _OF_QUEUES:
        family: Any = kind(name, text, labels=["queue"])
        for snapshot in there:
            if (found := value(snapshot)) is not None:
                family.add_metric([snapshot.path], found)
        yield family
    for kind, name, text, of_label in _OF_LABELS:
        family = kind(name, text, labels=["queue", "label"])
        for snapshot in there:
            for label in snapshot.labels:
                family.add_metric([snapshot.path, label.label], of_label(label))
        yield family
    segments = GaugeMetricFamily("segq_segments", "Segments by what their names say.", labels=["queue", "state"])
    processes = GaugeMetricFamily("segq_processes", "Processes that have the queue open.", labels=["queue", "role"])
    for snapshot in there:
        for state, count in snapshot.segments.items():
            segments.add_metric([snapshot.path, state], count)
        for role, plays in _ROLES.items():
            processes.add_metric([snapshot.path, role], sum(map(plays, snapshot.processes)))
    yield segments
    yield processes
    if snapshots:
        yield GaugeMetricFamily("segq_look_seconds", "How long looking at all queues took.", value=took)
