"""MessagePack, by the package msgpack. Lists come back as tuples, as they do in persist-queue."""

from __future__ import annotations

from typing import Any, BinaryIO

from segq.compat.persistqueue.serializers import framing, in_order, optional

_msgpack = optional("msgpack")


def dump(value: Any, fp: BinaryIO, sort_keys: bool = False) -> None:
    framing.write(fp, dumps(value, sort_keys))


def dumps(value: Any, sort_keys: bool = False) -> bytes:
    packed: bytes = _msgpack.packb(in_order(value, sort_keys), use_bin_type=True)
    return packed


def load(fp: BinaryIO) -> Any:
    return loads(framing.read(fp))


def loads(bytes_value: bytes) -> Any:
    return _msgpack.unpackb(bytes_value, use_list=False, raw=False)
