"""The engine that segq is: a directory on this machine."""

from __future__ import annotations

import os
from typing import Any

from segq._core.base.errors import SettingsError
from segq._core.directory import creation
from segq._core.format import format as fmt
from segq.engines.address import Address
from segq.handles.queue import Queue
from segq.handles.subscription import Subscription
from segq.handles.topic import Topic


def queue(address: Address, settings: dict[str, Any]) -> Queue:
    found: Queue = _opened(Queue, address, settings)
    return found


def topic(address: Address, settings: dict[str, Any]) -> Topic:
    found: Topic = _opened(Topic, address, settings)
    return found


def subscription(address: Address, label: str, start: str, settings: dict[str, Any]) -> Subscription:
    found: Subscription = _opened(Subscription, address, {"label": label, "start": start, **settings})
    return found


def kind_of(address: Address, _settings: dict[str, Any]) -> str:
    return creation.kind_of(address.path)


def exists(address: Address, _settings: dict[str, Any]) -> bool:
    return os.path.lexists(os.path.join(address.path, fmt.QUEUE_FILE))


def remove(address: Address, _settings: dict[str, Any]) -> None:
    creation.remove(address.path)


def _opened(what: Any, address: Address, settings: dict[str, Any]) -> Any:
    try:
        return what(address.path, **settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise SettingsError(f"{address.shown()}: {error}; that is no setting of a local {what.__name__.lower()}") from None
