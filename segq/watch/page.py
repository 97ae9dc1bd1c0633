"""A queue watched from a browser: one page, fed by server-sent events. Needs aiohttp, from the extra `web`.

It shows and takes nothing: there is no request that changes anything. Listening on loopback keeps other machines out; the check
of the Host header keeps out other people's pages whose name was made to lead here (DNS rebinding); and since no answer allows
another origin to read it, and the policy sent along allows nothing from elsewhere, the page talks to this server alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import json
import re
import signal
import socket
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from segq.watch.history import History
from segq.watch.remote import RemoteWatcher
from segq.watch.snapshot import Snapshot
from segq.watch.watcher import Watcher

if TYPE_CHECKING:
    from aiohttp import web

_BEHIND = 30  # looks that a browser may be late before it is let go; it comes again by itself
_ALIVE_SECONDS = 15.0  # a comment at least so often, so that a connection that is gone is noticed


class Page:
    """The page of one queue, served while the event loop runs."""

    def __init__(
        self, watcher: Watcher | RemoteWatcher, *, interval: float = 1.0, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """`port` 0: any free one; `url` says which it became. Raises ImportError without aiohttp."""
        try:
            import aiohttp  # noqa: F401
        except ImportError as error:
            raise ImportError("the page needs aiohttp: pip install 'segq[web]'") from error
        self._watcher, self._interval = watcher, interval
        self._host, self._port = host, port
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}
        self._history = History()
        self._readers: set[asyncio.Queue[bytes]] = set()
        self._html = resources.files("segq.watch").joinpath("page.html").read_bytes()
        self._headers = _headers(self._html.decode())
        self._runner: web.AppRunner | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/"

    async def start(self) -> None:
        """Begins to listen. Raises OSError if it cannot."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
            return await self._guarded(request, handler)

        application = web.Application(middlewares=[guard])
        application.router.add_get("/", self._page, allow_head=True)
        application.router.add_get("/events", self._events, allow_head=False)
        application.router.add_get("/snapshot.json", self._snapshot, allow_head=False)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        self._port = self._runner.addresses[0][1]
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        for reader in self._readers:
            _close(reader)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    async def failed(self) -> None:
        """Returns if looking came to an end by itself; `stop` then raises why."""
        if self._looking is not None:
            await asyncio.wait([self._looking])

    # --- looking ---

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            snapshot = await asyncio.to_thread(self._watcher.look)
            self._history.add(snapshot)
            message = _message("look", snapshot.as_dict())
            for reader in list(self._readers):
                try:
                    reader.put_nowait(message)
                except asyncio.QueueFull:
                    self._readers.discard(reader)
                    _close(reader)
            due = max(due + self._interval, loop.time())
            await asyncio.sleep(due - loop.time())

    # --- answering ---

    async def _guarded(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        from aiohttp import web

        if not self._known(request.headers.get("Host", "")):
            text = "this name does not lead here; use the address, or localhost\n"
            return web.Response(status=421, text=text, headers=self._headers)
        response: web.StreamResponse = await handler(request)
        return response

    def _known(self, host: str) -> bool:
        """Whether a Host header names this server: an address does (nobody can make one lead elsewhere), or its own name."""
        name = re.sub(r":\d*$", "", host).lower()
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in self._names
        return True

    async def _page(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(body=self._html, content_type="text/html", charset="utf-8", headers=self._headers)

    async def _snapshot(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        last = self._history.last
        text = json.dumps(last.as_dict() if last is not None else None)
        return web.Response(text=text, content_type="application/json", headers=self._headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"} | self._headers)
        await response.prepare(request)
        reader: asyncio.Queue[bytes] = asyncio.Queue(_BEHIND)
        past = _message("history", _past(self._history, self._interval))
        self._readers.add(reader)  # no look can come between this and the line before
        try:
            await response.write(past)
            while True:
                try:
                    message = await asyncio.wait_for(reader.get(), _ALIVE_SECONDS)
                except TimeoutError:
                    message = b": still here\n\n"
                if not message:
                    break
                await response.write(message)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the browser went away, or we do
        finally:
            self._readers.discard(reader)
        return response


def serve(watcher: Watcher | RemoteWatcher, *, interval: float, host: str, port: int, say: Callable[[str], object]) -> None:
    """Serves the page until SIGINT or SIGTERM. Raises OSError if it cannot listen, ImportError without aiohttp."""
    page = Page(watcher, interval=interval, host=host, port=port)

    async def run() -> None:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        tasks: list[asyncio.Task[object]] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        await page.start()
        if not _is_loopback(host):
            say(f"segq: whoever reaches {host} can see this page, commands of processes included")
        say(f"segq: watching {watcher.path} at {page.url} (Ctrl-C ends)")
        try:
            tasks += [asyncio.create_task(stopped.wait()), asyncio.create_task(page.failed())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await page.stop()

    asyncio.run(run())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _message(event: str, data: object) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def _past(history: History, interval: float) -> dict[str, Any]:
    last: Snapshot | None = history.last
    return {
        "interval": interval,
        "points": [point._asdict() for point in history.points],
        "events": [{"time": event.time, "kind": event.kind, "text": event.text} for event in history.events],
        "last": last.as_dict() if last is not None else None,
    }


def _close(reader: asyncio.Queue[bytes]) -> None:
    """Tells whoever reads from it to end, at once."""
    while not reader.empty():
        reader.get_nowait()
    reader.put_nowait(b"")


def _headers(html: str) -> dict[str, str]:
    """Nothing but the page's own script and style is run, nothing is loaded, nothing is kept."""
    scripts, styles = (
        " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in found)
        for found in (re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL) for tag in ("script", "style"))
    )
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
