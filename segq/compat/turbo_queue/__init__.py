"""A stand-in for turbo-queue: `import segq.compat.turbo_queue as turbo_queue` is the whole change.

The names, arguments and defaults are turbo-queue's (0.8); what is behind them is a `segq.Queue` at `root_path/queue_name`,
with the events as items. So an event is safe once `add` has returned, and what a dequeuer had not cleaned up when it died
comes back by itself. What is different, point by point: docs/coming-from-turbo-queue.md.
"""

from __future__ import annotations

from typing import Any

from segq.compat.turbo_queue.dequeue import Dequeue
from segq.compat.turbo_queue.enqueue import Enqueue
from segq.compat.turbo_queue.startup import Startup
from segq.compat.turbo_queue.tasks import MultiTask, TaskGroup

startup, enqueue, dequeue = Startup, Enqueue, Dequeue  # as older versions, and pages about them, write the names
task_group, multi_task = TaskGroup, MultiTask

__all__ = [
    "Dequeue", "Enqueue", "MultiTask", "Startup", "TaskGroup", "dequeue", "enqueue", "multi_task", "startup", "task_group",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("KafkaEnqueue", "KafkaDequeue"):
        raise AttributeError(
            f"{name} is not in segq's stand-in for turbo-queue; see segq.connectors, which keeps Kafka's offsets"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
