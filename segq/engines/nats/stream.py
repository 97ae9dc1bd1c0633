"""A JetStream stream as a queue or a topic: made, recognised, refused, counted. Its settings travel in its metadata.

    queue   a work-queue stream, read through the one consumer `workers`
    topic   an interest stream (`retain="until-acked"`) or a limits stream (`retain="ttl"`), a consumer for each label

An interest stream without a consumer stores nothing, but a topic keeps items for its first label: until there is one, and after
the last one was removed, the consumer `holder`, which never reads, holds them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from datetime import datetime
from typing import Any

from segq._core.base.errors import (
    FormatVersionError,
    NotAQueueError,
    SettingsConflict,
    SettingsError,
    StorageError,
    UnsupportedError,
)
from segq._core.base.serializers import Serializer, name_of
from segq._core.base.settings import Settings, positive_seconds, validated, whole_number
from segq.engines.nats.connection import Answer, Connection

VERSION = "1"
WORKERS = "workers"
HOLDER = "holder"
GRACE = 30.0
DUPLICATE_WINDOW = 120.0
UNLIMITED = -1
_NANO = 1_000_000_000
_STREAM_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")
_PLAIN_LABEL = re.compile(r"[A-Za-z0-9_-]{1,100}")

SINCE, TTL_SINCE = (2, 10, 0), (2, 11, 0)  # metadata of streams; a time to live of single items
ATOMIC_SINCE = (2, 12, 2)  # with message ids: 2.12.0 refuses those in a batch

NOT_FOUND = {10059, 10014}  # no such stream, no such consumer
TAKEN = {10058, 10148, 10013, 10105}  # the name is in use, by a stream or a consumer of another configuration

_CANNOT = {
    "max_bytes": "the server counts its headers as well; give stream_bytes=, which is in its measure, or a capacity",
    "segment_items": "it has no segments; leave it out",
    "segment_bytes": "it has no segments; leave it out",
    "prefetch": "what is handed ahead counts as a delivery there; leave it out, and use get_many or receive_many",
    "allow_network_fs": "it has no directory; leave it out",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NatsSettings(Settings):
    """What a stream was created with, besides what every queue has. Seconds and bytes."""

    replicas: int = 1
    stream_bytes: int | None = None
    grace: float = GRACE
    duplicate_window: float = DUPLICATE_WINDOW

    @property
    def ack_wait(self) -> float:
        """How long the server waits for a sign of life of whoever holds a message."""
        return self.lease if self.lease is not None else self.grace


_NAMES = {field.name for field in dataclasses.fields(NatsSettings)}


def checked_name(path: str) -> str:
    """The stream's name in an address. Raises SettingsError."""
    name = path.strip("/")
    if not _STREAM_NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot be the name of a stream: letters, digits, - and _ only, as in nats://host:4222/my-queue"
        )
    return name


def checked_settings(kind: str, given: dict[str, Any], serializer: str | Serializer | None) -> dict[str, Any]:
    """Those that are not None, validated. Raises SettingsError, UnsupportedError."""
    given = {name: value for name, value in given.items() if value is not None}
    for name, why in _CANNOT.items():
        if name in given and not (name == "prefetch" and given[name] == 1):
            raise UnsupportedError(f"the NATS engine cannot do {name}: {why}")
    given.pop("prefetch", None)
    if given.get("durability") == "power":
        raise UnsupportedError(
            'the NATS engine cannot promise durability="power": that is the server\'s setting sync_interval, which a client'
            " neither sees nor sets; replicas=3 survives the loss of a node"
        )
    own = {name: given.pop(name) for name in list(given) if name in _CHECKS}
    topical = {"ttl", "on_full", "retain"} & given.keys() if kind == "queue" else set()
    unknown = topical | (given.keys() - _NAMES)
    if unknown:
        raise SettingsError(f"{min(unknown)!r} is no setting of a {kind} on NATS")
    if serializer is not None:
        given["serializer"] = name_of(serializer)
    return validated(given) | {name: _CHECKS[name](name, value) for name, value in own.items()}


_CHECKS: dict[str, Any] = {
    "replicas": whole_number,
    "stream_bytes": whole_number,
    "grace": positive_seconds,
    "duplicate_window": positive_seconds,
}


def label_consumer(label: str) -> str:
    """The name of a label's consumer; the label itself stands in its metadata."""
    if _PLAIN_LABEL.fullmatch(label):
        return "label-" + label
    return "label_" + hashlib.sha256(label.encode()).hexdigest()[:40]


def consumer_config(name: str, settings: NatsSettings, policy: str = "all", label: str | None = None) -> dict[str, Any]:
    return {
        "durable_name": name,
        "ack_policy": "explicit",
        "ack_wait": int(settings.ack_wait * _NANO),
        "max_deliver": UNLIMITED,  # what was delivered too often is moved to the dead letters, which the server cannot do
        "max_ack_pending": UNLIMITED,
        "max_waiting": 8192,
        "deliver_policy": policy,
        "metadata": {"segq.version": VERSION} | ({} if label is None else {"segq.label": label}),
    }


def seconds_of(text: str) -> float:
    """A time of the server's, in seconds of the epoch."""
    return datetime.fromisoformat(text).timestamp()


class Stream:
    """An open stream: its names and settings."""

    def __init__(self, connection: Connection, name: str, kind: str, settings: NatsSettings, created: str) -> None:
        self.connection, self.name, self.kind, self.settings, self.created = connection, name, kind, settings, created
        self.subject = f"segq.{name}"

    # --- life ---

    @classmethod
    async def open(cls, connection: Connection, name: str, kind: str, given: dict[str, Any], *, create: bool) -> Stream:
        """The stream, created if need be. Raises NotAQueueError, SettingsConflict, FormatVersionError."""
        if connection.version < SINCE:
            raise UnsupportedError(
                f"{connection.login.shown}: segq needs NATS 2.10 or later, to keep its settings with the stream"
            )
        info = await _info(connection, name)
        if info is None:
            if not create:
                where = f"{connection.login.shown}/{name}"
                raise NotAQueueError(f"there is no {kind} at {where}; create it, or look for a mistyped address", path=where)
            _refuse_contradictions(given)
            info = await _created(connection, name, kind, NatsSettings(**given))
        stream = cls.recognised(connection, name, info)
        stream.agree(kind, given)
        if kind == "topic" and stream.settings.retain == "until-acked" and not info["state"]["consumer_count"]:
            await stream.hold()
        if kind == "queue":
            await stream.make_consumer(consumer_config(WORKERS, stream.settings))
        return stream

    @classmethod
    def recognised(cls, connection: Connection, name: str, info: dict[str, Any]) -> Stream:
        """Raises NotAQueueError for a stream that segq did not make."""
        metadata = info["config"].get("metadata") or {}
        where = f"{connection.login.shown}/{name}"
        version = metadata.get("segq.version")
        if version is None:
            raise NotAQueueError(f"{where} is a stream that segq did not make; it was left untouched", path=where)
        if version != VERSION:
            raise FormatVersionError(
                f"{where} was made by another version of segq ({version}); it was left untouched", path=where
            )
        settings = NatsSettings(**json.loads(metadata["segq.settings"]))
        return cls(connection, name, metadata["segq.kind"], settings, info["created"])

    def agree(self, kind: str, given: dict[str, Any]) -> None:
        """Raises NotAQueueError, SettingsConflict."""
        if self.kind != kind:
            raise NotAQueueError(
                f'{self.shown} is a {self.kind}, not a {kind}; connect with kind="{self.kind}"', path=self.shown
            )
        for name, value in given.items():
            kept = getattr(self.settings, name)
            if name == "max_deliveries" and kept is None:  # asked of this handle; the stream itself has no opinion
                self.settings = dataclasses.replace(self.settings, max_deliveries=value)
            elif kept != value:
                raise SettingsConflict(
                    f"{self.shown} was created with {name}={kept!r}, not {value!r}; leave {name} out to use it as it is,"
                    " or create another",
                    path=self.shown,
                )

    @property
    def shown(self) -> str:
        return f"{self.connection.login.shown}/{self.name}"

    async def info(self) -> dict[str, Any]:
        """Raises NotAQueueError if it was removed."""
        found = await _info(self.connection, self.name)
        if found is None:
            raise NotAQueueError(f"{self.shown} was removed", path=self.shown)
        return found

    async def remove(self) -> None:
        await self.connection.api(f"STREAM.DELETE.{self.name}")

    # --- consumers ---

    async def make_consumer(self, config: dict[str, Any]) -> bool:
        """False if it is there already."""
        try:
            await self.connection.api(
                f"CONSUMER.CREATE.{self.name}.{config['durable_name']}", stream_name=self.name, action="create", config=config
            )
        except Answer as answer:
            if answer.code in TAKEN:
                return False
            raise refused(self.shown, answer) from None
        return True

    async def consumer(self, name: str) -> dict[str, Any] | None:
        try:
            return await self.connection.api(f"CONSUMER.INFO.{self.name}.{name}")
        except Answer as answer:
            if answer.code in NOT_FOUND:
                return None
            raise refused(self.shown, answer) from None

    async def drop_consumer(self, name: str) -> bool:
        try:
            await self.connection.api(f"CONSUMER.DELETE.{self.name}.{name}")
        except Answer as answer:
            if answer.code in NOT_FOUND:
                return False
            raise refused(self.shown, answer) from None
        return True

    async def labels(self) -> list[dict[str, Any]]:
        """What the server knows of each label's consumer, in the order of the labels' text."""
        found: list[dict[str, Any]] = []
        total, offset = 1, 0
        while offset < total:
            page = await self.connection.api(f"CONSUMER.LIST.{self.name}", offset=offset)
            consumers = page.get("consumers") or []
            found += [each for each in consumers if "segq.label" in (each["config"].get("metadata") or {})]
            total, offset = page["total"], offset + max(1, len(consumers))
        return sorted(found, key=lambda each: str(each["config"]["metadata"]["segq.label"]))

    async def begin(self, label: str, start: str) -> str:
        """The label's consumer, made where `start` says if there is none; the server does that in one step with puts."""
        name = label_consumer(label)
        if await self.consumer(name) is None:
            policy = {"oldest": "all", "newest": "last", "next": "new"}[start]
            await self.make_consumer(consumer_config(name, self.settings, policy, label))
            await self.drop_consumer(HOLDER)
        return name

    async def remove_label(self, label: str) -> None:
        """Raises KeyError. From before the last one goes until another comes, the holder is there."""
        name = label_consumer(label)
        if await self.consumer(name) is None:
            raise KeyError(label)
        holding = self.settings.retain == "until-acked"
        if holding:
            await self.hold()
        if not await self.drop_consumer(name):
            raise KeyError(label)
        if holding and await self.labels():
            await self.drop_consumer(HOLDER)

    async def hold(self) -> None:
        await self.make_consumer(consumer_config(HOLDER, self.settings))


def _refuse_contradictions(given: dict[str, Any]) -> None:
    if given.get("retain") == "ttl" and "ttl" not in given:
        raise SettingsError('retain="ttl" keeps items for their time to live: give ttl, in seconds')
    if given.get("on_full") == "drop_oldest" and not given.keys() & {"capacity", "stream_bytes"}:
        raise SettingsError('on_full="drop_oldest" needs a capacity or stream_bytes to be full at')


def refused(where: str, answer: Answer) -> StorageError:
    return StorageError(f"{where}: JetStream refused: {answer} ({answer.code})", path=where)


async def _info(connection: Connection, name: str) -> dict[str, Any] | None:
    try:
        return await connection.api(f"STREAM.INFO.{name}")
    except Answer as answer:
        if answer.code in NOT_FOUND:
            return None
        raise refused(f"{connection.login.shown}/{name}", answer) from None


async def _created(connection: Connection, name: str, kind: str, settings: NatsSettings) -> dict[str, Any]:
    """By us, or by somebody else at the same moment. Raises StorageError, with what the server has against it."""
    try:
        return await connection.api(f"STREAM.CREATE.{name}", **_config(connection, name, kind, settings))
    except Answer as answer:
        found = await _info(connection, name) if answer.code in TAKEN else None
        if found is None:
            raise refused(f"{connection.login.shown}/{name}", answer) from None
        return found


def _config(connection: Connection, name: str, kind: str, settings: NatsSettings) -> dict[str, Any]:
    retention = "workqueue" if kind == "queue" else "limits" if settings.retain == "ttl" else "interest"
    max_age = 0.0 if settings.ttl is None else max(0.1, settings.ttl)  # the server's least; what is older is not handed out
    window = settings.duplicate_window if not max_age else min(settings.duplicate_window, max_age)  # the server's most
    stored = {name: value for name, value in dataclasses.asdict(settings).items() if value != _DEFAULTS[name]}
    return {
        "name": name,
        "subjects": [f"segq.{name}"],
        "retention": retention,
        "max_msgs": settings.capacity or UNLIMITED,
        "max_bytes": settings.stream_bytes or UNLIMITED,
        "max_age": int(max_age * _NANO),
        "duplicate_window": int(window * _NANO),
        "discard": "old" if settings.droppable else "new",
        "storage": "file",
        "num_replicas": settings.replicas,
        "allow_msg_ttl": connection.version >= TTL_SINCE,
        "allow_atomic": connection.version >= ATOMIC_SINCE,
        "metadata": {"segq.version": VERSION, "segq.kind": kind, "segq.settings": json.dumps(stored)},
    }


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(NatsSettings)}
