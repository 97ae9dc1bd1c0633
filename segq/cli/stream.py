"""Items on their way out: written in large steps, acknowledged when their reader has taken them, else given back."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

import click

import segq
from segq._core.base.errors import ReceiptError
from segq.cli.outlet import Outlet

BATCH_BYTES = 1 << 20  # what one step aims at; several times what a pipe holds
BATCH_ITEMS = 8192


class Stream:
    """The messages that were written to an outlet, oldest first, until they are settled."""

    def __init__(
        self,
        outlet: Outlet,
        render: Callable[[object], bytes],
        end: bytes,
        ack_many: Callable[[list[segq.Message]], None] | None,
    ) -> None:
        self._outlet = outlet
        self._ack_many = ack_many  # where each single one has to be confirmed by a server
        self._render = render
        self._end = end
        self._unsettled: deque[tuple[int, segq.Message]] = deque()  # (offset of the message's last byte, message)
        self._item_bytes = BATCH_BYTES // 64  # a guess until the first batch has been seen

    @property
    def batch(self) -> int:
        """How many items to ask for next, judged by the size of those before."""
        return max(1, min(BATCH_ITEMS, BATCH_BYTES // self._item_bytes))

    def send(self, messages: list[segq.Message]) -> None:
        """Writes the messages and acknowledges what has been taken. Raises BrokenPipeError when the reader is gone."""
        start = offset = self._outlet.written
        parts = []
        for message in messages:
            part = self._render(message.value) + self._end
            offset += len(part)
            parts.append(part)
            self._unsettled.append((offset, message))
        self._item_bytes = max(1, (offset - start) // len(messages))
        self._outlet.write(b"".join(parts))
        self._acknowledge()

    def settle(self) -> None:
        """Waits until the reader has everything and acknowledges it. Raises BrokenPipeError when the reader is gone."""
        self._outlet.wait_until_taken()
        self._acknowledge()

    def close(self) -> None:
        """Acknowledges what has been taken and gives the rest back, in its order."""
        taken = self._outlet.taken()
        for offset, message in self._unsettled:
            with contextlib.suppress(ReceiptError):  # its lease ran out, or Ctrl-C came in the middle of its ack
                (message.ack if offset <= taken else message.nack)()
        self._unsettled.clear()

    def _acknowledge(self) -> None:
        taken = self._outlet.taken()
        if self._ack_many is not None:
            self._acknowledge_at_once(self._ack_many, taken)
        while self._unsettled and self._unsettled[0][0] <= taken:
            message = self._unsettled[0][1]
            try:
                message.ack()
            except ReceiptError as error:  # printed, but its lease ran out before the reader took it
                click.echo(f"segq: warning: item {message.id} may be printed again: {error}", err=True)
            self._unsettled.popleft()

    def _acknowledge_at_once(self, ack_many: Callable[[list[segq.Message]], None], taken: int) -> None:
        messages = [message for offset, message in self._unsettled if offset <= taken]
        if not messages:
            return
        try:
            ack_many(messages)
        except ReceiptError as error:
            click.echo(f"segq: warning: items may be printed again: {error}", err=True)
        for _ in messages:
            self._unsettled.popleft()
