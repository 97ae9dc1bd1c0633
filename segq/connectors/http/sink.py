"""`HttpSink`: items of a queue to an HTTP API, many requests at a time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import segq
from segq.connectors.backoff import backoff
from segq.connectors.http.limits import Limits
from segq.connectors.http.request import Convert, Request, converter
from segq.connectors.http.verdict import RETRIED, Breaker, Fate, Verdict, judged

log = logging.getLogger("segq.http")

_RECEIVE_SECONDS = 0.2  # how soon a sink that waits for items sees that it shall stop
_MOST_READ = 16_384  # bytes of an answer
_HELD_AHEAD = 1.0  # seconds of its rate that a sink takes in hand: others could send what waits here for its turn
_DOUBTFUL_ATTEMPTS = 4
_CANCELLED = "the sink was stopped before the API answered"


def library() -> Any:
    """`aiohttp`; raises ModuleNotFoundError with the remedy."""
    try:
        import aiohttp
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the HTTP connector needs aiohttp: pip install 'segq[http]'", name="aiohttp") from error
    return aiohttp


def _no_connection() -> Any:
    return library().ClientConnectorError


@dataclasses.dataclass(slots=True, kw_only=True)
class SinkCounts:
    """What a sink has done so far. `retried` counts attempts that failed and are made again; `lost`, items that the API took
    after their lease had run out, and that may be sent again."""

    sent: int = 0
    retried: int = 0
    given_up: int = 0
    lost: int = 0
    under_way: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A sink's settings, as `HttpSink` explains them."""

    url: str
    method: str
    headers: Mapping[str, str]
    convert: Convert
    concurrency: int
    timeout: float
    max_deliveries: int | None
    backoff: float
    longest: float
    rate: float | None
    limits: str | os.PathLike[str] | None
    total: int | None
    accept: frozenset[int]
    retry: frozenset[int]
    threshold: int
    grace: float


class HttpSink:
    """Sends each item of a queue, or of a label, to an HTTP API, and acknowledges it when the API has taken it.

    Items are sent at least once: one that was under way when its process died is sent again. Each request carries the
    item's id as `Idempotency-Key`, so that the API can tell. There is no order among them.

    What fails and may succeed later (no connection, no answer in time, 5xx, 429, 408, 425, and 401, 403, 407, where the fault
    is not the item's) goes back to the queue for a while that doubles each time, or as long as `Retry-After` asks; others go
    first meanwhile. When it was delivered `max_deliveries` times, or at once where the API refuses it (any other answer), it
    becomes a dead letter with the answer as the reason. While everything fails, one request at a time finds out whether the
    API is back, so that an outage does not use up the items' deliveries.

    Args:
        queue: a `Queue` or a `Subscription`.
        url: where to. A `Request` may name another, or a path below it.
        method: of the requests.
        headers: sent with each.
        convert: what is sent for an item: a function from its value to a `Request` (or None: nothing, it is done), or its name
            as "package.module:function". Default: bytes and text as they are, anything else as JSON.
        concurrency: requests under way at most, in this process.
        timeout: seconds for one request, all told.
        max_deliveries: attempts before an item is given up; None (default): the queue's own, and without that for ever.
        backoff, longest_backoff: seconds before the second attempt, and at most.
        rate: requests a second at most; None for no limit.
        limits: a file; `rate` and `total_concurrency` hold for all processes together that name it. Default: each has its own.
        total_concurrency: requests under way at most in all processes that share `limits`.
        accept, retry: further statuses that count as success, or as worth another attempt.
        breaker: failures in a row after which everything is held back; 0: never.
        grace: seconds that requests under way have to finish in when the sink is stopped; then they are given back.
    """

    def __init__(
        self,
        queue: segq.Queue | segq.Subscription,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        convert: str | Convert | None = None,
        concurrency: int = 64,
        timeout: float = 30.0,
        max_deliveries: int | None = None,
        backoff: float = 1.0,
        longest_backoff: float = 60.0,
        rate: float | None = None,
        limits: str | os.PathLike[str] | None = None,
        total_concurrency: int | None = None,
        accept: Iterable[int] = (),
        retry: Iterable[int] = (),
        breaker: int = 10,
        grace: float = 30.0,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise segq.SettingsError(f'url must be absolute, like "http://localhost:8080/orders", not {url!r}')
        for name, value in (("timeout", timeout), ("backoff", backoff), ("longest_backoff", longest_backoff)):
            _number(name, value)
        for name, whole in (("concurrency", concurrency), ("total_concurrency", total_concurrency), ("rate", rate)):
            if whole is not None or name == "concurrency":
                _number(name, whole, whole=name != "rate")
        if total_concurrency is not None and limits is None:
            raise segq.SettingsError("total_concurrency is for processes that share limits: give limits, a file")
        library()
        self.queue = queue
        self._plan = _Plan(
            url=url,
            method=method,
            headers=dict(headers or {}),
            convert=converter(convert),
            concurrency=concurrency,
            timeout=timeout,
            max_deliveries=max_deliveries if max_deliveries is not None else queue.settings.max_deliveries,
            backoff=backoff,
            longest=longest_backoff,
            rate=rate,
            limits=limits,
            total=total_concurrency,
            accept=frozenset(accept),
            retry=RETRIED | frozenset(retry),
            threshold=breaker or 1 << 62,
            grace=grace,
        )
        self._counts = SinkCounts()

    @classmethod
    def from_settings(cls, queue: segq.Queue | segq.Subscription, **settings: Any) -> Self:
        """The same with all settings by name, as a configuration file gives them."""
        try:
            return cls(queue, **settings)
        except TypeError as error:
            raise segq.SettingsError(f"http sink: {error}") from error

    @property
    def counts(self) -> SinkCounts:
        """What it has done so far."""
        return dataclasses.replace(self._counts)

    def run(self, stop: threading.Event) -> None:
        """Sends until `stop` is set, or the queue is shut down and empty; then finishes what is under way.

        Raises the queue's errors; what is under way then is finished first.
        """
        asyncio.run(self._run(stop))

    async def _run(self, stop: threading.Event) -> None:
        aiohttp, plan = library(), self._plan
        limits = Limits(plan.rate, plan.total, plan.limits)
        threads = ThreadPoolExecutor(4, thread_name_prefix="segq-http")  # a receive, and rejects, which store something
        connector = aiohttp.TCPConnector(limit=0)  # how many there are is ours to say
        timeout = aiohttp.ClientTimeout(total=plan.timeout)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=plan.headers) as session:
                await _Sending(self.queue, plan, self._counts, session, limits, threads).until(stop)
        finally:
            threads.shutdown()
            limits.close()


class _Sending:
    """One run of a sink: the messages under way, and what is known of the API."""

    def __init__(
        self, queue: segq.Queue | segq.Subscription, plan: _Plan, counts: SinkCounts, session: Any, limits: Limits,
        threads: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        self._queue, self._plan, self._counts = queue, plan, counts
        self._session, self._limits, self._threads = session, limits, threads
        self._breaker = Breaker(plan.threshold, plan.backoff, plan.longest)
        ahead = plan.concurrency if plan.rate is None else max(1, round(plan.rate * _HELD_AHEAD))
        self._most = min(plan.concurrency, ahead)
        self._under_way: dict[asyncio.Task[None], segq.Message] = {}
        self._probe: segq.Message | None = None
        self._stopping = asyncio.Event()

    async def until(self, stop: threading.Event) -> None:
        keeping = asyncio.create_task(self._keep_leases())
        try:
            while not stop.is_set():
                room = self._breaker.room(self._most, len(self._under_way), time.monotonic())
                if not room or self._probe is not None:
                    await self._rest()
                    continue
                try:
                    messages = await self._in_thread(self._queue.receive_many, room, True, _RECEIVE_SECONDS)
                except segq.Empty:
                    continue
                except segq.ShutDown:
                    break
                for message in messages:
                    task = asyncio.create_task(self._send(message))
                    self._under_way[task] = message
                    task.add_done_callback(self._ended)
                self._counts.under_way = len(self._under_way)
        finally:
            await self._finish()
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(function, *arguments))

    async def _rest(self) -> None:
        """Until a request has ended, or the breaker lets one through; for a moment at most, so that a stop is seen."""
        pause = self._breaker.pause(time.monotonic()) or _RECEIVE_SECONDS
        seconds = min(_RECEIVE_SECONDS, pause)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(seconds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        self._counts.under_way = len(self._under_way)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an item could not be settled, and goes back when this process ends: %r", error)

    async def _finish(self) -> None:
        """Lets what is under way end; what takes too long is given back."""
        self._stopping.set()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._plan.grace)
        left = list(self._under_way)
        for task in left:
            task.cancel()
        if left:
            log.warning("%d requests were not answered in time, and their items go back", len(left))
            await asyncio.wait(left)

    # --- one item ---

    async def _send(self, message: segq.Message) -> None:
        try:
            request = self._plan.convert(message.value)
        except Exception as error:  # the user's function; it would fail in the same way the next time
            await self._give_up(message, f"convert raised {type(error).__name__}: {error}")
            return
        if request is None:
            self._done(message)
            return
        try:
            verdict = await self._verdict(message, request)
        except asyncio.CancelledError:
            self._give_back(message, 0.0, _CANCELLED)
            raise
        if verdict.fate is Fate.AGAIN:
            await self._again(message, verdict)
        elif verdict.fate is Fate.DONE:
            self._done(message)
        else:
            await self._give_up(message, verdict.reason)

    async def _verdict(self, message: segq.Message, request: Request) -> Verdict:
        """The answer; while all fails, one item stays in hand and is sent until the API is back, which is one delivery.

        Given back it would come first again, as it is the oldest, and use up its deliveries. Where it may itself be the
        reason (an error 500, no answer in time) it has a few attempts, and then another one's turn comes.
        """
        attempts = 0
        try:
            while True:
                async with self._limits.one():
                    verdict = await self._asked(message, request)
                if verdict.fate is not Fate.AGAIN:
                    self._breaker.success()
                    return verdict
                self._breaker.failure(time.monotonic(), verdict.wait)
                attempts += 1
                stays = verdict.is_outage or attempts < _DOUBTFUL_ATTEMPTS
                if not (stays and self._breaker.is_open and self._probe in (None, message)):
                    return verdict
                self._probe = message
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self._breaker.pause(time.monotonic()))
                if self._stopping.is_set():
                    return verdict
        finally:
            if self._probe is message:
                self._probe = None

    async def _asked(self, message: segq.Message, request: Request) -> Verdict:
        plan = self._plan
        url = plan.url if request.url is None else urljoin(plan.url.rstrip("/") + "/", request.url)
        headers = {"Idempotency-Key": str(message.id), **request.headers}
        try:
            async with self._session.request(
                request.method or plan.method, url, data=request.body, headers=headers, params=request.params or None
            ) as answer:
                body = (await answer.content.read(_MOST_READ)).decode("utf-8", "replace")  # all of it, or the connection goes
                return judged(
                    answer.status,
                    answer.headers,
                    body,
                    accept=plan.accept,
                    retry=plan.retry,
                    now=time.time(),
                )
        except TimeoutError:  # too long to connect, or to answer
            return Verdict(Fate.AGAIN, f"no answer within {plan.timeout:g} s")
        except (library().InvalidURL, ValueError) as error:
            return Verdict(Fate.REFUSED, f"{url!r} cannot be asked: {error}")
        except (library().ClientError, OSError) as error:
            return Verdict(Fate.AGAIN, f"{type(error).__name__}: {error}", is_outage=isinstance(error, _no_connection()))

    def _done(self, message: segq.Message) -> None:
        try:
            message.ack()
        except segq.ReceiptError as error:
            self._counts.lost += 1
            log.warning("the API has %s, and may get it again: %s", message.id, error)
        else:
            self._counts.sent += 1

    async def _again(self, message: segq.Message, verdict: Verdict) -> None:
        plan = self._plan
        if plan.max_deliveries is not None and message.deliveries >= plan.max_deliveries:
            await self._give_up(message, f"{verdict.reason} (attempt {message.deliveries})")
            return
        delay = backoff(message.deliveries, plan.backoff, plan.longest)
        self._give_back(message, max(delay, verdict.wait or 0.0), verdict.reason)

    def _give_back(self, message: segq.Message, delay: float, reason: str) -> None:
        log.info("%s comes again in %.3g s: %s", message.id, delay, reason, extra={"id": message.id, "reason": reason})
        self._counts.retried += 1
        with contextlib.suppress(segq.ReceiptError):  # its lease ran out: it has gone back already
            message.nack(delay=delay)

    async def _give_up(self, message: segq.Message, reason: str) -> None:
        try:
            await self._in_thread(message.reject, reason)
        except segq.ReceiptError as error:
            log.warning("%s was refused, and may come again: %s", message.id, error)
            self._counts.lost += 1
        except (segq.QueueError, OSError) as error:
            log.error("%s cannot be given up yet: %s", message.id, error)
            self._give_back(message, self._plan.longest, reason)
        else:
            self._counts.given_up += 1
            log.warning("%s is a dead letter: %s", message.id, reason, extra={"id": message.id, "reason": reason})

    async def _keep_leases(self) -> None:
        """An item whose request waits for its turn, or for a slow answer, stays ours."""
        lease = self._queue.settings.lease
        while lease is not None:
            await asyncio.sleep(lease / 3)
            for message in list(self._under_way.values()):
                with contextlib.suppress(segq.ReceiptError):
                    message.extend(lease)


def _number(name: str, value: Any, *, whole: bool = False) -> None:
    allowed = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not 0 < value < 1e9:
        raise segq.SettingsError(f"{name} must be a {'whole number' if whole else 'number'} greater than 0, not {value!r}")
