"""What an answer means, how long to wait, what is sent, and how the limits are kept; without a server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from accounts import ROOT, until

from segq._core.base.errors import SettingsError
from segq.connectors.backoff import backoff
from segq.connectors.http import Limits, Request, outgoing
from segq.connectors.http.request import converter
from segq.connectors.http.verdict import RETRIED, Breaker, Fate, judged, retry_after

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def fate(status: int, headers: dict[str, str] | None = None, **further: Any) -> Fate:
    known: dict[str, Any] = {"accept": frozenset(), "retry": RETRIED} | further
    return judged(status, headers or {}, "", now=NOW, **known).fate


@pytest.mark.parametrize("status", [200, 201, 204])
def test_what_the_api_took_is_done(status: int) -> None:
    assert fate(status) is Fate.DONE


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599, 429, 408, 425, 401, 403])
def test_what_may_succeed_later_comes_again(status: int) -> None:
    assert fate(status) is Fate.AGAIN


@pytest.mark.parametrize("status", [301, 400, 404, 409, 422])
def test_what_the_api_refuses_is_refused_unless_it_is_told_otherwise(status: int) -> None:
    assert fate(status) is Fate.REFUSED
    assert fate(status, accept=frozenset({status})) is Fate.DONE
    assert fate(status, retry=frozenset({status})) is Fate.AGAIN


def test_the_reason_has_the_status_and_the_beginning_of_the_body() -> None:
    verdict = judged(422, {}, "no such\n customer " + "x" * 5000, accept=frozenset(), retry=RETRIED, now=NOW)
    assert verdict.reason.startswith("HTTP 422: no such customer xxx")
    assert len(verdict.reason) < 600


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30.0),
        ("Tue Nov 14 22:13:50 2023", 30.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("999999999", 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        (None, None),
        ("٣", None),
    ],
)
def test_retry_after_is_understood_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_the_backoff_doubles_up_to_the_longest_half_of_it_by_chance() -> None:
    for attempt, whole in [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (200, 60.0)]:
        waits = {backoff(attempt, 1.0, 60.0) for _ in range(50)}
        assert all(whole / 2 <= wait <= whole for wait in waits)
        assert len(waits) > 10


def test_the_breaker_holds_back_after_failures_in_a_row_and_lets_one_try() -> None:
    breaker = Breaker(3, 1.0, 60.0)
    for _ in range(2):
        breaker.failure(0.0, None)
    breaker.success()
    for _ in range(2):
        breaker.failure(0.0, None)
    assert breaker.room(10, 2, 0.0) == 8
    for _ in range(8):  # all that were under way fail together
        breaker.failure(0.0, None)
    assert breaker.room(10, 0, 0.4) == 0
    assert 0.5 <= breaker.pause(0.0) <= 1.0
    assert breaker.room(10, 0, 1.1) == 1
    assert breaker.room(10, 1, 1.1) == 0
    breaker.failure(1.1, None)
    assert 1.0 <= breaker.pause(1.1) <= 2.0
    breaker.success()
    assert breaker.room(10, 1, 9.0) == 9


def test_the_breaker_waits_as_long_as_the_server_asks() -> None:
    breaker = Breaker(3, 1.0, 60.0)
    breaker.failure(0.0, 30.0)
    assert breaker.room(10, 0, 29.0) == 0
    assert breaker.room(10, 0, 30.0) == 10


def test_items_are_sent_as_what_they_are() -> None:
    assert outgoing(b"\xff").body == b"\xff"
    assert outgoing("ä") == Request(body="ä".encode(), headers={"Content-Type": "text/plain; charset=utf-8"})
    assert outgoing({"n": [1, None]}).body == b'{"n":[1,null]}'
    assert outgoing({"value": b"text"}).body == b'{"value":"text"}'
    with pytest.raises(UnicodeDecodeError):
        outgoing({"value": b"\xff"})
    with pytest.raises(TypeError, match="convert"):
        outgoing({"value": object()})


def test_a_convert_is_found_by_name_or_named() -> None:
    assert converter("segq.connectors.http:outgoing") is outgoing
    assert converter(None) is outgoing
    for wrong in ("nowhere:at_all", "json", "json:nothing", "sys:path"):
        with pytest.raises(SettingsError, match="convert"):
            converter(wrong)


# --- limits ---


def test_the_rate_is_kept_by_one_process(tmp_path: Path) -> None:
    assert spread(Limits(50.0, None)) >= 9 * 0.02


def spread(limits: Limits, count: int = 10) -> float:
    """Seconds from the first to the last of so many turns that are asked for at once."""

    async def all_at_once() -> float:
        times: list[float] = []

        async def one() -> None:
            async with limits.one():
                times.append(time.monotonic())

        await asyncio.gather(*(one() for _ in range(count)))
        return max(times) - min(times)

    try:
        return asyncio.run(all_at_once()) + 0.001  # the clock of a sleep may be a little coarser than ours
    finally:
        limits.close()


linux = pytest.mark.skipif(sys.platform != "linux", reason="shared limits are for Linux")


@linux
def test_the_rate_is_kept_by_all_who_share_it(tmp_path: Path) -> None:
    async def both() -> float:
        begun = time.monotonic()
        one, other = (Limits(50.0, None, tmp_path / "limits") for _ in range(2))

        async def take(limits: Limits) -> None:
            async with limits.one():
                pass

        await asyncio.gather(*(take(each) for each in [one, other] * 5))
        one.close()
        other.close()
        return time.monotonic() - begun

    assert asyncio.run(both()) >= 9 * 0.02 - 0.001


HOLDER = """
import asyncio, sys
from segq.connectors.backoff import backoff
from segq.connectors.http import Limits
async def main():
    async with Limits(None, 1, sys.argv[1]).one():
        print("has it", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@linux
def test_a_place_of_a_process_that_is_killed_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"has it\n"

        async def take() -> bool:
            limits = Limits(None, 1, path)
            try:
                async with asyncio.timeout(0.2), limits.one():
                    return True
            except TimeoutError:
                return False
            finally:
                limits.close()

        assert not asyncio.run(take())
        holder.kill()
        until(lambda: asyncio.run(take()), 30, "its place is free")
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
