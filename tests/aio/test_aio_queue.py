"""`segq.aio.Queue` in one loop: the synchronous API's meaning, awaited."""

from __future__ import annotations

import asyncio
import doctest
import pickle
import threading
import time
from typing import Any

import pytest
from loops import PATIENCE, in_loop, waiting

import segq
import segq.aio
from segq import aio


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(segq.aio)
    assert results.attempted
    assert not results.failed


@in_loop
async def test_items_come_out_in_the_order_put(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        for n in range(100):
            await q.put(n)
        await q.put_many(range(100, 200))
        q.put_nowait(200)
        assert [await q.get() for _ in range(100)] == list(range(100))
        assert await q.get_many(50) == list(range(100, 150))
        assert q.get_nowait() == 150
        assert (q.qsize(), len(q), bool(q), q.empty(), q.full()) == (50, 50, True, False, False)
        assert await q.peek(2) == [151, 152]
        assert await q.purge() == 50


@in_loop
async def test_a_backlog_of_several_segments_comes_out_whole(queue_path: str) -> None:
    with segq.Queue(queue_path, segment_items=1000) as q:
        q.put_many(range(1000))
        for n in range(1000, 4500):
            q.put(n)
    async with aio.Queue(queue_path) as q:
        found = [await q.get() for _ in range(700)]
        found += await q.get_many(700)
        for _ in range(400):
            with await q.receive() as message:
                found.append(message.value)
        while len(found) < 4500:
            for message in await q.receive_many(300):
                found.append(message.value)
                message.ack()
        assert found == list(range(4500))
        for _ in range(1400):
            q.task_done()
        await q.join(timeout=PATIENCE)
        assert (await q.stats()).items == 0


@in_loop
async def test_an_empty_queue_raises_empty(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        for get in (
            lambda: q.get(False),
            lambda: q.get(block=False),
            lambda: q.get(timeout=0.01),
            lambda: q.get(timeout=0),
            lambda: q.receive(timeout=0.01),
            lambda: q.get_many(3, timeout=0.01),
            lambda: q.receive_many(3, False),
        ):
            with pytest.raises(segq.Empty):
                await get()
        with pytest.raises(segq.Empty):
            q.get_nowait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await q.get()


@in_loop
async def test_a_full_queue_raises_full_and_stores_nothing(queue_path: str) -> None:
    async with aio.Queue(queue_path, capacity=2) as q:
        await q.put_many(["a", "b"])
        assert q.full()
        for put in (
            lambda: q.put("c", False),
            lambda: q.put("c", block=False),
            lambda: q.put("c", timeout=0.01),
            lambda: q.put("c", timeout=0),
            lambda: q.put_many(["c", "d"], timeout=0.01),
        ):
            with pytest.raises(segq.Full):
                await put()
        with pytest.raises(segq.Full):
            q.put_nowait("c")
        with pytest.raises(segq.ItemTooLarge):
            await q.put_many(["c", "d", "e"])
        assert await q.get_many(5) == ["a", "b"]


@in_loop
async def test_what_is_wrong_is_said_as_by_the_synchronous_api(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        with pytest.raises(segq.SerializationError):
            await q.put(object())
        with pytest.raises(segq.SerializationError):
            await q.put_many([1, object()])
        with pytest.raises(TypeError, match="use put"):
            await q.put_many(b"ab")
        with pytest.raises(segq.SettingsError):
            await q.get(timeout=-1)
        with pytest.raises(segq.SettingsError):
            await q.put(1, timeout="1")  # type: ignore[arg-type]
        with pytest.raises(segq.SettingsError):
            await q.get_many(0)
        with pytest.raises(ValueError, match="task_done"):
            q.task_done()
        assert q.empty()
    with pytest.raises(segq.SettingsConflict):
        await aio.Queue(queue_path, capacity=5).get()
    with pytest.raises(segq.NotAQueueError):
        await aio.Queue(queue_path + "2", create=False).put(1)


@in_loop
async def test_a_put_wakes_a_get_that_waits(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        get = asyncio.create_task(q.get())
        await waiting(q._bound.items, 1)
        await q.put(1)
        assert await get == 1


@in_loop
async def test_a_get_wakes_a_put_that_waits(queue_path: str) -> None:
    async with aio.Queue(queue_path, capacity=1) as q:
        await q.put(1)
        puts = [asyncio.create_task(q.put(n)) for n in range(2, 6)]
        await waiting(q._bound.room, 4)
        assert sorted([await q.get() for _ in range(5)]) == [1, 2, 3, 4, 5]
        await asyncio.gather(*puts)


@in_loop
async def test_many_that_put_more_than_there_is_room_for_all_come_through(queue_path: str) -> None:
    async with aio.Queue(queue_path, capacity=10) as q:
        puts = [asyncio.create_task(q.put_many([n] * (n % 7 + 1))) for n in range(40)]
        found: list[int] = []
        while len(found) < sum(n % 7 + 1 for n in range(40)):
            found += await q.get_many(4)
        await asyncio.gather(*puts)
        assert sorted(found) == sorted(n for n in range(40) for _ in range(n % 7 + 1))


@in_loop
async def test_a_thousand_waiters_take_no_thread_and_no_time_and_are_served_in_turn(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        threads = threading.active_count()
        gets = [asyncio.create_task(q.get()) for _ in range(1000)]
        await waiting(q._bound.items, 1000)
        cpu = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - cpu < 0.2
        assert threading.active_count() <= threads + 3  # the watcher, and the worker that looked first
        await q.put_many(range(1000))
        assert await asyncio.gather(*gets) == list(range(1000))


@in_loop
async def test_the_loop_goes_on_while_others_are_asked_for_room(queue_path: str) -> None:
    """What others have reserved and do not give back is waited for, for a second, by a thread."""
    async with aio.Queue(queue_path, capacity=100) as q:
        await q.put_many(range(100))
        ticks = 0
        put = asyncio.create_task(q.put(1, timeout=0.3))
        while not put.done():
            await asyncio.sleep(0.005)
            ticks += 1
        with pytest.raises(segq.Full):
            await put
        assert ticks > 5


@in_loop
async def test_join_returns_when_everything_is_finished(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        await q.join()
        await q.put_many(["a", "b"])
        joins = [asyncio.create_task(q.join()) for _ in range(3)]
        assert await q.get() == "a"
        message = await q.receive()
        with pytest.raises(TimeoutError):
            await q.join(timeout=0.01)
        message.ack()
        await waiting(q._bound.joins, 3)
        q.task_done()
        await asyncio.gather(*joins)


@in_loop
async def test_a_shutdown_wakes_all_who_wait(queue_path: str) -> None:
    async with aio.Queue(queue_path, capacity=1) as q, aio.Queue(queue_path) as other:
        gets = [asyncio.create_task(q.get()) for _ in range(5)]
        await waiting(q._bound.items, 5)
        other.shutdown()
        assert [type(error) for error in await asyncio.gather(*gets, return_exceptions=True)] == [segq.ShutDown] * 5
        with pytest.raises(segq.ShutDown):
            await q.put(1)
        assert [message async for message in q.messages()] == []


@in_loop
async def test_closing_wakes_all_who_wait(queue_path: str) -> None:
    q = aio.Queue(queue_path, capacity=1)
    await q.put(1)
    puts = [asyncio.create_task(q.put(n)) for n in range(3)]
    await waiting(q._bound.room, 3)
    await q.close()
    await q.close()
    assert [type(error) for error in await asyncio.gather(*puts, return_exceptions=True)] == [segq.ClosedError] * 3
    for use in (q.get, q.join, lambda: q.put(1), lambda: q.put_many([1]), lambda: q.get_many(1)):
        with pytest.raises(segq.ClosedError):
            await use()
    with pytest.raises(segq.ClosedError):
        q.messages()
    never_opened = aio.Queue(queue_path)
    await never_opened.close()
    with pytest.raises(segq.ClosedError):
        await never_opened.get()


@in_loop
async def test_messages_are_acknowledged_on_the_way_and_given_back_on_leaving(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        await q.put_many(range(4))
        async for message in q.messages(timeout=0.01):
            if message.value == 1:
                break
        assert [(m.value, m.deliveries) for m in await q.receive_many(2)] == [(1, 2), (2, 1)]
    async with aio.Queue(queue_path) as q:

        async def fail() -> None:
            async for message in q:
                raise LookupError(message.value)

        with pytest.raises(LookupError):
            await fail()
        assert {message.value async for message in q.messages(timeout=0.01)} == {1, 2, 3}
        assert (await q.stats()).items == 0
        iterator = q.messages()
        await q.put(9)
        await anext(iterator)
        await iterator.aclose()
        assert await q.get() == 9


@in_loop
async def test_a_message_is_settled_as_in_the_synchronous_api(queue_path: str) -> None:
    async with aio.Queue(queue_path, lease=30) as q:
        await q.put("a")
        message = await q.receive()
        message.extend(5)
        message.nack()
        with pytest.raises(segq.ReceiptError):
            message.ack()
        with await q.receive() as again:
            assert (again.value, again.deliveries) == ("a", 2)
        assert q.empty()


@in_loop
async def test_a_lease_that_runs_out_wakes_a_coroutine_that_waits(queue_path: str) -> None:
    async with aio.Queue(queue_path, lease=0.1) as q:
        await q.put("a")
        await q.receive()
        again = await q.receive(timeout=PATIENCE)
        assert again.deliveries == 2
        again.ack()


@in_loop
async def test_a_time_to_live_is_kept(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        await q.put("short", ttl=0.01)
        await q.put_many(["long"], ttl=100)
        await asyncio.sleep(0.02)
        assert await q.get_many(5) == ["long"]


@in_loop
async def test_a_handle_can_be_sent_to_another_process(queue_path: str) -> None:
    async with aio.Queue(queue_path, capacity=7) as q:
        await q.put(1)
        async with pickle.loads(pickle.dumps(q)) as copy:
            assert copy.settings.capacity == 7
            assert copy.path == queue_path
            assert await copy.get() == 1
        assert repr(copy) == f"<segq.aio.Queue {queue_path!r} closed>"


@in_loop
async def test_puts_that_wait_for_the_disk_go_as_one_write(queue_path: str) -> None:
    async with aio.Queue(queue_path, durability="power") as q:
        store, calls = q._bound.commits._producer.store, []

        def counted(data: list[bytes], *arguments: Any, **options: Any) -> Any:
            calls.append(len(data))
            return store(data, *arguments, **options)

        q._bound.commits._producer.store = counted
        await asyncio.gather(*(q.put(n) for n in range(200)))
        assert len([n for n in calls if n > 1]) <= 5
        assert sorted(await q.get_many(500)) == list(range(200))


@in_loop
async def test_of_a_group_that_cannot_go_as_one_each_learns_its_own_fate(queue_path: str) -> None:
    async with aio.Queue(queue_path, durability="power", capacity=5) as q:
        outcomes = await asyncio.gather(*(q.put(n, block=False) for n in range(8)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(segq.Full) == 3
        assert len(await q.get_many(10)) == 5
        with pytest.raises(segq.ItemTooLarge):
            await asyncio.gather(q.put(1), q.put_many(range(6)), q.put(2))
        assert sorted(await q.get_many(10)) == [1, 2]


@in_loop
async def test_an_item_given_back_for_later_comes_when_it_is_due_and_lets_others_pass(queue_path: str) -> None:
    async with aio.Queue(queue_path) as q:
        await q.put_many([1, 2])
        message = await q.receive()
        begun = time.monotonic()
        message.nack(delay=0.2)
        assert await q.get(timeout=PATIENCE) == 2
        assert await q.get(timeout=PATIENCE) == 1
        assert time.monotonic() - begun >= 0.2


@in_loop
async def test_an_item_handed_out_in_vain_too_often_is_a_dead_letter(queue_path: str) -> None:
    async with aio.Queue(queue_path, max_deliveries=2) as q:
        await q.put_many(["bad", "worse"])
        for _ in range(2):
            (await q.receive(timeout=PATIENCE)).nack()
        (await q.receive(timeout=PATIENCE)).reject("no good")
        letters = await asyncio.to_thread(list, q.dead)
        assert {(letter.value, letter.deliveries) for letter in letters} in (
            {("bad", 2), ("worse", 1)},
            {("bad", 1), ("worse", 2)},
        )
        assert q.empty()
