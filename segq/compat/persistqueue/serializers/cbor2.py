"""CBOR, by the package cbor2."""

from __future__ import annotations

from typing import Any, BinaryIO

from segq.compat.persistqueue.serializers import framing, in_order, optional

_cbor2 = optional("cbor2")


def dump(value: Any, fp: BinaryIO, sort_keys: bool = False) -> None:
    framing.write(fp, dumps(value, sort_keys))


def dumps(value: Any, sort_keys: bool = False) -> bytes:
    packed: bytes = _cbor2.dumps(in_order(value, sort_keys))
    return packed


def load(fp: BinaryIO) -> Any:
    return loads(framing.read(fp))


def loads(bytes_value: bytes) -> Any:
    return _cbor2.loads(bytes_value)
