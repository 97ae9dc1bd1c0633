"""A channel: an inbox that messages are pulled into, one request at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from segq.engines.nats.connection import Connection

_LATE = 2.0  # seconds after its time a request is given up that was never answered: its leader died, say


class Channel:
    """`stray` takes what arrives while nobody waits for it. A channel whose request had no proper end is `broken`: something
    may still arrive for that request, and would be taken for an answer to the next one."""

    def __init__(self, connection: Connection, next_subject: str, stray: Callable[[Msg], None]) -> None:
        self._connection, self._next_subject, self._stray = connection, next_subject, stray
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._over: asyncio.Future[tuple[str, str]] | None = None
        self._got: list[Msg] = []
        self._want = 0
        self.broken = False

    async def open(self) -> None:
        """Once; harmless after that."""
        if self._subscription is not None:
            return
        self._inbox, self._subscription = await self._connection.listen(self._arrived)
        self._connection.on_reconnect.add(self._break)

    async def close(self) -> None:
        self._connection.on_reconnect.discard(self._break)
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def pull(self, most: int, wait: float | None) -> tuple[list[Msg], str, str]:
        """Up to `most` messages, and how it ended: a status and its text, ("", "") when all came.

        `wait`: None for what is there, or seconds to wait until there are so many.
        """
        request: dict[str, object] = {"batch": most}
        if wait is None:
            request["no_wait"] = True
        else:
            request["expires"] = int(wait * 1e9)
        self._got, self._want = [], most
        self._over = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout((wait or 0) + _LATE):
                await self._connection.send(self._next_subject, json.dumps(request).encode(), reply=self._inbox)
                status, text = await self._over
        except TimeoutError:
            self.broken, status, text = True, "", "no answer"
        except BaseException:
            self.broken = True
            for message in self._got:
                self._stray(message)
            raise
        finally:
            self._over = None
        return self._got, status, text

    async def _arrived(self, message: Msg) -> None:
        over = self._over
        status = None if message.reply or not message.headers else message.headers.get("Status")
        if over is None or over.done():
            if status is None:
                self._stray(message)
        elif status is not None:
            over.set_result((status, message.headers.get("Description", "") if message.headers else ""))
        else:
            self._got.append(message)
            if len(self._got) == self._want:
                over.set_result(("", ""))

    def _break(self) -> None:
        """The connection was lost and is there again; the request may be lost."""
        self.broken = True
        if self._over is not None and not self._over.done():
            self._over.set_result(("", "reconnected"))
