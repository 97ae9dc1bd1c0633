"""`Enqueue`: puts events."""

from __future__ import annotations

import asyncio
from typing import Any

from segq.compat.turbo_queue import events
from segq.compat.turbo_queue.properties import Properties


class Enqueue(Properties):
    """Adds events to the queue at `root_path/queue_name`; any number of processes may.

    `max_events_per_file` events, or `max_batch_age` seconds, make a batch, which is what `Dequeue.get` hands out at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.row_count = 0

    def start(self) -> None:
        """Opens the queue, creating it if need be. `add` does so too."""
        self.queue()

    def add(self, dict_to_add: Any) -> None:
        """Stores an event (whatever JSON can hold); once this returns it survives the death of any process.

        Stores it also while `enqueue_active` is false, unless `drop_overflow` is set: then it is dropped.

        Raises:
            segq.SerializationError (a TypeError): JSON cannot hold it. segq.StorageError: the disk refused. Nothing was stored.
        """
        if self.drop_overflow and not self.enqueue_active:
            return
        self.queue().put(events.packed(dict_to_add, self.max_events_per_file, self.max_batch_age))
        self.row_count += 1
        if self.row_count >= self.max_events_per_file:
            self.row_count = 0
            self.enqueue_active = False
            self.update_enqueue_active_state()

    def check_time(self) -> None:
        """Nothing to do: a batch that has become `max_batch_age` old is ready without anybody's doing."""

    async def check_slow_batch(self) -> None:
        """Nothing to do, as in `check_time`."""

    async def check_batch_age(self) -> None:
        """Nothing to do, as in `check_time`."""

    def activate_check_batch_age(self) -> None:
        """Never returns, as in turbo-queue, where it is meant for a thread of its own. Not needed here."""
        asyncio.new_event_loop().run_forever()
