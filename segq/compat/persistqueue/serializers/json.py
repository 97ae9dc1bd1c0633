"""What JSON can hold; in a file, a line for each value."""

from __future__ import annotations

import json
from typing import Any, BinaryIO


def dump(value: Any, fp: BinaryIO, sort_keys: bool = False) -> None:
    fp.write(dumps(value, sort_keys) + b"\n")


def dumps(value: Any, sort_keys: bool = False) -> bytes:
    return json.dumps(value, sort_keys=sort_keys).encode()


def load(fp: BinaryIO) -> Any:
    return loads(fp.readline())


def loads(bytes_value: bytes) -> Any:
    return json.loads(bytes_value.decode())
