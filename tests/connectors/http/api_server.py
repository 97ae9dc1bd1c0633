"""A small HTTP API that counts what it is sent and misbehaves as it is told; in a thread of the test."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

Answer = Callable[[str, int], "tuple[int, dict[str, str], str]"]
"""From an item's text and how often it came to (status, headers, body)."""


class ApiServer:
    """`accepted` and `asked` count by the text of the body; `most` is how many requests were in hand at the same time."""

    def __init__(self, answer: Answer | None = None, *, seconds: float = 0.0) -> None:
        self.answer, self.seconds = answer, seconds
        self.asked: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.keys: dict[str, set[str]] = {}
        self.most = self._now = 0
        self.url = ""
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ApiServer:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self._serve())
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(runner.cleanup())
            self._loop.close()

    async def _serve(self) -> Any:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        self._started.set()
        return runner

    async def _handle(self, request: web.Request) -> web.Response:
        text = (await request.read()).decode()
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            self.asked[text] += 1
            self.keys.setdefault(text, set()).add(request.headers["Idempotency-Key"])
            status, headers, body = (200, {}, "") if self.answer is None else self.answer(text, self.asked[text])
            if self.seconds:
                await asyncio.sleep(self.seconds)
            if status < 300:
                self.accepted[text] += 1
            return web.Response(status=status, headers=headers, text=body)
        finally:
            self._now -= 1
