"""Items to bytes and back. `msgpack` (through msgspec) is the default; `pickle` only if the user asks for it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import msgspec

from segq._core.base.errors import SettingsError
from segq._core.base.settings import BUILTIN_SERIALIZERS


@runtime_checkable
class Serializer(Protocol):
    """Anything with `dumps` and `loads`, like the `json` and `pickle` modules; `dumps` returns bytes."""

    def dumps(self, item: Any, /) -> bytes: ...
    def loads(self, data: bytes, /) -> Any: ...


def _raw_dumps(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, (bytearray, memoryview)):
        return bytes(item)
    raise TypeError(f'serializer="raw" stores bytes, not {type(item).__name__}; encode it, or use another serializer')


def _raw_loads(data: bytes) -> bytes:
    return data


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # made once: json.dumps makes one for each call


def _json_dumps(item: Any) -> bytes:
    return _JSON.encode(item).encode("utf-8", "surrogatepass")


def _json_loads(data: bytes) -> Any:
    return json.loads(data.decode("utf-8", "surrogatepass"))


def _pickle_dumps(item: Any) -> bytes:
    return pickle.dumps(item, pickle.HIGHEST_PROTOCOL)


def name_of(serializer: str | Serializer) -> str:
    """The name under which the queue remembers `serializer`: one of the built-in ones, or `custom:<module>.<name>`."""
    if isinstance(serializer, str):
        if serializer in BUILTIN_SERIALIZERS:
            return serializer
        raise SettingsError(
            f"serializer must be one of {', '.join(BUILTIN_SERIALIZERS)}, or an object with dumps and loads, not {serializer!r}"
        )
    if not (callable(getattr(serializer, "dumps", None)) and callable(getattr(serializer, "loads", None))):
        raise SettingsError(f"serializer needs methods dumps and loads; {serializer!r} has not both")
    named = serializer if hasattr(serializer, "__name__") else type(serializer)
    return f"custom:{getattr(named, '__module__', None) or ''}.{getattr(named, '__qualname__', named.__name__)}".replace(
        ":.", ":"
    )


def codec(name: str, given: str | Serializer | None) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """The pair (dumps, loads) for a stored serializer `name`; `given` is the object a custom one needs."""
    match name:
        case "raw":
            return _raw_dumps, _raw_loads
        case "msgpack":
            return msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
        case "json":
            return _json_dumps, _json_loads
        case "pickle":
            return _pickle_dumps, pickle.loads
    if given is None or isinstance(given, str):
        raise SettingsError(f"this queue stores its items with {name}; pass that object as serializer= to open it")
    dumps: Callable[[Any], Any] = given.dumps

    def checked(item: Any) -> bytes:
        data = dumps(item)
        if isinstance(data, bytes):
            return data
        if isinstance(data, (bytearray, memoryview)):
            return bytes(data)
        raise TypeError(f"its dumps returned {type(data).__name__}, not bytes")

    return checked, given.loads
