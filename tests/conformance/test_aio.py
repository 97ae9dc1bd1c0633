"""The same engines through `segq.aio.connect`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from engines import Engine

import segq
from segq import aio


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def test_a_queue(engine: Engine) -> None:
    async def work() -> None:
        async with aio.connect(engine.address(), capacity=3) as q:
            await q.put({"a": 1})
            await q.put_many([2, 3])
            with pytest.raises(segq.Full):
                await q.put(4, block=False)
            assert await q.peek(1) == [{"a": 1}]
            assert await q.get(timeout=10) == {"a": 1}
            with await q.receive(timeout=10) as message:
                assert message.value == 2
            (message,) = await q.receive_many(5, timeout=10)
            message.nack()
            assert await q.get(timeout=10) == 3
            with pytest.raises(segq.Empty):
                await q.get(timeout=0.05)
            waiting = asyncio.create_task(q.get(timeout=30))
            await asyncio.sleep(0.05)
            await q.put("wake up")
            assert await waiting == "wake up"
            await q.put_many([5, 6])
            assert [message.value async for message in q.messages(timeout=0.3)] == [5, 6]
            assert (await q.stats()).items == 0

    run(work())


def test_a_topic(engine: Engine) -> None:
    async def work() -> None:
        async with aio.connect(engine.address(), "topic") as t:
            await t.put_many([1, 2])
            mail, log = await t.subscribe("mail"), await t.subscribe("log", "newest")
            assert await mail.get_many(9, timeout=10) == [1, 2]
            assert await log.get(timeout=10) == 2
            assert (await mail.lag()).items == 0
            assert await mail.missed() == 0
            assert await t.labels() == ["log", "mail"]
            await t.remove_label("log")
            with pytest.raises(KeyError):
                await t.remove_label("log")
            await mail.close()
            await log.close()

    run(work())


def test_who_is_cancelled_has_taken_nothing(engine: Engine) -> None:
    async def work() -> None:
        async with aio.connect(engine.address()) as q:
            for n in range(10):
                waiting = asyncio.create_task(q.receive())
                await asyncio.sleep(0.02)
                put = asyncio.create_task(q.put(n))
                await asyncio.sleep(0.0005 * n)
                waiting.cancel()
                await asyncio.wait([waiting, put])
                if waiting.cancelled():
                    assert (await q.receive(timeout=20)).value == n
                else:
                    assert waiting.result().value == n

    run(work())


def test_a_server_is_asked_without_holding_up_the_loop(engine: Engine) -> None:
    async def work() -> None:
        async with aio.connect(engine.address()) as q:
            await q.put_many(range(20))
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0)

            ticking = asyncio.create_task(tick())
            if engine.name != "local":
                for n in range(20):
                    async with await q.receive(timeout=10) as message:
                        assert message.value == n
                assert ticks > 20
            ticking.cancel()

    run(work())
