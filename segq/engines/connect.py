"""`connect`: a queue or a topic by its address, whatever engine stores it."""

from __future__ import annotations

import importlib
import os
from typing import Any, Literal, cast, overload

from segq._core.base.errors import SettingsError
from segq.engines.address import Address, parse
from segq.engines.interface import Engine, QueueLike, SubscriptionLike, TopicLike

_ENGINES = {"segq": "segq.engines.local", "nats": "segq.engines.nats", "tls": "segq.engines.nats"}  # imported when asked for


def _engine(where: Address) -> Engine:
    module = _ENGINES.get(where.scheme)
    if module is None:
        raise SettingsError(f"there is no engine for {where.scheme}:// ({where.shown()}); known: {', '.join(_ENGINES)}")
    return cast("Engine", importlib.import_module(module))


@overload
def connect(address: str | os.PathLike[str], kind: Literal["queue"] = "queue", **settings: Any) -> QueueLike: ...
@overload
def connect(address: str | os.PathLike[str], kind: Literal["topic"], **settings: Any) -> TopicLike: ...
@overload
def connect(address: str | os.PathLike[str], kind: str, **settings: Any) -> QueueLike | TopicLike: ...
def connect(address: str | os.PathLike[str], kind: str = "queue", **settings: Any) -> QueueLike | TopicLike:
    """The queue (or topic) at `address`: an object with the API of `segq.Queue` (or `segq.Topic`).

    >>> import tempfile
    >>> with connect("segq://" + tempfile.mkdtemp() + "/jobs") as q:
    ...     q.put("hello")
    ...     q.get()
    'hello'

    Args:
        address: a path, `segq:///absolute/path`, or `nats://host:port/name` (more hosts with commas; `tls://` for TLS).
            Settings may be written behind a question mark: `nats://host/jobs?replicas=3&capacity=1000`.
        kind: "queue" (default) or "topic".
        settings: as for `segq.Queue` or `segq.Topic`, and those of the engine; see docs/engines.md.

    Raises:
        UnsupportedError: what the engine cannot do, here or later; it says so and does nothing similar instead.
        UnreachableError: its server does not answer. SettingsError: not an address, or not a setting.
        And what `Queue` and `Topic` raise.
    """
    where = parse(address)
    given = {**where.settings, **settings}
    if kind not in ("queue", "topic"):
        raise SettingsError(f'kind must be "queue" or "topic", not {kind!r}')
    return _engine(where).queue(where, given) if kind == "queue" else _engine(where).topic(where, given)


def subscription(address: str | os.PathLike[str], label: str, start: str = "oldest", **settings: Any) -> SubscriptionLike:
    """The label of the topic at `address`, as `Topic.subscribe` gives it."""
    where = parse(address)
    return _engine(where).subscription(where, label, start, {**where.settings, **settings})


def kind_of(address: str | os.PathLike[str], **settings: Any) -> str:
    """ "queue" or "topic". Raises NotAQueueError or FormatVersionError if there is neither at `address`."""
    where = parse(address)
    return _engine(where).kind_of(where, {**where.settings, **settings})


def exists(address: str | os.PathLike[str], **settings: Any) -> bool:
    """Whether there is a queue or a topic at `address`."""
    where = parse(address)
    return _engine(where).exists(where, {**where.settings, **settings})


def remove(address: str | os.PathLike[str], **settings: Any) -> None:
    """Deletes the queue or topic at `address` with all that is in it.

    Raises NotAQueueError for anything else, QueueError if it is in use (as far as the engine can know).
    """
    where = parse(address)
    _engine(where).remove(where, {**where.settings, **settings})
