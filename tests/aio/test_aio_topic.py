"""Topics for asyncio."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from loops import in_loop, waiting

import segq
from segq import aio


@in_loop
async def test_each_label_gets_every_item(queue_path: str) -> None:
    async with aio.Topic(queue_path, ttl=3600) as t, await t.subscribe("mail") as mail, await t.subscribe("log") as log:
        assert await t.labels() == ["log", "mail"]
        gets = [asyncio.create_task(mail.get()) for _ in range(3)]
        await waiting(mail._bound.items, 3)
        await t.put("a")
        await t.put_many(["b", "c"])
        t.put_nowait("d")
        assert await asyncio.gather(*gets) == ["a", "b", "c"]
        assert await log.get_many(9) == ["a", "b", "c", "d"]
        assert (await mail.lag()).items == await mail.qsize() == 1
        assert (await mail.missed(), await mail.empty()) == (0, False)
        assert [message.value async for message in mail.messages(timeout=0.01)] == ["d"]
        assert (t.qsize(), len(t), bool(t), t.empty(), t.full()) == (0, 0, True, True, False)
        assert [label.lag for label in (await t.stats()).labels] == [0, 0]
        async with pickle.loads(pickle.dumps(mail)) as again, pickle.loads(pickle.dumps(t)) as topic:
            await topic.put("e")
            with await again.receive() as message:
                assert message.value == "e"
        assert "aio.Subscription 'mail'" in repr(again)
        assert "aio.Topic" in repr(topic)
        await t.remove_label("log")
        with pytest.raises(KeyError):
            await t.remove_label("log")
        with pytest.raises(segq.LabelRemoved):
            await log.get()


@in_loop
async def test_a_label_that_is_removed_is_told_to_those_who_wait_there(queue_path: str) -> None:
    async with aio.Topic(queue_path) as t, aio.Subscription(queue_path, "mail") as mail:
        gets = [asyncio.create_task(mail.get()) for _ in range(3)]
        await waiting(mail._bound.items, 3)
        await t.remove_label("mail")
        assert [type(e) for e in await asyncio.gather(*gets, return_exceptions=True)] == [segq.LabelRemoved] * 3


@in_loop
async def test_a_topic_that_drops_its_oldest_never_makes_a_put_wait(queue_path: str) -> None:
    async with aio.Topic(queue_path, capacity=80, on_full="drop_oldest") as t, await t.subscribe("slow") as slow:
        for n in range(150):
            await t.put(n, block=False)
        found = await slow.get_many(1000)
        assert found[-1] == 149
        assert len(found) + await slow.missed() == 150


@in_loop
async def test_a_shutdown_of_a_topic_ends_the_loops_over_its_labels(queue_path: str) -> None:
    async with aio.Topic(queue_path) as t, await t.subscribe("mail") as mail:
        await t.put(1)

        async def read() -> list[int]:
            return [message.value async for message in mail]

        reader = asyncio.create_task(read())
        await waiting(mail._bound.items, 1)
        t.shutdown()
        assert await reader == [1]
