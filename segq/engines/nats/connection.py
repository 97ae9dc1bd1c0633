"""A connection to NATS servers, shared by the handles of a process that log in the same way, and what is asked through it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import nats
from nats import errors as client_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from segq.errors import ClosedError, QueueError, SettingsError, UnreachableError

RECONNECT_WAIT = 0.25  # seconds between two attempts at a server: soon, without a storm
PING_INTERVAL = 3  # seconds; two without an answer and the server is given up for another: a partition shows within 9 s
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
        self._up = asyncio.Event()
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
        options = login.options()
        try:
            async with asyncio.timeout(login.connect_timeout):
                self._nc = await nats.connect(
                    list(login.servers),
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT,  # annotated int, used as seconds
                    connect_timeout=max(1, int(login.connect_timeout / 2)),
                    ping_interval=PING_INTERVAL,
                    pending_size=PENDING_BYTES,
                    error_cb=self._failed,
                    disconnected_cb=self._down,
                    reconnected_cb=self._again,
                    closed_cb=self._down,
                    name="segq",
                    **options,
                )
        except (TimeoutError, OSError, client_errors.Error) as error:
            why = self._lost if isinstance(error, TimeoutError) and self._lost else error
            with contextlib.suppress(Exception):
                await self._nc.close()
            raise UnreachableError(
                f"{login.shown}: no NATS server answers within {login.connect_timeout:g} s ({_said(why)}); is one"
                " running there, with JetStream (-js), and is the login right?",
                path=login.shown,
            ) from None
        self._up.set()
        self.send = self._nc.publish
        self._inbox = self._nc.new_inbox() + "."
        await self._nc.subscribe(self._inbox + "*", cb=self._answered, pending_msgs_limit=0, pending_bytes_limit=0)

    @property
    def max_payload(self) -> int:
        return int(self._nc.max_payload)

    @property
    def version(self) -> tuple[int, int]:
        """Of the server that this is connected to."""
        found = self._nc.connected_server_version
        return found.major, found.minor

    async def close(self) -> None:
        """Not before what was sent has arrived, if the server is there."""
        self._closed = True
        with contextlib.suppress(Exception):
            if self._up.is_set():
                await self._nc.flush(timeout=2)
        with contextlib.suppress(Exception):
            await self._nc.close()
        await asyncio.sleep(0)

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
        if self.down_since is None:
            self.down_since = time.monotonic()

    async def _again(self) -> None:
        self.epoch += 1
        self.down_since = None
        self._lost = None
        self._up.set()
        for callback in list(self.on_reconnect):
            callback()


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
