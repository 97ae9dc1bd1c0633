"""A coroutine that is cancelled in a get, or in a receive, has taken nothing; in a put that waits for room, stored nothing."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from loops import happens, in_loop, waiting

import segq
from segq import aio


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Held:
    """Lets a function of the engine go on only when the test says so."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.begun, self.go, self.over = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.begun.set()
        assert self.go.wait(20)
        try:
            return self._function(*arguments, **options)
        finally:
            self.over.set()


@in_loop
async def test_a_get_that_waits_takes_nothing_when_it_is_cancelled(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        for get in (q.get, q.receive, lambda: q.get_many(5), lambda: q.receive_many(5)):
            task = asyncio.create_task(get())
            await waiting(q._bound.items, 1)
            await cancelled(task)
        await q.put(1)
        assert await q.get() == 1


@in_loop
async def test_who_was_woken_and_cancelled_at_once_passes_the_wake_on(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        first, second = asyncio.create_task(q.get()), asyncio.create_task(q.get())
        await waiting(q._bound.items, 2)
        q._bound.items.pass_on()  # what a ring does
        first.cancel()  # before it runs
        await q.put(1)
        assert await second == 1
        with pytest.raises(asyncio.CancelledError):
            await first


@in_loop
async def test_a_ring_for_one_who_is_gone_reaches_another_process(queue_path: str) -> None:
    """The watcher still sleeps at the bell for a coroutine that was cancelled, in front of a thread that waits there."""
    async with aio.Queue(queue_path) as q:
        gone = asyncio.create_task(q.get())
        await waiting(q._bound.items, 1)
        with segq.Queue(queue_path) as other:
            got: list[Any] = []
            thread = threading.Thread(target=lambda: got.append(other.get()))
            thread.start()
            await asyncio.sleep(0.05)
            await cancelled(gone)
            await q.put(1)
            await asyncio.to_thread(thread.join, 20)
            assert got == [1]


@in_loop
async def test_what_a_thread_claims_for_a_get_that_was_cancelled_comes_first_next_time(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        await q.put_many(range(5))
        consumer = q._bound.consumer
        held = consumer.claim_ahead = Held(consumer.claim_ahead)  # type: ignore[method-assign]
        consumer.at_ease = lambda *, ahead=True: False  # type: ignore[method-assign]
        task = asyncio.create_task(q.get())
        await happens(held.begun)
        await cancelled(task)
        held.go.set()
        assert [await q.get() for _ in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["get_many", "receive_many"])
def test_what_a_thread_claims_for_many_that_were_cancelled_is_given_back_in_order(queue_path: str, name: str) -> None:
    @in_loop
    async def test() -> None:
        async with aio.Queue(queue_path) as q:
            await q.put_many(range(5))
            consumer = q._bound.consumer
            held = consumer.take_many = Held(consumer.take_many)  # type: ignore[method-assign]
            consumer.at_ease = lambda *, ahead=True: False  # type: ignore[method-assign]
            task = asyncio.create_task(getattr(q, name)(3))
            await happens(held.begun)
            await cancelled(task)
            held.go.set()
            await happens(held.over)
            messages = await q.receive_many(5)
            while len(messages) < 5:
                messages += await q.receive_many(5)
            assert [(m.value, m.deliveries) for m in messages] == [(n, 1) for n in range(5)]

    test()


@in_loop
async def test_a_put_that_waits_for_room_stores_nothing_when_it_is_cancelled(queue_path: str) -> None:
    async with aio.Queue(queue_path, capacity=1) as q:
        await q.put(1)
        puts = [asyncio.create_task(q.put(n)) for n in (2, 3)]
        await waiting(q._bound.room, 2)
        await cancelled(puts[0])
        assert await q.get() == 1
        await puts[1]
        assert await q.get() == 3
        assert q.empty()


@in_loop
async def test_a_put_behind_a_write_that_is_under_way_stores_nothing_when_it_is_cancelled(queue_path: str) -> None:
    async with aio.Queue(queue_path, durability="power") as q:
        producer = q._bound.producer
        held = producer.store = Held(producer.store)  # type: ignore[method-assign]
        held.go.set()
        await q.put(0)
        held.go.clear()
        held.begun.clear()

        def slow(*arguments: Any, **options: Any) -> Any:
            return None if options.get("at_ease") else held(*arguments, **options)

        producer.store = slow  # type: ignore[method-assign]
        first = asyncio.create_task(q.put(1))
        await happens(held.begun)
        second, third = asyncio.create_task(q.put(2)), asyncio.create_task(q.put(3))
        await asyncio.sleep(0.01)
        await cancelled(second)
        held.go.set()
        await asyncio.gather(first, third)
        assert await q.get_many(9) == [0, 1, 3]


@in_loop
async def test_nothing_is_lost_or_doubled_whoever_is_cancelled_whenever(queue_path: str) -> None:
    """Getters of all kinds, cancelled at random moments, by timeouts and from outside, while others put."""
    chance, total = random.Random(5), 1500
    found: list[int] = []
    async with aio.Queue(queue_path, capacity=50, segment_items=500) as q, aio.Queue(queue_path) as other:

        async def put(numbers: range) -> None:
            n = numbers.start
            while n < numbers.stop:
                batch = list(range(n, min(numbers.stop, n + chance.randint(1, 9))))
                await (other.put_many(batch) if len(batch) > 1 else q.put(batch[0]))
                n = batch[-1] + 1

        async def get() -> None:
            kind = chance.randrange(4)
            if kind == 0:
                found.append(await q.get())
            elif kind == 1:
                found.extend(await other.get_many(chance.randint(1, 20)))
            elif kind == 2:
                with await other.receive() as message:
                    found.append(message.value)
            else:
                for message in await q.receive_many(chance.randint(1, 20)):
                    found.append(message.value)
                    message.ack()

        async def get_until_all_are_there() -> None:
            while len(found) < total:
                try:
                    async with asyncio.timeout(chance.choice([0, 0.0001, 0.001, 0.01])):
                        await get()
                except TimeoutError:
                    pass

        async def disturb(tasks: list[asyncio.Task[None]]) -> None:
            while len(found) < total:
                await asyncio.sleep(chance.choice([0, 0.0005, 0.002]))
                i = chance.randrange(len(tasks))
                tasks[i].cancel()
                tasks[i] = asyncio.create_task(get_until_all_are_there())

        tasks = [asyncio.create_task(get_until_all_are_there()) for _ in range(8)]
        await asyncio.gather(put(range(500)), put(range(500, 1000)), put(range(1000, total)), disturb(tasks))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(found) == list(range(total))
        assert (await q.stats()).items == 0
