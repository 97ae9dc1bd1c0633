"""Values in one file, each after its length (4 bytes, little-endian): for formats that do not say where a value ends."""

from __future__ import annotations

import struct
from typing import BinaryIO

_LENGTH = struct.Struct("<L")


def write(fp: BinaryIO, data: bytes) -> None:
    fp.write(_LENGTH.pack(len(data)))
    fp.write(data)


def read(fp: BinaryIO) -> bytes:
    """The next value's bytes. Raises EOFError at the end of the file."""
    length = fp.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        raise EOFError("no value is left in this file")
    return fp.read(_LENGTH.unpack(length)[0])
