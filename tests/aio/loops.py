"""What the tests of `segq.aio` and `segq.futures` have in common."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from segq.aio.line import Line

PATIENCE = 60


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a coroutine test; what hangs fails."""

    @functools.wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE):
                await test(*arguments, **options)

        asyncio.run(bounded())

    return run


async def waiting(line: Line, count: int) -> None:
    """Returns once so many coroutines wait in a line."""
    while len(line.waiting) != count or line.batons:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def happens(event: threading.Event) -> None:
    while not event.is_set():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
