"""Asking about a stream, and removing it, without a handle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from segq._core.base.errors import NotAQueueError
from segq.engines.address import Address
from segq.engines.nats import loop
from segq.engines.nats.connection import Answer, Connection, Pool
from segq.engines.nats.core import Plan
from segq.engines.nats.graveyard import SUFFIX
from segq.engines.nats.stream import NOT_FOUND, Stream, refused


def kind_of(address: Address, settings: dict[str, Any]) -> str:
    """ "queue" or "topic". Raises NotAQueueError."""
    return _with_stream(address, settings, _kind)


def exists(address: Address, settings: dict[str, Any]) -> bool:
    """Whether there is a stream of that name, segq's or not."""

    async def look(connection: Connection, plan: Plan) -> bool:
        return await _info(connection, plan.name) is not None

    return bool(_on_connection(address, settings, look))


def remove(address: Address, settings: dict[str, Any]) -> None:
    """The stream and its dead letters. Raises NotAQueueError for a stream that segq did not make."""

    async def away(stream: Stream) -> str:
        dead = await _info(stream.connection, stream.name + SUFFIX)
        if dead is not None and not stream.name.endswith(SUFFIX):
            await Stream.recognised(stream.connection, stream.name + SUFFIX, dead).remove()
        await stream.remove()
        return stream.name

    _with_stream(address, settings, away)


async def _kind(stream: Stream) -> str:
    return stream.kind


def _with_stream(address: Address, settings: dict[str, Any], work: Callable[[Stream], Awaitable[str]]) -> str:
    async def found(connection: Connection, plan: Plan) -> str:
        info = await _info(connection, plan.name)
        if info is None:
            raise NotAQueueError(f"there is no queue at {plan.shown}", path=plan.shown)
        return await work(Stream.recognised(connection, plan.name, info))

    return str(_on_connection(address, settings, found))


def _on_connection(address: Address, settings: dict[str, Any], work: Callable[[Connection, Plan], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        pool = Pool()
        plan = Plan(address, "topic", settings)
        connection = await pool.take(plan.login)
        try:
            return await work(connection, plan)
        finally:
            await pool.give_back(connection)

    return loop.of_process().call(run())


async def _info(connection: Connection, name: str) -> dict[str, Any] | None:
    try:
        return await connection.api(f"STREAM.INFO.{name}")
    except Answer as answer:
        if answer.code in NOT_FOUND:
            return None
        raise refused(f"{connection.login.shown}/{name}", answer) from None
