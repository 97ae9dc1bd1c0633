"""The NATS engine: queues and topics on JetStream. What it promises and what it cannot do: docs/engines.md.

Needs nats-py, which the extra `nats` installs; imported only when a NATS address is used.
"""

from __future__ import annotations

from typing import Any

from segq._core.base.errors import UnsupportedError

try:
    import nats as _client  # noqa: F401
except ImportError as error:
    raise UnsupportedError("nats:// addresses need nats-py; install it with: pip install 'segq[nats]'") from error

from segq.engines.address import Address
from segq.engines.nats import admin
from segq.engines.nats.core import Plan
from segq.engines.nats.queues import NatsQueue, NatsSubscription, NatsTopic


def queue(address: Address, settings: dict[str, Any]) -> NatsQueue:
    return NatsQueue(Plan(address, "queue", settings))


def topic(address: Address, settings: dict[str, Any]) -> NatsTopic:
    return NatsTopic(Plan(address, "topic", settings))


def subscription(address: Address, label: str, start: str, settings: dict[str, Any]) -> NatsSubscription:
    return NatsSubscription(Plan(address, "topic", {**settings, "create": False}), label, start)


def kind_of(address: Address, settings: dict[str, Any]) -> str:
    return admin.kind_of(address, settings)


def exists(address: Address, settings: dict[str, Any]) -> bool:
    return admin.exists(address, settings)


def remove(address: Address, settings: dict[str, Any]) -> None:
    admin.remove(address, settings)
