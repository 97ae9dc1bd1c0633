"""What gets: pulls batches from one consumer of a stream, keeps what is in hand ours, and settles it.

Without a lease a message is ours for as long as the process lives. The server cannot see that, so it is told: each third of
`grace`, "in progress" for all that is in hand. With a lease it is told once for each `extend`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from nats import errors as client_errors
from nats.aio.msg import Msg

from segq._core.base.errors import Empty, LabelRemoved, NotAQueueError, UnreachableError, UnsupportedError
from segq._core.take.claims import spent_reason
from segq.engines.nats.channel import Channel
from segq.engines.nats.connection import NO_RESPONDERS
from segq.engines.nats.delivery import Delivery
from segq.engines.nats.graveyard import Graveyard
from segq.engines.nats.stream import Stream

log = logging.getLogger("segq")

ACK, NAK, PROGRESS, TERM = b"+ACK", b"-NAK", b"+WPI", b"+TERM"
SLICE = 5.0  # seconds a request waits at the server: what a dead leader forgot is asked for again after so long
STRAY_SECONDS = 0.05  # what nobody asked for any more goes back after so long
_SILENT = 3  # times that a server which is there leaves a verdict unanswered, until we understand that it will not answer
MOST_AT_ONCE = 1000  # messages asked for in one request

_SETTLED, _CONFLICT = ("404", "408"), "409"


class Reader:
    """A consumer of a stream (the workers of a queue, a label of a topic) as one handle sees it."""

    def __init__(self, stream: Stream, consumer: str, label: str | None = None) -> None:
        self.stream, self.consumer, self._label = stream, consumer, label
        self._connection = stream.connection
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream.name}.{consumer}"
        self._free: list[Channel] = []
        self._retired: set[asyncio.Task[None]] = set()
        self._strays: deque[Delivery] = deque()
        self._hands: set[Delivery] = set()
        self._ack_wait = stream.settings.ack_wait
        self._keeper: asyncio.Task[None] | None = None
        self._graveyard = Graveyard(stream, label)

    # --- taking ---

    async def take(self, most: int, block: bool, seconds: float | None) -> list[Delivery]:
        """Up to `most`; waits for the first. Raises Empty, LabelRemoved, NotAQueueError, UnreachableError."""
        asked = time.monotonic()
        deadline = asked if not block else math.inf if seconds is None else asked + seconds
        while True:
            found, certain = await self._admitted(self._from_strays(most)), True
            if not found:
                found, certain = await self._pull(most, deadline)
            if found:
                return found
            self._demand_server(asked, deadline)
            if time.monotonic() >= deadline and (certain or deadline > asked):
                raise Empty(f"{self.stream.shown}: nothing there", path=self.stream.shown)

    async def _pull(self, most: int, deadline: float) -> tuple[list[Delivery], bool]:
        """One request, or two: what is there, and if there is nothing, the first to come. And whether it is certain that there
        was no more: without a server it is not."""
        if not await self._connection.connected(time.monotonic() + min(1.0, max(0.2, deadline - time.monotonic()))):
            return [], False
        waiting = time.monotonic() < deadline
        if most > 1 or not waiting:
            found, certain = await self._request(min(most, MOST_AT_ONCE), None)
            if found or not waiting:
                return found, certain
        left = deadline - time.monotonic()
        return await self._request(1, min(SLICE, left)) if left > 0.001 else ([], True)

    async def _request(self, most: int, wait: float | None) -> tuple[list[Delivery], bool]:
        channel = self._free.pop() if self._free else Channel(self._connection, self._next, self._stray)
        if channel.broken:
            self._retire(channel)
            channel = Channel(self._connection, self._next, self._stray)
        try:
            await channel.open()
            messages, status, text = await channel.pull(most, wait)
        except (client_errors.Error, OSError):
            channel.broken, messages, status, text = True, [], "", ""
        finally:
            if channel.broken:
                self._retire(channel)
            else:
                self._free.append(channel)
        if not messages and status not in _SETTLED:
            await self._look_into(status, text)
        admitted = await self._admitted([Delivery(message, self._ack_wait) for message in messages])
        return admitted, not messages and status in _SETTLED

    async def _look_into(self, status: str, text: str) -> None:
        """The request was refused: the consumer may be gone, its leader may be changing, too many may be waiting."""
        maybe_gone = status == NO_RESPONDERS or (status == _CONFLICT and "Deleted" in text)
        if maybe_gone and await self.stream.consumer(self.consumer) is None:
            where = self.stream.shown
            if self._label is not None:
                raise LabelRemoved(f"label {self._label!r} of {where} was removed", path=where)
            raise NotAQueueError(f"{where} was removed", path=where)
        await asyncio.sleep(0.05)

    def _demand_server(self, asked: float, deadline: float) -> None:
        """A wait for items may be long, one for a server is not: after `patience` it is said."""
        down, now = self._connection.down_since, time.monotonic()
        patience = self._connection.login.patience
        if (down is not None and now - down > patience) or (deadline == asked and now - asked > patience):
            raise self._connection.unreachable()

    async def _admitted(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that may be handed out: not what has expired, nor what was handed out too often."""
        if not deliveries:
            return []
        settings, now = self.stream.settings, self._connection.now()
        admitted = []
        for delivery in deliveries:
            expires = delivery.expires_at(settings.ttl)
            if expires is not None and now >= expires:
                await self._send(delivery.reply, TERM)
            elif settings.max_deliveries is not None and delivery.deliveries > settings.max_deliveries:
                await self.bury(delivery, spent_reason(settings.max_deliveries))
            else:
                admitted.append(delivery)
        self._hands.update(admitted)
        if admitted and self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        return admitted

    # --- what nobody waited for ---

    def _stray(self, message: Msg) -> None:
        if not self._strays:
            asyncio.get_running_loop().call_later(STRAY_SECONDS, self._give_back_strays)
        self._strays.append(Delivery(message, self._ack_wait))

    def _from_strays(self, most: int) -> list[Delivery]:
        return [self._strays.popleft() for _ in range(min(most, len(self._strays)))]

    def _give_back_strays(self) -> None:
        for delivery in self._from_strays(len(self._strays)):
            self._later(self._send(delivery.reply, NAK))

    def _retire(self, channel: Channel) -> None:
        """Closed when nothing can arrive for it any more."""

        async def later() -> None:
            try:
                await asyncio.sleep(SLICE + 1)
            finally:
                with contextlib.suppress(client_errors.Error, OSError):
                    await channel.close()

        self._later(later())

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    # --- settling ---

    async def settle(self, deliveries: Sequence[Delivery], verdict: bytes) -> list[Delivery]:
        """Says the verdict on each and waits until the server has it; returns those that were not ours any more.

        One connection, one leader, one queue between them: when the last is confirmed all before it have been heard, unless the
        connection was lost meanwhile; then all are said again. A server that was killed may have forgotten that it delivered
        something: it does not answer for that, and will deliver it again, so that it is lost to us. Raises UnreachableError.
        """
        lost = [each for each in deliveries if not each.is_ours()]
        ours = [each for each in deliveries if each.is_ours()]
        given_up = time.monotonic() + self._connection.login.patience
        silent = 0
        while ours:
            epoch = self._connection.epoch
            if await self._say(ours, verdict):
                for each in ours:
                    each.settled = True
                    self._hands.discard(each)
                break
            silent = silent + 1 if epoch == self._connection.epoch and self._connection.down_since is None else 0
            if silent == _SILENT:
                lost += ours
                for each in ours:
                    each.until = 0.0
                break
            lost += [each for each in ours if not each.is_ours()]
            ours = [each for each in ours if each.is_ours()]
            if ours and not await self._connection.connected(given_up):
                raise self._connection.unreachable("; what was to be settled may be handed out again")
        self._hands.difference_update(lost)
        return lost

    async def _say(self, deliveries: Sequence[Delivery], verdict: bytes) -> bool:
        """Whether it arrived, for sure."""
        epoch = self._connection.epoch
        try:
            for delivery in deliveries[:-1]:
                await self._connection.send(delivery.reply, verdict)
        except (client_errors.Error, OSError):
            return False
        answer = await self._connection.ask(deliveries[-1].reply, verdict)
        return answer is not None and epoch == self._connection.epoch

    async def _send(self, subject: str, payload: bytes) -> None:
        with contextlib.suppress(client_errors.Error, OSError):  # then the item comes again, as after a death
            await self._connection.send(subject, payload)

    async def nack(self, delivery: Delivery, delay: float = 0.0, reason: str = "") -> bool:
        """False if it is not ours. What has been handed out often enough goes to the dead letters instead."""
        most = self.stream.settings.max_deliveries
        if most is not None and delivery.deliveries >= most:
            return await self.bury(delivery, spent_reason(delivery.deliveries, reason))
        payload = NAK + (b" " + json.dumps({"delay": int(delay * 1e9)}).encode() if delay else b"")
        return not await self.settle([delivery], payload)

    async def bury(self, delivery: Delivery, reason: str) -> bool:
        """To the dead letters first, out of the queue then; False if it was not ours any more."""
        if not delivery.is_ours():
            return False
        await self._graveyard.add(delivery, reason)
        return not await self.settle([delivery], TERM)

    async def extend(self, delivery: Delivery, seconds: float) -> bool:
        """False if it is not ours any more. Raises UnsupportedError for less than the lease."""
        lease = self.stream.settings.lease
        if not delivery.is_ours():
            return False
        if lease is None:
            return True
        if seconds < lease:
            raise UnsupportedError(f"NATS extends a lease by the whole of it ({lease:g} s), not by {seconds:g} s")
        delivery.hold_until = time.monotonic() + seconds if seconds > lease else None
        if not await self._renew([delivery]):
            return False
        if delivery.hold_until is not None:
            self._later(self._hold(delivery, lease))
        return True

    # --- staying alive ---

    async def _renew(self, deliveries: Sequence[Delivery]) -> bool:
        """Tells the server that we are at work on them; says whether it heard."""
        now = time.monotonic()
        if not await self._say(deliveries, PROGRESS):
            return False
        for delivery in deliveries:
            if delivery.until > now:
                delivery.until = now + self._ack_wait
        return True

    async def _keep(self) -> None:
        """Where there is no lease: a sign of life for all that is in hand, each third of the time we have to give one."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            if self.stream.settings.lease is None and (ours := [each for each in self._hands if each.is_ours()]):
                await self._renew(ours)

    async def _hold(self, delivery: Delivery, lease: float) -> None:
        """Renews the lease until it ends when it was asked to end."""
        last = (delivery.hold_until or 0.0) - lease
        while not delivery.settled and (left := last - time.monotonic()) > 0:
            await asyncio.sleep(min(left, lease / 2))
            if delivery.settled or not delivery.is_ours():
                return
            await self._renew([delivery])

    # --- looking ---

    async def info(self) -> dict[str, Any]:
        """What the server knows of the consumer. Raises LabelRemoved, NotAQueueError."""
        found = await self.stream.consumer(self.consumer)
        if found is None:
            await self._look_into(NO_RESPONDERS, "")
            raise UnreachableError(f"{self.stream.shown}: its consumer is being made; try again")
        return found

    async def purge(self) -> int:
        """Takes what waits and acknowledges it, so that what others have in hand is left to them."""
        dropped = 0
        while True:
            try:
                taken = await self.take(MOST_AT_ONCE, False, None)
            except Empty:
                return dropped
            dropped += len(taken) - len(await self.settle(taken, ACK))

    async def close(self) -> None:
        """Gives back what is in hand."""
        if self._keeper is not None:
            self._keeper.cancel()
        if ours := [each for each in [*self._hands, *self._strays] if each.is_ours()]:
            with contextlib.suppress(Exception):
                await self._say(sorted(ours, key=lambda each: each.sequence), NAK)
        for each in self._hands:
            each.settled = True
        for task in list(self._retired):
            task.cancel()
        for channel in self._free:
            with contextlib.suppress(client_errors.Error, OSError):
                await channel.close()
        await asyncio.gather(*self._retired, return_exceptions=True)
