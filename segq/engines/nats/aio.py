"""The NATS engine for asyncio: the API of `segq.aio`, over the same cores, on the same background loop.

A coroutine of the user's loop waits for one of the background loop, so that handles, connections and signs of life are those
of the process, whatever the user's loop is busy with.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self

from segq._core.base.errors import Empty, UnsupportedError
from segq._core.base.message import Message
from segq._core.base.settings import Settings, whole_number
from segq._core.directory.tally import LabelStats, Stats
from segq.engines.nats import loop
from segq.engines.nats.core import Core, Plan
from segq.engines.nats.delivery import Delivery
from segq.engines.nats.handle import NatsHandle, check_arguments
from segq.engines.nats.message import NatsMessage
from segq.engines.nats.queues import NatsQueue, NatsSubscription, NatsTopic
from segq.handles.subscription import Lag


class AioMessage(NatsMessage):
    """A message whose `ack`, `nack`, … hold the loop up for a round trip to the server; `async with` does not."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)


class AioHandle:
    """Opened on first use, in a thread; `async with` opens it at once, and closes it."""

    def __init__(self, describe: Callable[[], NatsHandle]) -> None:
        self._describe = describe
        self._handle: Any = None
        self._opening = threading.Lock()  # held while a connection is made, by a thread that has nothing else to do

    def _opened(self) -> Any:
        with self._opening:
            if self._handle is None:
                self._handle = self._describe()
            return self._handle

    async def _open(self) -> Core:
        handle = self._handle or await asyncio.to_thread(self._opened)
        core: Core = handle._core or await asyncio.to_thread(handle._open)  # noqa: SLF001 - this is its other face
        return core

    async def _run(self, work: Callable[[Core], Coroutine[Any, Any, Any]]) -> Any:
        core = await self._open()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(core), loop.of_process().loop))

    async def close(self) -> None:
        """Gives back what this handle holds; what is stored stays. Closing twice is fine."""
        await asyncio.to_thread(lambda: self._opened().close())

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def path(self) -> str:
        """The address, without settings and password."""
        path: str = self._opened().path
        return path

    @property
    def settings(self) -> Settings:
        """As they are stored with the stream."""
        settings: Settings = self._opened().settings
        return settings

    def shutdown(self, immediate: bool = False) -> NoReturn:  # noqa: ARG002  # the signature of the local one
        """UnsupportedError: a server does not know who has a queue open."""
        raise UnsupportedError("the NATS engine cannot do shutdown: put an item that your consumers understand as the end")


class AioPutting(AioHandle):
    """The putting methods. Cancelled in one of them, what was to be stored may be stored or not."""

    async def put(self, item: Any, block: bool = True, timeout: float | None = None, ttl: float | None = None) -> None:
        """As `NatsPutting.put`."""
        check_arguments(timeout, ttl)
        core = await self._open()
        payload = core.dumped((item,))[0]
        await self._run(lambda core: core.publisher.put(payload, block, timeout, ttl))

    async def put_many(
        self, items: Iterable[Any], block: bool = True, timeout: float | None = None, ttl: float | None = None
    ) -> None:
        """As `NatsPutting.put_many`."""
        check_arguments(timeout, ttl)
        core = await self._open()
        payloads = core.dumped(items)
        await self._run(lambda core: core.publisher.put_many(payloads, block, timeout, ttl))

    async def full(self) -> bool:
        """Whether `put` would have to wait just now."""
        return bool(await self._run(Core.full))

    async def stats(self) -> Stats:
        """What is stored; `unknown` names the fields that this engine cannot tell."""
        found: Stats = await self._run(Core.stats)
        return found


class AioGetting(AioHandle):
    """The getting methods. Cancelled while it waits, a coroutine has taken nothing; what arrives just then is given back."""

    async def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As `NatsGetting.get`. Cancelled while the acknowledgement is confirmed, the item may be gone; `receive` has no such
        gap."""
        return (await self.get_many(1, block, timeout))[0]

    async def get_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        """As `NatsGetting.get_many`."""
        found = await self._taken(whole_number("max_items", max_items), block, timeout)
        await self._run(lambda core: core.acknowledged([delivery for delivery, _ in found]))
        return [value for _, value in found]

    async def receive(self, block: bool = True, timeout: float | None = None) -> AioMessage:
        """As `NatsGetting.receive`; `async with` settles the message without holding up the loop."""
        return (await self.receive_many(1, block, timeout))[0]

    async def receive_many(self, max_items: int, block: bool = True, timeout: float | None = None) -> list[AioMessage]:
        """As `NatsGetting.receive_many`."""
        found = await self._taken(whole_number("max_items", max_items), block, timeout)
        core = await self._open()
        return [AioMessage(core, loop.of_process().call, delivery, value) for delivery, value in found]

    async def ack_many(self, messages: Iterable[Message]) -> None:
        """As `NatsGetting.ack_many`."""
        await asyncio.to_thread(self._opened().ack_many, list(messages))

    async def messages(self, timeout: float | None = None) -> AsyncIterator[AioMessage]:
        """One message after the other, each acknowledged when you come for the next, given back after an exception."""
        while True:
            try:
                message = await self.receive(timeout=timeout)
            except Empty:
                return
            async with message:
                yield message

    def __aiter__(self) -> AsyncIterator[AioMessage]:
        """`messages()`."""
        return self.messages()

    async def peek(self, n: int = 1) -> list[Any]:
        """As `NatsGetting.peek`."""
        found: list[Any] = await self._run(lambda core: core.peek(whole_number("n", n)))
        return found

    async def purge(self) -> int:
        """As `NatsGetting.purge`."""
        return int(await asyncio.to_thread(lambda: self._opened().purge()))

    async def qsize(self) -> int:
        """How many items were never handed out."""
        return int(await self._run(Core.waiting))

    async def empty(self) -> bool:
        """Whether nothing waits that was never handed out."""
        return await self.qsize() == 0

    async def _taken(self, most: int, block: bool, timeout: float | None) -> list[tuple[Delivery, Any]]:
        """What was taken is in `box` before it is on its way to this loop: if we are cancelled meanwhile it goes back."""
        check_arguments(timeout)
        box: list[tuple[Delivery, Any]] = []

        async def take(core: Core) -> None:
            box.extend(await core.receive(most, block, timeout))

        try:
            await self._run(take)
        except asyncio.CancelledError:
            background = loop.of_process().loop
            core = await self._open()
            asyncio.run_coroutine_threadsafe(core.give_back(box), background)
            raise
        return box


class AioQueue(AioGetting, AioPutting):
    """A work-queue stream with the API of `segq.aio.Queue`, but that everything which asks the server is awaited."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(partial(NatsQueue, plan))

    def task_done(self) -> NoReturn:
        """UnsupportedError, as in the synchronous API."""
        raise UnsupportedError("the NATS engine cannot do task_done: use receive and ack")

    async def join(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002  # the signature of the local one
        """UnsupportedError, as in the synchronous API."""
        raise UnsupportedError("the NATS engine cannot do join: use receive and ack, and wait for stats().items to be 0")


class AioSubscription(AioGetting):
    """A label with the API of `segq.aio.Subscription`."""

    def __init__(self, plan: Plan, label: str, start: str = "oldest") -> None:
        self.label = label
        super().__init__(partial(NatsSubscription, plan, label, start))

    async def stats(self) -> LabelStats:
        """How far the label is; `unknown` names the fields that this engine cannot tell."""
        found: LabelStats = await self._run(Core.label_stats)
        return found

    async def lag(self) -> Lag:
        """How far the label is behind, in items and in seconds."""
        found = await self.stats()
        return Lag(found.lag, found.lag_seconds)

    async def missed(self) -> int:
        """As `NatsSubscription.missed`."""
        await self._open()
        return int(self._opened().missed)


class AioTopic(AioPutting):
    """A topic with the API of `segq.aio.Topic`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        super().__init__(partial(NatsTopic, plan))

    async def subscribe(self, label: str, start: str = "oldest", prefetch: int | None = None) -> AioSubscription:
        """A handle that gets the items of `label`; the label is there when this returns."""
        await self._open()
        if prefetch not in (None, 1):
            raise UnsupportedError("the NATS engine cannot do prefetch: use get_many or receive_many")
        made = AioSubscription(self._plan, label, start)
        await made._open()  # noqa: SLF001
        return made

    async def labels(self) -> list[str]:
        """The labels there are, in the order of their text."""
        found: list[str] = await asyncio.to_thread(lambda: self._opened().labels())
        return found

    async def remove_label(self, label: str) -> None:
        """Removes a label and what only it held back. Raises KeyError if there is none."""
        await asyncio.to_thread(lambda: self._opened().remove_label(label))

    async def qsize(self) -> int:
        """How many items are stored."""
        return int(await self._run(Core.stored))

    async def empty(self) -> bool:
        """Whether nothing is stored just now."""
        return await self.qsize() == 0
