"""A pipeline: sources, queues, workers and sinks, declared in a file, run as processes that are kept alive.

`segq run pipeline.toml` is the way in; docs/pipelines.md explains the file.
"""

from segq.pipeline.plan import Plan, QueuePlan, StagePlan, read_plan
from segq.pipeline.supervisor import Status, Supervisor

__all__ = ["Plan", "QueuePlan", "StagePlan", "Status", "Supervisor", "read_plan"]
