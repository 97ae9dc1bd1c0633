"""A connection to NATS servers, shared by the handles of a process that log in the same way, and what is asked through it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import math
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from nats import errors as client_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from segq._core.base.errors import ClosedError, QueueError, SettingsError, UnreachableError, UnsupportedError

log = logging.getLogger("segq")

RECONNECT_WAIT = 0.25  # seconds between two attempts at a server: soon, without a storm
PING_INTERVAL = 3  # seconds; two without an answer and the server is given up for another: a partition shows within 9 s
LOOK_EVERY = 1.0  # seconds between two looks at the client, whatever it says of itself
CLOSE_WAIT = 3.0  # seconds
ANSWER_WAIT = 2.0  # seconds for one answer before it is asked again; a leader is elected in less, usually
PENDING_BYTES = 64 << 20  # what may be buffered towards the server; publishers wait for answers long before

NO_RESPONDERS = "503"
NOT_NOW = {10005, 10006, 10007, 10008, 10009, 10118}  # JetStream is electing, starting, short of peers: it may work soon


class Answer(QueueError):
    """JetStream refused; `code` is its error code. Does not leave this package."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Where, and as whom. Equal ones share a connection."""

    servers: tuple[str, ...]
    shown: str
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    token: str | None = dataclasses.field(default=None, repr=False)
    credentials: str | None = None
    nkey_seed: str | None = None
    tls: bool | ssl.SSLContext = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_hostname: str | None = None
    connect_timeout: float = 5.0
    patience: float = 30.0

    def options(self) -> dict[str, Any]:
        """As `nats.connect` takes them. Raises SettingsError for files that cannot be read."""
        plain = {
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "user_credentials": self.credentials,
            "nkeys_seed": self.nkey_seed,
            "tls_hostname": self.tls_hostname,
            "tls": self._context(),
        }
        return {name: value for name, value in plain.items() if value is not None}

    def _context(self) -> ssl.SSLContext | None:
        if isinstance(self.tls, ssl.SSLContext):
            return self.tls
        if not (self.tls or self.tls_ca or self.tls_cert):
            return None
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.tls_ca)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"tls_ca, tls_cert or tls_key cannot be used: {error}") from None
        return context


class Connection:
    """One client, the inbox that its answers come to, and who waits for which."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.users = 0
        self.epoch = 0  # counts reconnects: what was sent in an earlier one may not have arrived
        self._nc: Client = Client()
        self.send = self._nc.publish  # subject, payload, reply, headers; not a method, as it is called for each item
        self._up, self._break = asyncio.Event(), asyncio.Event()
        self._servers = dict.fromkeys(login.servers)
        self._guardian: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._numbers = 0
        self._inbox = ""
        self._lost: Exception | None = None
        self.down_since: float | None = None  # by the monotonic clock
        self._ahead, self._ahead_within = time.time() - time.monotonic(), math.inf
        self.on_reconnect: set[Callable[[], None]] = set()

    async def open(self) -> None:
        """Raises UnreachableError when no server answers within `connect_timeout`, or refuses the login."""
        login = self.login
        try:
            await self._dial()
        except ImportError as error:
            raise UnsupportedError(f"credentials and nkey_seed need {error.name}: pip install 'nats-py[nkeys]'") from error
        except (TimeoutError, OSError, client_errors.Error) as error:
            why = self._lost if isinstance(error, TimeoutError) and self._lost else error
            raise UnreachableError(
                f"{login.shown}: no NATS server answers within {login.connect_timeout:g} s ({_said(why)}); is one"
                " running there, with JetStream (-js), and is the login right?",
                path=login.shown,
            ) from None
        self._up.set()
        self._guardian = asyncio.create_task(self._guard())

    async def _dial(self) -> None:
        """A new client, on any of the servers known. What asked through the one before asks again."""
        login, client = self.login, Client()

        async def ended() -> None:
            if client is self._nc:  # not one that was given up before, and comes to its end now
                await self._down()

        try:
            async with asyncio.timeout(login.connect_timeout):
                await client.connect(
                    list(self._servers),
                    allow_reconnect=False,
                    connect_timeout=max(1, int(login.connect_timeout / 2)),
                    reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]  # annotated int, used as seconds
                    ping_interval=PING_INTERVAL,
                    pending_size=PENDING_BYTES,
                    error_cb=self._failed,
                    disconnected_cb=ended,
                    closed_cb=ended,
                    name="segq",
                    **login.options(),
                )
                inbox = client.new_inbox() + "."
                await client.subscribe(inbox + "*", cb=self._answered, pending_msgs_limit=0, pending_bytes_limit=0)
        except BaseException:
            await _closed(client)
            raise
        self._servers |= dict.fromkeys(f"nats://{each.netloc.rpartition('@')[2]}" for each in client.discovered_servers)
        self._nc, self._inbox, self.send = client, inbox, client.publish

    async def _guard(self) -> None:
        """Keeps a client. nats-py can reconnect, too, but some errors end it for good, and some ends never come to an end."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._break.wait()
            self._break.clear()
            if self._nc.is_connected:
                continue
            await self._down()
            log.warning("%s: the connection is lost (%s); trying again", self.login.shown, _said(self._lost))
            self._leaving.add(leaving := asyncio.create_task(_closed(self._nc)))
            leaving.add_done_callback(self._leaving.discard)
            while True:
                try:
                    await self._dial()
                    break
                except (TimeoutError, OSError, client_errors.Error) as error:
                    self._lost = self._lost if isinstance(error, TimeoutError) and self._lost else error
                    await asyncio.sleep(RECONNECT_WAIT)
            self.epoch += 1
            self.down_since, self._lost = None, None
            self._up.set()
            log.info("%s: connected again", self.login.shown)
            for callback in list(self.on_reconnect):
                callback()

    @property
    def max_payload(self) -> int:
        return int(self._nc.max_payload)

    @property
    def version(self) -> tuple[int, int, int]:
        """Of the server that this is connected to."""
        found = self._nc.connected_server_version
        return found.major, found.minor, found.patch

    async def close(self) -> None:
        """Not before what was sent has arrived, if the server is there."""
        self._closed = True
        if self._guardian is not None:
            self._guardian.cancel()
        if self._up.is_set():
            with contextlib.suppress(Exception):
                await self._nc.flush(timeout=2)
        await _closed(self._nc)
        await asyncio.gather(*self._leaving, *filter(None, [self._guardian]), return_exceptions=True)

    def now(self) -> float:
        """The server's clock, in seconds of the epoch: items carry its time. Within half the shortest round trip seen."""
        return time.monotonic() + self._ahead  # monotonic: this machine's clock may be set meanwhile

    # --- sending ---

    async def connected(self, deadline: float) -> bool:
        """Waits until there is a server, up to `deadline`; says whether there is one."""
        if self._closed:
            raise ClosedError(f"{self.login.shown}: this handle was closed meanwhile; open it again", path=self.login.shown)
        if self._up.is_set():
            return True
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    def expect(self) -> tuple[str, asyncio.Future[Msg]]:
        """A subject to send an answer to, and the future it will arrive in. Call `forget` when it is not awaited any more."""
        self._numbers += 1
        token = str(self._numbers)
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        return self._inbox + token, future

    def forget(self, reply: str) -> None:
        self._waiting.pop(reply.rpartition(".")[2], None)

    async def ask(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, *, within: float = ANSWER_WAIT
    ) -> Msg | None:
        """One question; None if no answer came in time, nobody answers there, or the connection broke: it may have arrived."""
        reply, future = self.expect()
        epoch = self.epoch
        try:
            async with asyncio.timeout(within):
                await self.send(subject, payload, reply, headers)
                message = await future
        except (TimeoutError, client_errors.Error, OSError):
            return None
        finally:
            self.forget(reply)
        if epoch != self.epoch or _status(message) == NO_RESPONDERS:
            return None
        return message

    async def listen(self, callback: Callable[[Msg], Awaitable[None]]) -> tuple[str, Any]:
        """A new inbox and its subscription."""
        inbox = self._nc.new_inbox()
        return inbox, await self._nc.subscribe(inbox, cb=callback, pending_msgs_limit=0, pending_bytes_limit=0)

    async def api(self, subject: str, /, **body: Any) -> dict[str, Any]:
        """A question to JetStream's API, asked again until `patience` is over. Raises Answer if it refuses."""
        deadline = time.monotonic() + self.login.patience
        payload = json.dumps(body).encode() if body else b""
        pause = 0.02
        while True:
            if await self.connected(deadline):
                asked = time.monotonic()
                message = await self.ask("$JS.API." + subject, payload)
                if message is not None:
                    answer: dict[str, Any] = json.loads(message.data)
                    error = answer.get("error")
                    if error is None:
                        self._set_clock(asked, answer.get("ts"))
                        return answer
                    self._lost = Answer(error.get("err_code", 0), error.get("description", ""))
                    if error.get("err_code") not in NOT_NOW:
                        raise Answer(error.get("err_code", 0), error.get("description", ""))
            if time.monotonic() + pause > deadline:
                raise self.unreachable()
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    def _set_clock(self, asked: float, said: str | None) -> None:
        took = time.monotonic() - asked
        if said is not None and 0 <= took < self._ahead_within:
            self._ahead, self._ahead_within = datetime.fromisoformat(said).timestamp() - asked - took / 2, took

    def unreachable(self, what: str = "") -> UnreachableError:
        login = self.login
        return UnreachableError(
            f"{login.shown}: no answer from JetStream within {login.patience:g} s ({_said(self._lost)}){what}", path=login.shown
        )

    # --- what the client reports ---

    async def _answered(self, message: Msg) -> None:
        future = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if future is not None and not future.done():
            future.set_result(message)

    async def _failed(self, error: Exception) -> None:
        self._lost = error

    async def _down(self) -> None:
        self._up.clear()
        self._break.set()
        if self.down_since is None:
            self.down_since = time.monotonic()


async def _closed(client: Client) -> None:
    """As far as it can be: to a server that does not read any more there is no end of writing."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_WAIT):
            await client.close()


def _status(message: Msg) -> str | None:
    return message.headers.get("Status") if message.headers else None


def _said(error: Exception | None) -> str:
    if error is None:
        return "it does not answer"
    return str(error) or type(error).__name__


class Pool:
    """The connections of one loop, by login. Used on that loop only."""

    def __init__(self) -> None:
        self._open: dict[Login, Connection] = {}
        self._opening = asyncio.Lock()  # whoever wants a connection waits while another is opened; rare

    async def take(self, login: Login) -> Connection:
        async with self._opening:
            found = self._open.get(login)
            if found is None:
                found = Connection(login)
                await found.open()
                self._open[login] = found
            found.users += 1
            return found

    async def give_back(self, connection: Connection) -> None:
        async with self._opening:
            connection.users -= 1
            if not connection.users:
                self._open.pop(connection.login, None)
                await connection.close()
