"""`PriorityQueue`."""

from __future__ import annotations

import time
from typing import Any

from segq.compat.persistqueue.table import Table


class PriorityQueue(Table):
    """The smallest priority first; among equals, the first put."""

    _TABLE = "priority_queue"
    _COLUMNS = "data BLOB, timestamp FLOAT, priority INTEGER"
    _ORDER = "t.priority ASC, t.timestamp ASC, t._id ASC"
    _INDEX = "priority, timestamp"

    def put(self, item: Any, priority: int = 0, block: bool = True) -> int:  # noqa: ARG002
        """Stores an item and returns its id. There is always room."""
        return self._insert("data, timestamp, priority", self._serializer.dumps(item), time.time(), priority)

    def put_nowait(self, item: Any, priority: int = 0) -> int:
        """The same as `put`."""
        return self.put(item, priority)
