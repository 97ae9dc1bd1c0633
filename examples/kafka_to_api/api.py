"""A small API that counts what it accepts, fails at random, is slow at times, and refuses some orders for good.

    python examples/kafka_to_api/api.py accepted.log --port 8090

Each order that it accepts is a line in the file, so that the account can be closed whatever becomes of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random

from aiohttp import web

REFUSED = 1000  # one order in so many is one that it will never take


class Api:
    """What the server answers, and to how many requests."""

    def __init__(self, log: str, fail: float, slow: float) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._fail, self._slow = fail, slow

    async def take(self, request: web.Request) -> web.Response:
        """PUT /orders/NUMBER."""
        await request.read()
        number = int(request.match_info["number"])
        if random.random() < self._slow:
            await asyncio.sleep(random.uniform(0.5, 3.0))
        if number % REFUSED == REFUSED - 1:
            return web.Response(status=422, text=f"no such customer in order {number}")
        luck = random.random()
        if luck < self._fail * 0.9:
            return web.Response(status=503, text="try again")
        if luck < self._fail:
            return web.Response(status=429, headers={"Retry-After": "1"})
        os.write(self._log, b"%d\n" % number)
        if luck > 1 - self._fail / 10:  # accepted, and the answer is lost: it will come again
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="thank you")


def main() -> None:
    parser = argparse.ArgumentParser(description="A small API that misbehaves.")
    parser.add_argument("log")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--fail", type=float, default=0.1, help="share of requests that fail")
    parser.add_argument("--slow", type=float, default=0.02, help="share of requests that take seconds")
    chosen = parser.parse_args()
    app = web.Application()
    app.router.add_put("/orders/{number}", Api(chosen.log, chosen.fail, chosen.slow).take)
    web.run_app(app, host="127.0.0.1", port=chosen.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
