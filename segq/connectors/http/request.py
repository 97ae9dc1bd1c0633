"""`Request`: what is sent for an item, and how an item is turned into one."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import segq


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. What is None, or left out, is the sink's own: its URL, its method; its headers are sent besides these.

    Args:
        url: absolute, or a path below the sink's URL ("orders/17").
        params: the query.
        body: what is sent.
    """

    method: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes | None = None


Convert = Callable[[Any], Request | None]
"""From an item's value to what is sent for it; None: nothing is, the item is done. An exception gives the item up."""


def outgoing(value: Any) -> Request:
    """How an item is sent unless the sink was given a `convert`: bytes as they are, text as text, anything else as JSON."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Request(body=bytes(value), headers={"Content-Type": "application/octet-stream"})
    if isinstance(value, str):
        return Request(body=value.encode("utf-8", "surrogatepass"), headers={"Content-Type": "text/plain; charset=utf-8"})
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_substitute).encode("utf-8", "surrogatepass")
    return Request(body=body, headers={"Content-Type": "application/json"})


def _substitute(value: object) -> object:
    """Bytes within a map, as text where they are some: what a Kafka record's key and value mostly are."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    raise TypeError(f"{type(value).__name__} has no form in JSON; give the sink a convert")


def converter(convert: str | Convert | None) -> Convert:
    """`convert` as something to call; text names it, as "package.module:function". Raises SettingsError."""
    if convert is None:
        return outgoing
    if callable(convert):
        return convert
    module, colon, name = str(convert).partition(":")
    if not (module and colon and name):
        raise segq.SettingsError(f"convert must be a function or its name as package.module:function, not {convert!r}")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise segq.SettingsError(f"convert={convert!r}: {error}") from error
    if not callable(found):
        raise segq.SettingsError(f"convert={convert!r} is a {type(found).__name__}, nothing to call")
    return found  # type: ignore[no-any-return]
