"""An event as it lies in the queue, and when enough of them make a batch.

turbo-queue writes events to a file and shows it to dequeuers when it is full. Here each event is an item of its own, stored
before `add` returns, and carries what its enqueuer wants of a batch: how many events, and how old at most. A batch is ready
when so many wait, or when the oldest is that old; whoever dequeues decides it by looking at the oldest. So there is nothing
to roll, rename or recover, and a batch that never fills is not stuck.

An item is ``["segq.turbo_queue", events per batch, seconds, put at, event]``. Any other item (imported, or put by
`segq put`) is an event as it is, ready at once.
"""

from __future__ import annotations

import time
from typing import Any

import segq

_MARK = "segq.turbo_queue"


def packed(event: Any, batch_events: int, batch_age: int) -> list[Any]:
    return [_MARK, batch_events, batch_age, time.time(), event]


def event_of(item: Any) -> Any:
    return item[4] if _is_packed(item) else item


def batch_size(queue: segq.Queue, otherwise: int) -> int:
    """How many events make the batch that is ready now; 0 if none is. `otherwise`: where the events do not say it."""
    oldest = queue.peek(1)
    if not oldest:
        return 0
    if not _is_packed(oldest[0]):
        return otherwise
    _, events, age, put_at, _ = oldest[0]
    return int(events) if queue.qsize() >= events or time.time() - put_at >= age else 0


def _is_packed(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 5 and item[0] == _MARK
