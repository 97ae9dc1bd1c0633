"""What a queue and a subscription have in common for whoever gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from segq._core.base.errors import Empty, ShutDown
from segq._core.base.message import Message
from segq._core.base.settings import whole_number
from segq.handles.handle import Handle, check_timeout


class Getting(Handle):
    """The getting methods of a handle."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes an item out of the queue: handed over is acknowledged. To survive your own death, use `receive`.

        Waits up to `timeout` seconds (None: for ever), or not at all if `block` is false.

        Raises:
            Empty: nothing to hand out (in time). ShutDown: and nothing will come. ClosedError, StorageError.
        """
        if timeout is not None:
            check_timeout(timeout)
        return self._consumer.get(block, timeout)

    def get_nowait(self) -> Any:
        """`get(block=False)`."""
        return self._consumer.get(False)

    def get_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        """Up to `max_items` items at once; waits for the first as `get` does, and takes what is there then."""
        if timeout is not None:
            check_timeout(timeout)
        return self._consumer.get_many(whole_number("max_items", max_items), block, timeout)

    def receive(self, block: bool = True, timeout: float | None = None) -> Message:
        """Hands out an item that stays in the queue until you `ack` it. Waits and raises as `get` does."""
        if timeout is not None:
            check_timeout(timeout)
        return self._consumer.receive(block, timeout)

    def receive_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Message]:
        """Up to `max_items` messages at once; waits for the first, and takes what is there then."""
        if timeout is not None:
            check_timeout(timeout)
        return self._consumer.receive_many(whole_number("max_items", max_items), block, timeout)

    def peek(self, n: int = 1) -> list[Any]:
        """The values of up to `n` items that wait, oldest first; nothing is claimed."""
        return self._consumer.peek(whole_number("n", n))

    def purge(self) -> int:
        """Drops all items that nobody has claimed; returns how many."""
        return self._consumer.purge()

    def messages(self, timeout: float | None = None) -> Iterator[Message]:
        """One message after the other, each acknowledged when you come for the next, given back if you leave by an exception.

        Ends after `timeout` seconds without a message (None: never), or when there is a shutdown and nothing is left::

            for message in q.messages(timeout=10):
                work(message.value)
        """
        self._open()  # a closed handle refuses at once, not when iteration begins
        return self._messages(timeout)

    def _messages(self, timeout: float | None) -> Iterator[Message]:
        while True:
            try:
                message = self.receive(timeout=timeout)
            except (Empty, ShutDown):
                return
            with message:
                yield message
