"""A queue, a topic or a label on NATS, as coroutines on one loop: what the handles of `handle` do, and what an asyncio API
can use on the user's own loop.

A core belongs to the loop that it was opened on, and to the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from segq._core.base.errors import SerializationError, SettingsError
from segq._core.base.serializers import Serializer, codec
from segq._core.base.settings import positive_seconds
from segq._core.directory.tally import LabelStats, Stats
from segq.engines.address import Address
from segq.engines.counts import EngineLabelStats, EngineStats
from segq.engines.nats.connection import Answer, Connection, Login, Pool
from segq.engines.nats.delivery import Delivery
from segq.engines.nats.graveyard import SUFFIX
from segq.engines.nats.publisher import Publisher
from segq.engines.nats.reader import ACK, NAK, Reader
from segq.engines.nats.stream import (
    WORKERS,
    NatsSettings,
    Stream,
    checked_name,
    checked_settings,
    refused,
    seconds_of,
)

log = logging.getLogger("segq")

LOGIN = ("user", "password", "token", "credentials", "nkey_seed", "tls_ca", "tls_cert", "tls_key", "tls_hostname", "tls")
_UNKNOWN = ("segments", "quarantined", "rescues", "redelivered", "owners", "puts", "gets", "expired", "delayed")


class Plan:
    """What an address and its settings ask for, checked, before anything is opened. Raises SettingsError, UnsupportedError."""

    def __init__(self, address: Address, kind: str, settings: dict[str, Any]) -> None:
        given = dict(settings)
        self.address, self.kind, self.given_as = address, kind, settings
        self.name = checked_name(address.path)
        self.login = _login(address, given)
        self.create = bool(given.pop("create", True))
        self.atomic = bool(given.pop("atomic", True))
        self.serializer: str | Serializer | None = given.pop("serializer", None)
        self.given = checked_settings(kind, given, self.serializer)
        self.shown = f"{self.login.shown}/{self.name}"


def _login(address: Address, given: dict[str, Any]) -> Login:
    user, _, hosts = address.netloc.rpartition("@")
    name, _, password = user.partition(":")
    login: dict[str, Any] = {key: given.pop(key) for key in LOGIN if key in given}
    if user:
        login |= {"user": name, "password": password} if password else {"token": name}
    for key in ("connect_timeout", "patience"):
        if key in given:
            login[key] = positive_seconds(key, given.pop(key))
    if address.scheme == "tls":
        login.setdefault("tls", True)
    servers = tuple(f"nats://{host}" for host in hosts.split(",") if host)
    if not servers:
        raise SettingsError(f"{address.shown()} names no host: nats://host:port/name")
    return Login(servers=servers, shown=f"{address.scheme}://{hosts}", **login)


class Core:
    """What all three have in common."""

    def __init__(self, pool: Pool, connection: Connection, stream: Stream, plan: Plan) -> None:
        self._pool, self.connection, self.stream = pool, connection, stream
        name = stream.settings.serializer
        if name == "pickle" and plan.serializer != "pickle":
            raise SettingsError(
                f'{stream.shown} holds pickles, which run code when they are read: pass serializer="pickle" if you trust'
                " everybody who can publish there",
                path=stream.shown,
            )
        self._dumps, self.loads = codec(name, plan.serializer)
        self.publisher = Publisher(stream, atomic=plan.atomic)
        self.reader: Reader | None = None
        self.closed = False
        self.peeks_at_all = False  # also what somebody has in hand, or gave back: which of the two a server does not say

    @classmethod
    async def open(cls, pool: Pool, plan: Plan) -> Core:
        """Raises UnreachableError, NotAQueueError, SettingsConflict, FormatVersionError, StorageError."""
        connection = await pool.take(plan.login)
        try:
            stream = await Stream.open(connection, plan.name, plan.kind, plan.given, create=plan.create)
            core = cls(pool, connection, stream, plan)
            if plan.kind == "queue":
                core.reader = Reader(stream, WORKERS)
        except BaseException:
            await pool.give_back(connection)
            raise
        return core

    @classmethod
    async def open_dead(cls, pool: Pool, plan: Plan, loads: Callable[[bytes], Any]) -> Core:
        """The same, to get the dead letters; `loads` makes one of what is stored."""
        core = await cls.open(pool, plan)
        core.loads, core.peeks_at_all = loads, True
        return core

    @classmethod
    async def open_label(cls, pool: Pool, plan: Plan, label: str, start: str) -> Core:
        """The same, to get the items of one label."""
        core = await cls.open(pool, plan)
        try:
            core.reader = Reader(core.stream, await core.stream.begin(label, start), label)
        except BaseException:
            await core.close()
            raise
        return core

    @property
    def settings(self) -> NatsSettings:
        return self.stream.settings

    async def close(self) -> None:
        """Gives back what is in hand. Closing twice is fine."""
        if self.closed:
            return
        self.closed = True
        if self.reader is not None:
            await self.reader.close()
        await self._pool.give_back(self.connection)

    # --- putting ---

    def dumped(self, items: Iterable[Any]) -> list[bytes]:
        """Raises SerializationError; called outside of the loop, which other threads wait for."""
        payloads: list[bytes] = []
        dumps, item = self._dumps, None
        every = list(items)  # what an iterator of the user's raises is not ours to explain
        try:
            for item in every:
                payloads.append(dumps(item))  # which item it was is said below
        except Exception as error:
            raise SerializationError(
                f"an item of type {type(item).__name__} cannot be stored with serializer={self.settings.serializer!r}:"
                f" {error}; nothing was stored. Convert it, or create the queue with another serializer",
                path=self.stream.shown,
            ) from error
        return payloads

    # --- getting ---

    async def receive(self, most: int, block: bool, seconds: float | None) -> list[tuple[Delivery, Any]]:
        """Messages with their values. One that cannot be decoded goes to the dead letters, and the rest flows."""
        assert self.reader is not None
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            found = []
            for delivery in await self.reader.take(most, block, left):
                try:
                    found.append((delivery, self.loads(delivery.payload)))
                except Exception as error:
                    log.error(
                        "%s: item %d cannot be decoded, it goes to the dead letters: %s",
                        self.stream.shown,
                        delivery.sequence,
                        error,
                    )
                    await self.reader.bury(delivery, f"cannot be decoded: {error!r}")
            if found:
                return found

    async def get(self, most: int, block: bool, seconds: float | None) -> list[Any]:
        """Values, acknowledged. If that could not be confirmed they are handed over all the same, and may come again."""
        found = await self.receive(most, block, seconds)
        await self.acknowledged([delivery for delivery, _ in found])
        return [value for _, value in found]

    async def acknowledged(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledges what is handed over in any case; where that could not be confirmed the log tells."""
        assert self.reader is not None
        try:
            lost = len(await self.reader.settle(deliveries, ACK))
            error: object = "its lease ran out"
        except ConnectionError as failure:
            lost, error = len(deliveries), failure
        if lost:
            log.warning("%s: %d items are handed over, but may come again: %s", self.stream.shown, lost, error)

    async def give_back(self, box: Sequence[tuple[Delivery, Any]]) -> None:
        """What was taken for somebody who was cancelled. After whatever was begun before the cancellation."""
        assert self.reader is not None
        await asyncio.sleep(0)
        await self.reader.settle([delivery for delivery, _ in box], NAK)

    # --- looking ---

    async def peek(self, n: int) -> list[Any]:
        """Of what was never handed out, the oldest."""
        assert self.reader is not None
        sequence = 1 if self.peeks_at_all else (await self.reader.info())["delivered"]["stream_seq"] + 1
        found: list[Any] = []
        while len(found) < n:
            try:
                answer = await self.connection.api(
                    f"STREAM.MSG.GET.{self.stream.name}", seq=sequence, next_by_subj=self.stream.subject
                )
            except Answer as refusal:
                if refusal.code == 10037:  # no message found
                    break
                raise refused(self.stream.shown, refusal) from None
            message = answer["message"]
            sequence = message["seq"] + 1
            if not self._has_expired(message):
                found.append(self.loads(b64decode(message.get("data", ""))))
        return found

    def _has_expired(self, message: dict[str, Any]) -> bool:
        ttl = self.settings.ttl
        for line in b64decode(message.get("hdrs", "")).splitlines():
            name, _, value = line.partition(b":")
            if name == b"Segq-Ttl":
                ttl = int(value) / 1000 if ttl is None else min(ttl, int(value) / 1000)
        return ttl is not None and self.connection.now() >= seconds_of(message["time"]) + ttl

    async def stored(self) -> int:
        return int((await self.stream.info())["state"]["messages"])

    async def waiting(self) -> int:
        assert self.reader is not None
        return int((await self.reader.info())["num_pending"])

    async def full(self) -> bool:
        settings, state = self.settings, (await self.stream.info())["state"]
        return (settings.capacity is not None and state["messages"] >= settings.capacity) or (
            settings.stream_bytes is not None and state["bytes"] >= settings.stream_bytes
        )

    async def dead(self) -> int:
        """How many dead letters there are."""
        try:
            info = await self.connection.api(f"STREAM.INFO.{self.stream.name}{SUFFIX}")
        except Answer:
            return 0
        return int(info["state"]["messages"])

    async def stats(self) -> Stats:
        state = (await self.stream.info())["state"]
        waiting = claimed = got = 0
        labels: tuple[LabelStats, ...] = ()
        if self.reader is not None:
            consumer = await self.reader.info()
            waiting, claimed = consumer["num_pending"], consumer["num_ack_pending"]
            got = consumer["delivered"]["consumer_seq"]
        else:
            labels = tuple([await self._label_stats(each) for each in await self.stream.labels()])
        return EngineStats(
            path=self.stream.shown,
            kind=self.stream.kind,
            capacity=self.settings.capacity,
            max_bytes=self.settings.max_bytes,
            items=state["messages"],
            waiting=waiting,
            claimed=claimed,
            bytes=state["bytes"],
            segments={},
            quarantined=0,
            rescues=0,
            redelivered=0,
            oldest=seconds_of(state["first_ts"]) if state["messages"] else None,
            owners=(),
            puts=0,
            gets=0,
            shutdown=False,
            labels=labels,
            dead=await self.dead(),
            unknown=_UNKNOWN if self.stream.kind == "queue" else (*_UNKNOWN, "waiting", "claimed"),
            ever_put=state["last_seq"],
            ever_got=got,
            ever_gone=state["last_seq"] - state["messages"],
        )

    @property
    def can_lose(self) -> bool:
        """Whether items may go before a label had them: by their time, or to make room."""
        return self.settings.ttl is not None or self.settings.droppable

    async def label_stats(self) -> LabelStats:
        assert self.reader is not None
        return await self._label_stats(await self.reader.info())

    async def _label_stats(self, consumer: dict[str, Any]) -> LabelStats:
        waiting, claimed = consumer["num_pending"], consumer["num_ack_pending"]
        oldest = None
        if waiting + claimed:
            oldest = await self._oldest(consumer["ack_floor"]["stream_seq"] + 1)
        return EngineLabelStats(
            label=consumer["config"]["metadata"]["segq.label"],
            position=None if oldest is None else f"{self.stream.name}-{oldest[0]}",
            lag=waiting + claimed,
            lag_seconds=0.0 if oldest is None else max(0.0, self.connection.now() - oldest[1]),
            waiting=waiting,
            claimed=claimed,
            acknowledged=0,
            redelivered=0,
            missed=0,
            unknown=("acknowledged", "redelivered", "missed") if self.can_lose else ("acknowledged", "redelivered"),
        )

    async def _oldest(self, sequence: int) -> tuple[int, float] | None:
        """The oldest item from there on, with its time."""
        try:
            answer = await self.connection.api(
                f"STREAM.MSG.GET.{self.stream.name}", seq=sequence, next_by_subj=self.stream.subject
            )
        except Answer:
            return None
        return answer["message"]["seq"], seconds_of(answer["message"]["time"])
