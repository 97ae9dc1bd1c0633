"""`async for message in …`: one message after the other, settled on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

from segq._core.base.errors import Empty, ShutDown
from segq._core.base.message import Message


class Messages:
    """An asynchronous iterator; what it handed out last is acknowledged when the next is asked for.

    Left before that, by `break` or an exception, the message is given back: not a generator, so that this happens at once and
    not when the loop gets round to closing it.
    """

    def __init__(self, receive: Callable[..., Awaitable[Message]], timeout: float | None) -> None:
        self._receive, self._timeout = receive, timeout
        self._message: Message | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        message, self._message = self._message, None
        if message is not None:
            message.__exit__(None, None, None)
        try:
            self._message = await self._receive(timeout=self._timeout)
        except (Empty, ShutDown):
            raise StopAsyncIteration from None
        return self._message

    async def aclose(self) -> None:
        """Gives back what was handed out last, if it is not settled."""
        self._give_back()

    def _give_back(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            message.__exit__(GeneratorExit, None, None)

    def __del__(self) -> None:
        self._give_back()
