"""Arguments as RocksQ takes them, and its errors for those it does not.

Where it panics (with a `BaseException`, for an item that is no bytes) this raises TypeError.
"""

from __future__ import annotations

import operator
import os
from typing import Any, SupportsIndex

MOST_ELEMENTS = (1 << 64) - 101
_MOST_USIZE, _MOST_U32 = (1 << 64) - 1, (1 << 32) - 1


def encoded(items: Any) -> list[bytes]:
    """The elements as bytes, from bytes or what `bytes` makes of a sequence of numbers."""
    if not isinstance(items, list):
        raise TypeError(f"argument 'items': '{type(items).__name__}' object cannot be converted to 'PyList'")
    return [item if type(item) is bytes else _encoded(item) for item in items]


def _encoded(item: Any) -> bytes:
    if isinstance(item, (str, int)) or item is None:
        raise TypeError(f"argument 'items': an element is of type {type(item).__name__}, not bytes")
    return bytes(item)


def usize(name: str, value: SupportsIndex) -> int:
    """A whole number of 64 bits that is not negative."""
    return _whole(name, value, _MOST_USIZE)


def seconds(name: str, value: SupportsIndex) -> int:
    """A whole number of 32 bits that is not negative."""
    return _whole(name, value, _MOST_U32)


def _whole(name: str, value: SupportsIndex, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"argument '{name}': '{kind}' object cannot be interpreted as an integer") from None
    if number < 0:
        raise OverflowError("can't convert negative int to unsigned")
    if number > most:
        raise OverflowError("int too big to convert")
    return number


def text(name: str, value: Any) -> str:
    """A string, or a path."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError(f"argument '{name}': '{type(value).__name__}' object cannot be converted to 'PyString'")
    return value
