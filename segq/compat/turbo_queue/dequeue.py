"""`Dequeue`: hands out events, batch by batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import Any

import segq
from segq.compat.turbo_queue import events
from segq.compat.turbo_queue.properties import Properties, flag

_PATIENCE = 0.5  # seconds that `get` looks for a batch before it says None: turbo-queue's ten times 0.05
_LOOK_AGAIN = 0.01
_CLAIM = 4096  # events at once, so that a batch of 80,000 need not be in memory


class Dequeue(Properties):
    """Takes events from the queue at `root_path/queue_name`; any number of processes may, and each event goes to one of them.

    What a batch handed out stays in the queue until `clean_up`, which `get` calls itself at the end of the batch unless
    `auto_cleanup` is false. If this process dies before, the events come back to the others within about a second.
    """

    auto_cleanup = flag(default=True)

    def __init__(self, proc_num: int | None = None) -> None:
        super().__init__()
        self.proc_num = proc_num
        self._total_gets = 0
        self._total_batch = 0
        self._held: list[segq.Message] | None = None  # of the batch at hand; None: there is none
        self._handed = 0  # how many of these have been handed out
        self._size = 0  # how many the batch may have

    def get(self) -> Generator[Any, None, None]:
        """A generator of events; None when a batch is through, and when after half a second there is none.

        `next` may be called again after None, as turbo-queue's README says, and goes on with the next batch::

            get_data = dequeue.get()
            data = next(get_data)
            while data:
                work(data)
                data = next(get_data)

        With `auto_cleanup` off it says None at the end of a batch until `clean_up` or `roll_back` was called.
        """
        while True:
            if self._held is None and not self._begin():
                yield None
                continue
            message = self._next()
            if message is not None:
                self._total_gets += 1
                value, message.value = message.value, None  # what is handed out need not stay in memory
                yield events.event_of(value)
                continue
            if self.auto_cleanup:
                self.clean_up()
            yield None

    def clean_up(self) -> None:
        """Acknowledges the events handed out of this batch. Those not handed out yet go back to the queue, for everybody."""
        held, self._held = self._held or [], None
        for message in held[: self._handed]:
            message.ack()
        self._give_back(held[self._handed :])

    def roll_back(self) -> None:
        """Gives the batch back, to be handed out again, also what was handed out of it. Does nothing if there is none."""
        held, self._held = self._held or [], None
        self._give_back(held)

    def check_state(self) -> None:
        """A place kept free by turbo-queue."""

    def total_gets(self) -> int:
        """How many events this object has handed out."""
        return self._total_gets

    def total_batch(self) -> int:
        """How many batches this object has begun."""
        return self._total_batch

    def close(self) -> None:
        """Gives back what is in hand and closes the queue."""
        if self._handle is not None:
            with contextlib.suppress(segq.ReceiptError):  # in a forked child the messages are its parent's
                self.roll_back()
        super().close()

    def _begin(self) -> bool:
        queue = self.queue()
        deadline = time.monotonic() + _PATIENCE
        while True:
            self._size = events.batch_size(queue, self.max_events_per_file)
            if self._size and self._claim(queue):
                self._total_batch += 1
                return True
            if time.monotonic() >= deadline:
                return False
            _pause(queue)

    def _claim(self, queue: segq.Queue) -> bool:
        held = self._held or []
        try:
            more = queue.receive_many(min(_CLAIM, self._size - len(held)), block=False)
        except segq.Empty:
            return False
        if self._held is None:
            self._held, self._handed = [], 0
        self._held += more
        return True

    def _next(self) -> segq.Message | None:
        assert self._held is not None
        if self._handed == len(self._held) and (self._handed >= self._size or not self._claim(self.queue())):
            self._size = self._handed  # it ends here, also if more come before it is cleaned up
            return None
        self._handed += 1
        return self._held[self._handed - 1]

    @staticmethod
    def _give_back(messages: list[segq.Message]) -> None:
        for message in messages:
            message.nack()


def _pause(queue: segq.Queue) -> None:
    """A moment, in which somebody may die or have died: waiting in `join` looks after them, sleeping would not."""
    try:
        queue.join(timeout=_LOOK_AGAIN)
    except TimeoutError:
        return
    time.sleep(_LOOK_AGAIN)  # nothing is stored at all
