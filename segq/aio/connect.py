"""`segq.aio.connect`: a queue or a topic by its address, for asyncio."""

from __future__ import annotations

import os
from typing import Any

from segq._core.base.errors import SettingsError
from segq.aio.queue import Queue
from segq.aio.topic import Topic
from segq.engines.address import parse


def connect(address: str | os.PathLike[str], kind: str = "queue", **settings: Any) -> Any:
    """As `segq.connect`, with what may wait awaited: a `segq.aio.Queue` or `segq.aio.Topic`, or another engine's like it.

    Nothing is opened before the first use, or `async with`. On an engine with a server `qsize`, `empty` and `full` are awaited,
    too, for they ask it; a message settles itself without holding up the loop in `async with await q.receive() as message`.
    """
    where = parse(address)
    given = {**where.settings, **settings}
    if kind not in ("queue", "topic"):
        raise SettingsError(f'kind must be "queue" or "topic", not {kind!r}')
    if where.scheme in ("nats", "tls"):
        import segq.engines.nats  # noqa: F401  # says what to install
        from segq.engines.nats import aio
        from segq.engines.nats.core import Plan

        plan = Plan(where, kind, given)
        return aio.AioQueue(plan) if kind == "queue" else aio.AioTopic(plan)
    if where.scheme != "segq":
        raise SettingsError(f"there is no engine for {where.scheme}:// ({where.shown()})")
    return Queue(where.path, **given) if kind == "queue" else Topic(where.path, **given)
