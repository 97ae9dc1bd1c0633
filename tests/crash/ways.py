"""For each fault point, the workloads that lead there, and how often they come by before they are killed."""

from __future__ import annotations

import dataclasses
from typing import Any

from segq._core.base.failpoints import POINTS

SMALL = {"segment_items": 20}
LIMITED = {"capacity": 100_000, "max_bytes": 1 << 30}
POWER = {"durability": "power"}


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """A workload that reaches a point at least `times`, on a queue with these settings.

    `filled`: what a consumer finds: items put by a handle that is closed ("sealed") or still open ("live").
    """

    workload: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    times: tuple[int, ...] = (1, 2, 3)
    filled: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, [self.workload, self.filled, *sorted(self.settings)]))


def _consuming(workload: str, times: tuple[int, ...], **settings: Any) -> list[Way]:
    return [
        Way(workload, settings, times, filled="live"),
        Way(workload, SMALL | settings, times, filled="sealed"),
        Way(workload, SMALL | settings, times, filled="live"),
    ]


PUTTING = [Way("puts"), Way("puts", LIMITED, (2, 1)), Way("opens", SMALL, (4,)), Way("rolls", SMALL, (20, 21))]
TURNING = [Way("turns"), Way("turns", LIMITED, (2, 1))]
BLOCKS = [Way("blocks"), Way("puts", POWER, (8, 1)), Way("blocks", LIMITED, (2,)), Way("opens", {}, (2, 1))]
BLOBS = [Way("blobs"), Way("blobs", LIMITED, (4,)), Way("blobs", SMALL, (7,))]
CREATING = [Way("rolls", SMALL), Way("rolls", SMALL | LIMITED, (2,))]
SEALING = [Way("rolls", SMALL), Way("opens", {}, (1, 2)), Way("rolls", SMALL | POWER, (1,)), Way("mixed", SMALL, (1, 2))]
TAKING = _consuming("gets", (1, 3)) + _consuming("receives", (4, 1)) + _consuming("receives", (2,), lease=60.0)[:1]
KEEPING_UP = [Way("keeps_up", {}, (2, 9)), Way("keeps_up", SMALL, (5, 20))]
GETTING = _consuming("gets", (1, 3)) + _consuming("gets", (2,), lease=60.0)[:1] + KEEPING_UP
DELAYING = [Way("delays", {}, (1, 3), filled="live"), Way("delays", SMALL | {"lease": 60.0}, (2, 1), filled="sealed")]
BURYING = [Way("rejects", SMALL, (1, 3), filled="sealed"), Way("spends", {"max_deliveries": 2}, (1, 2), filled="live")]
HANDING = _consuming("receives", (1, 3)) + _consuming("receives", (2,), lease=60.0)[:1]
RETIRING = [Way("gets", SMALL, (1, 2), filled="sealed"), Way("receives", SMALL, (1,), filled="sealed")]

OPENING = [Way("rolls", SMALL), Way("opens", {}, (2,)), Way("blocks", {}, (1,))]
_BY_POINTS: list[tuple[tuple[str, ...], list[Way]]] = [
    (("put.begun", "put.payload", "put.published"), PUTTING),
    (("turn.begun", "turn.flushed", "turn.turned"), TURNING),
    (("block.begun", "block.written", "block.published"), BLOCKS),
    (("blob.begun", "blob.written"), BLOBS),
    (("blob.reused",), [Way("reuses"), Way("reuses", {}, (3, 7)), Way("reuses", LIMITED, (4,))]),
    (("create.named", "create.ledger"), CREATING),
    (("create.batch", "create.rocksdb"), OPENING),
    (("seal.begun", "seal.flushed", "seal.closed", "seal.marked", "seal.renamed", "seal.tidied"), SEALING),
    (("resume.renamed",), [Way("opens"), Way("opens", POWER, (1,))]),
    (("claim.marked", "claim.moved"), TAKING),
    (("claim.chosen",), [Way("gets", SMALL, (1, 2, 3), filled="sealed")]),
    (("get.taken", "get.done"), GETTING),
    (("receive.handed", "ack.begun", "ack.done", "nack.begun", "nack.done"), HANDING),
    (("delay.noted", "delay.marked"), DELAYING),
    (("delay.freed",), [Way("delays", {}, (1, 2), filled="live")]),
    (("dead.noted", "dead.stored", "dead.done"), BURYING),
    (("retire.begun", "retire.renamed", "retire.deleted"), RETIRING),
]
WAYS = {point: ways for points, ways in _BY_POINTS for point in points}
TOPICS = {point for point in POINTS if point.startswith(("label.", "gone.", "drop."))}  # see test_topic_points
RESCUES = sorted(point for point in POINTS if point.startswith("rescue."))
