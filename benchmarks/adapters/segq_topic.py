"""segq's topics, through their public names only: each label in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path

from benchmarks.adapters.contract import FanHandle, Settings
from benchmarks.adapters.segq_queue import adapter as queue_adapter


@dataclass(frozen=True, slots=True)
class _Ticket:
    path: str
    one_process: bool = False

    def open(self, label: str | None = None) -> FanHandle:
        import segq

        if label is None:
            topic = segq.Topic(self.path)
            return FanHandle(put_many=topic.put_many, get_many=None, close=topic.close)
        subscription = segq.Subscription(self.path, label)
        return FanHandle(put_many=None, get_many=subscription.get_many, close=subscription.close)


@dataclass(frozen=True, slots=True)
class SegqTopic:
    """`segq.Topic` with default durability: what `put` accepted survives SIGKILL, and so does each label's place."""

    version: str
    name: str = "segq topic"
    survives: str = "every item whose put returned, and each label's place"

    def prepare(self, context: SpawnContext, directory: Path, settings: Settings) -> _Ticket:  # noqa: ARG002
        import segq

        path = str(directory / "topic")
        segq.Topic(path, serializer=settings.serializer).close()
        return _Ticket(path)


def adapter() -> SegqTopic:
    return SegqTopic(queue_adapter().version)
