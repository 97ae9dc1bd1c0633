"""`Record`: a Kafka record as it lies in a queue, and items turned into what is sent to Kafka."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec

import segq


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A record of a topic. In the queue it is a map of these fields, so `message.value["value"]` works, and so does
    `Record.of(message.value).value`, with types.

    Args:
        topic, partition, offset: where it was read; of a record that is to be sent, `topic` is where to, and the others are
            left out.
        value, key: None if it has none (a value of None is a tombstone).
        timestamp: milliseconds of the epoch; None if it has none.
        headers: pairs of name and value; a name may come several times.
        doubtful: the process that read it before died while it stored it, so it may be in the queue a second time. Where
            this is not set, repeats were dropped (unless the source was told not to).
    """

    topic: str = ""
    partition: int = -1
    offset: int = -1
    value: bytes | None = None
    key: bytes | None = None
    timestamp: int | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    doubtful: bool = False

    @classmethod
    def of(cls, item: Any) -> Record:
        """The record that an item is: as a source put it, or as any serializer gave it back.

        Raises SettingsError for an item that is no record.
        """
        if type(item) is cls:
            return item
        try:
            return msgspec.convert(item, cls)
        except msgspec.ValidationError as error:
            raise segq.SettingsError(f"this item is no Kafka record ({error}): {item!r:.200}") from error


def outgoing(item: Any) -> Record:
    """How an item is sent unless the sink was given a `convert`.

    A record with its key, value, headers and timestamp; bytes and text as the value; anything else as JSON.
    """
    if isinstance(item, dict):
        return Record.of(item) if item.keys() >= _TELLING else Record(value=msgspec.json.encode(item))
    if isinstance(item, Record):
        return item
    if isinstance(item, (bytes, bytearray, memoryview)):
        return Record(value=bytes(item))
    if isinstance(item, str):
        return Record(value=item.encode("utf-8", "surrogatepass"))
    return Record(value=msgspec.json.encode(item))


_TELLING = {"topic", "partition", "offset"}


def function(name: str, given: Callable[..., Any] | str | None) -> Callable[..., Any] | None:
    """`given`, or the function that "package.module:function" names; raises SettingsError naming the setting `name`."""
    if given is None or callable(given):
        return given
    module, colon, path = given.partition(":")
    if not (module and colon and path):
        raise segq.SettingsError(f'{name} must be a function, or "package.module:function", not {given!r}')
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise segq.SettingsError(f"{name}={given!r} cannot be imported: {error}") from error
    if not callable(found):
        raise segq.SettingsError(f"{name}={given!r} is no function")
    return found  # type: ignore[no-any-return]
