"""Addresses: `segq:///absolute/path`, `nats://host:port/stream?setting=value`, or a plain path.

What stands behind the question mark are settings, named as the keyword arguments are; a keyword given as well wins.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any

from segq._core.base.errors import SettingsError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WHOLE = {"capacity", "max_bytes", "segment_items", "segment_bytes", "prefetch", "max_deliveries", "replicas", "stream_bytes"}
_SECONDS = {"lease", "ttl", "patience", "grace", "duplicate_window", "connect_timeout"}
_YES_OR_NO = {"create", "allow_network_fs", "atomic", "tls"}
_SAID = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`text` as it was given, `scheme` in lower case, `netloc` and `path` decoded as far as every engine wants it."""

    text: str
    scheme: str
    netloc: str
    path: str
    settings: dict[str, Any]

    def shown(self) -> str:
        """Without settings and without a password, for messages."""
        if self.scheme == "segq":
            return self.path
        return f"{self.scheme}://{self.netloc.rpartition('@')[2]}{self.path}"


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether this is an address with a scheme, not a plain path."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def parse(text: str | os.PathLike[str]) -> Address:
    """Raises SettingsError for what is no address, naming what is wrong with it."""
    if not is_address(text):
        path = os.fspath(text)
        return Address(text=path, scheme="segq", netloc="", path=path, settings={})
    assert isinstance(text, str)
    from urllib.parse import parse_qsl, unquote, urlsplit

    try:
        parts = urlsplit(text)
        settings = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise SettingsError(f"{text!r} is not an address: {error}") from None
    path = unquote(parts.path)
    if parts.scheme == "segq":
        if parts.netloc or not path.strip("/"):
            raise SettingsError(f"{text!r}: a local address has three slashes and an absolute path: segq:///var/lib/queue")
    elif not parts.netloc:
        raise SettingsError(f"{text!r} names no host: {parts.scheme}://host:port/name")
    typed = {name: _typed(name, value) for name, value in settings.items()}
    return Address(text=text, scheme=parts.scheme, netloc=parts.netloc, path=path, settings=typed)


def _typed(name: str, value: str) -> Any:
    try:
        if name in _WHOLE:
            return int(value)
        if name in _SECONDS:
            return float(value)
        if name in _YES_OR_NO:
            return _SAID[value.lower()]
    except (ValueError, KeyError):
        kind = "a whole number" if name in _WHOLE else "a number of seconds" if name in _SECONDS else "yes or no"
        raise SettingsError(f"{name} must be {kind}, not {value!r}") from None
    return value
