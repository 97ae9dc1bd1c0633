"""What puts: publishes until the server has confirmed, with message ids, so that what is sent again is not stored twice.

A batch is one atomic publish: the server stores all of it, contiguous and in order, or nothing.
"""

from __future__ import annotations

import asyncio
import enum
import json
import math
import secrets
import time
from collections.abc import Sequence

from nats import errors as client_errors
from nats.aio.msg import Msg

from segq._core.base.errors import Full, ItemTooLarge, QueueError, StorageError, UnsupportedError
from segq.engines.nats.connection import ANSWER_WAIT, NO_RESPONDERS, NOT_NOW
from segq.engines.nats.stream import ATOMIC_SINCE, TTL_SINCE, WORKERS, Stream

MOST_AT_ONCE = 1000  # items in an atomic publish: the server's limit
IN_FLIGHT = 512  # confirmations awaited at a time by a server without atomic publishes
_ROOM_COMES = 1.0  # seconds for which it is believed that room is on its way
_LET_OUT = 100  # items
_SLOWEST = 5 << 20  # bytes a second at least, of a large batch, before it is sent again
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05  # seconds between two looks whether there is room; nobody tells us

_STORE_FAILED, _DUPLICATE, _TOO_LARGE = 10077, 10201, 10199
_NOT_STORED = {10176, 10210, 10211}  # a batch that lost a part on its way, too many batches at once: nothing was stored
_SIZE = {10054}


class Outcome(enum.Enum):
    STORED = enum.auto()
    FULL = enum.auto()
    DUPLICATE = enum.auto()
    AGAIN = enum.auto()  # certainly not stored
    UNKNOWN = enum.auto()


class Publisher:
    """Stores payloads in one stream. `prefix` makes the ids of this handle differ from all others'."""

    def __init__(self, stream: Stream, *, atomic: bool) -> None:
        self._stream, self._connection, self._atomic = stream, stream.connection, atomic
        self._prefix, self._count = secrets.token_urlsafe(12), 0  # short, as every item carries it
        self._patience = min(self._connection.login.patience, stream.settings.duplicate_window / 2)

    async def put(self, payload: bytes, block: bool, seconds: float | None, ttl: float | None) -> None:
        self._check((payload,))
        headers = self._headers(ttl)
        await self._store([self._next_id()], [payload], headers, _deadline(block, seconds))

    async def put_many(self, payloads: Sequence[bytes], block: bool, seconds: float | None, ttl: float | None) -> None:
        """One atomic publish; with `atomic=False` as many as it takes, one after the other."""
        if not payloads:
            return
        self._check(payloads)
        headers, deadline = self._headers(ttl), _deadline(block, seconds)
        step = MOST_AT_ONCE
        if self._atomic:
            self._refuse_what_cannot_be_one(len(payloads))
        elif capacity := self._stream.settings.capacity:
            step = max(1, min(step, capacity // 4))  # so that it can go on before all of the room is free
        if not self._has_atomic and len(payloads) > 1:
            await self._one_by_one(payloads, headers, deadline)
            return
        for start in range(0, len(payloads), step):
            part = payloads[start : start + step]
            await self._store(self._next_ids(len(part)), part, headers, deadline)

    async def put_many_as(self, ids: Sequence[str], payloads: Sequence[bytes], seconds: float | None) -> None:
        """Under ids that the caller gives, in order; what was stored under its id within the window is left out."""
        self._check(payloads)
        deadline = _deadline(block=True, timeout=seconds)
        capacity = self._stream.settings.capacity
        step = min(MOST_AT_ONCE, max(1, capacity // 4) if capacity else MOST_AT_ONCE) if self._has_atomic else 1
        for start in range(0, len(payloads), step):
            own, part = ids[start : start + step], payloads[start : start + step]
            if await self._store(own, part, {}, deadline, given_ids=True):
                continue
            for each, payload in zip(own, part, strict=True):  # some of them were: each for itself
                await self._store([each], [payload], {}, deadline, given_ids=True)

    async def put_one_as(self, identity: str, payload: bytes) -> None:
        """One item, under an id that the caller gives."""
        self._check((payload,))
        await self._store([identity], [payload], {}, math.inf, given_ids=True)

    @property
    def _has_atomic(self) -> bool:
        return self._connection.version >= ATOMIC_SINCE

    def _refuse_what_cannot_be_one(self, count: int) -> None:
        capacity = self._stream.settings.capacity
        if capacity is not None and count > capacity:
            raise ItemTooLarge(f"{count} items can never fit a capacity of {capacity}; put them in smaller batches")
        if count > 1 and not self._has_atomic:
            raise UnsupportedError(
                f"{self._stream.shown}: put_many as one write, all or nothing, needs NATS 2.12.2 or later; connect with"
                " atomic=False to have the items stored one after the other"
            )
        if count > MOST_AT_ONCE:
            raise UnsupportedError(
                f"NATS stores at most {MOST_AT_ONCE:,} items as one write, all or nothing; these are {count:,}. Put them in"
                " smaller batches, or connect with atomic=False to have that done here"
            )

    def _check(self, payloads: Sequence[bytes]) -> None:
        most = self._connection.max_payload - 512  # headers count as well
        largest = max(map(len, payloads), default=0)
        if largest > most:
            raise ItemTooLarge(
                f"an item of {largest:,} bytes is more than this NATS server takes (max_payload, less headers: {most:,});"
                " nothing was stored",
                path=self._stream.shown,
            )

    def _next_id(self) -> str:
        self._count += 1
        return f"{self._prefix}-{self._count}"

    def _next_ids(self, count: int) -> list[str]:
        begin, prefix = self._count + 1, self._prefix
        self._count += count
        return [f"{prefix}-{number}" for number in range(begin, begin + count)]

    def _headers(self, ttl: float | None) -> dict[str, str]:
        if ttl is None:
            return {}
        if self._connection.version < TTL_SINCE:
            raise UnsupportedError(f"{self._stream.shown}: a time to live of single items needs NATS 2.11 or later")
        return {"Nats-TTL": f"{max(1, math.ceil(ttl))}s", "Segq-Ttl": str(int(ttl * 1000))}

    # --- one write, until its outcome is known ---

    async def _store(
        self, ids: list[str] | Sequence[str], payloads: Sequence[bytes], headers: dict[str, str], deadline: float,
        *, given_ids: bool = False,
    ) -> bool:  # fmt: skip
        """Until stored. False only for `given_ids`: some of them were stored before, by whom is not known.

        Raises Full, when nothing was stored for sure, and UnreachableError, when that is not known.
        """
        sure = True
        given_up = time.monotonic() + self._patience
        hoped = max(time.monotonic(), deadline) + _ROOM_COMES
        pause = _FIRST_PAUSE
        while True:
            if not await self._connection.connected(given_up):
                raise self._gone(sure=sure)
            outcome = await self._attempt(ids, payloads, headers)
            match outcome:
                case Outcome.STORED:
                    return True
                case Outcome.DUPLICATE:
                    return not (given_ids and len(ids) > 1)
                case Outcome.FULL:
                    given_up = time.monotonic() + self._patience
                    late = time.monotonic() + pause > deadline
                    if late and (time.monotonic() > hoped or not await self._room_is_coming(len(ids))):
                        raise Full(f"{self._stream.shown}: no room", path=self._stream.shown)
                    if sure and not given_ids:
                        ids = self._next_ids(len(ids))  # no server has to remember that it refused these
                case Outcome.UNKNOWN:
                    sure = False
            if time.monotonic() + pause > given_up:
                raise self._gone(sure=sure)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _room_is_coming(self, count: int) -> bool:
        """A replicated stream counts what was acknowledged for some milliseconds more; its consumer knows better."""
        settings = self._stream.settings
        if settings.capacity is None or settings.replicas == 1 or self._stream.kind != "queue":
            return False
        consumer = await self._stream.consumer(WORKERS)
        return consumer is not None and consumer["num_pending"] + consumer["num_ack_pending"] + count <= settings.capacity

    async def _attempt(self, ids: Sequence[str], payloads: Sequence[bytes], headers: dict[str, str]) -> Outcome:
        subject, connection = self._stream.subject, self._connection
        if len(ids) == 1:
            return self._read(await connection.ask(subject, payloads[0], {"Nats-Msg-Id": ids[0], **headers}))
        batch = self._next_id()
        epoch = connection.epoch
        first, first_said = connection.expect()  # a refusal is said here, a beginning confirmed
        reply, send = first, connection.send
        try:
            for number, (identity, payload) in enumerate(zip(ids[:-1], payloads, strict=False), 1):
                each = {"Nats-Msg-Id": identity, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number), **headers}
                await send(subject, payload, reply, each)
                reply = ""
                if not number % _LET_OUT:
                    await asyncio.sleep(0)  # what is buffered goes out, and the server works while we go on
            last = {
                "Nats-Msg-Id": ids[-1],
                "Nats-Batch-Id": batch,
                "Nats-Batch-Sequence": str(len(ids)),
                "Nats-Batch-Commit": "1",
            }
            within = ANSWER_WAIT + sum(map(len, payloads)) / _SLOWEST
            answer = self._read(await connection.ask(subject, payloads[-1], {**last, **headers}, within=within))
        except (client_errors.Error, OSError):
            return Outcome.UNKNOWN
        finally:
            connection.forget(first)
        if answer is Outcome.AGAIN and first_said.done() and first_said.result().data:
            return self._read(first_said.result())  # why it was never begun
        return answer if epoch == connection.epoch or answer is Outcome.STORED else Outcome.UNKNOWN

    def _read(self, message: Msg | None) -> Outcome:
        if message is None or (message.headers and message.headers.get("Status") == NO_RESPONDERS):
            return Outcome.UNKNOWN
        if not message.data:
            return Outcome.AGAIN
        answer = json.loads(message.data)
        error = answer.get("error")
        if error is None:
            return Outcome.STORED
        code, text = error.get("err_code"), error.get("description", "")
        if code == _STORE_FAILED and text.startswith("maximum "):
            return Outcome.FULL
        if code == _DUPLICATE:
            return Outcome.DUPLICATE
        if code in _NOT_STORED:
            return Outcome.AGAIN
        if code in NOT_NOW:
            return Outcome.UNKNOWN
        if code in _SIZE or code == _TOO_LARGE:
            raise ItemTooLarge(f"{self._stream.shown}: {text}; nothing was stored", path=self._stream.shown)
        raise StorageError(f"{self._stream.shown}: {text} ({code}); nothing was stored", path=self._stream.shown)

    async def _one_by_one(self, payloads: Sequence[bytes], headers: dict[str, str], deadline: float) -> None:
        """Without atomic publishes: many in flight, in order as long as nothing has to be sent again.

        With a capacity one at a time, for one that is refused must not be overtaken.
        """
        step = 1 if self._stream.settings.capacity else IN_FLIGHT
        for start in range(0, len(payloads), step):
            part = payloads[start : start + step]
            ids = self._next_ids(len(part))
            waiting = [self._connection.expect() for _ in part]
            try:
                async with asyncio.timeout(ANSWER_WAIT * 2):
                    for each, payload, (reply, _) in zip(ids, part, waiting, strict=True):
                        await self._connection.send(self._stream.subject, payload, reply, {"Nats-Msg-Id": each, **headers})
                    await asyncio.wait([future for _, future in waiting])
            except (TimeoutError, client_errors.Error, OSError):
                pass  # the ones without an answer are sent again
            finally:
                for reply, _ in waiting:
                    self._connection.forget(reply)
            for each, payload, (_, future) in zip(ids, part, waiting, strict=True):
                if not future.done() or self._read(future.result()) is not Outcome.STORED:
                    await self._store([each], [payload], headers, deadline)

    def _gone(self, *, sure: bool) -> QueueError:
        what = "; nothing was stored" if sure else "; what was to be stored may be stored or not: it was sent and not confirmed"
        return self._connection.unreachable(what)


def _deadline(block: bool, timeout: float | None) -> float:
    if not block:
        return -math.inf
    return math.inf if timeout is None else time.monotonic() + timeout
