"""Items as people type and read them: bytes from a stream into what a queue stores, and back.

Text is stored as `str`. What is not UTF-8 is stored as `bytes` where the serializer can (all but json), so that any
line of any file goes in and comes out as it was.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import click

Parse = Callable[[list[bytes]], list[Any]]


def parser(serializer: str, *, as_json: bool) -> Parse:
    """How to turn pieces of input into items for a queue with this serializer."""
    if as_json:
        return _values
    return _unchanged if serializer == "raw" else _texts


def _unchanged(pieces: list[bytes]) -> list[Any]:
    return list(pieces)


def _texts(pieces: list[bytes]) -> list[Any]:
    try:
        return [piece.decode() for piece in pieces]
    except UnicodeDecodeError:
        return [_text(piece) for piece in pieces]


def _text(piece: bytes) -> str | bytes:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece


def _values(pieces: list[bytes]) -> list[Any]:
    return [_value(piece) for piece in pieces]


def _value(piece: bytes) -> Any:
    try:
        return json.loads(piece)
    except ValueError as error:
        shown = piece[:60].decode("utf-8", "replace")
        raise click.ClickException(f"not JSON: {shown!r}: {error}") from None


def rendered(value: object) -> bytes:
    """An item for the output: text and bytes as they are, anything else as JSON."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    return as_json(value)


def as_json(value: object) -> bytes:
    """An item as one line of JSON; bytes appear as `{"base64": ...}`, unknown objects as their repr."""
    text = json.dumps(value, ensure_ascii=False, default=_substitute)
    return text.encode("utf-8", "surrogatepass")


def _substitute(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode()}
    return repr(value)


def for_stdin(value: object) -> bytes:
    """An item as the input of a command: bytes exactly, text and JSON as a line, which is what `read` expects."""
    data = rendered(value)
    return data if isinstance(value, bytes) or data.endswith(b"\n") else data + b"\n"
