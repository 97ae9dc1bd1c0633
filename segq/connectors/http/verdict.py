"""What an answer means for an item: done, to be tried again (when?), or refused for good."""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import enum
import re
from collections.abc import Mapping

from segq.connectors.backoff import backoff

MOST_BODY = 500  # characters of a refusal's body that are kept in the reason
LONGEST_RETRY_AFTER = 3600.0  # seconds: a server that says "tomorrow" is asked again within the hour

RETRIED = frozenset({401, 403, 407, 408, 425, 429})
"""Answers below 500 that say nothing about the item: credentials that ran out, timeouts, too many requests."""


_OUTAGES = frozenset({401, 403, 407, 429, 502, 503})


class Fate(enum.Enum):
    """What becomes of an item."""

    DONE = "done"
    AGAIN = "again"
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """`wait`: seconds that the server asked for; None if it did not. `is_outage`: it had nothing to do with the item."""

    fate: Fate
    reason: str = ""
    wait: float | None = None
    is_outage: bool = False


def judged(
    status: int, headers: Mapping[str, str], body: str, *, accept: frozenset[int], retry: frozenset[int], now: float
) -> Verdict:
    """The verdict on an answer; `accept` and `retry` are statuses that count as success, or as worth another attempt."""
    if 200 <= status < 300 or status in accept:
        return Verdict(Fate.DONE)
    reason = f"HTTP {status}"
    if text := " ".join(body.split()):
        reason += f": {text[:MOST_BODY]}"
    if status >= 500 or status in retry:
        return Verdict(Fate.AGAIN, reason, retry_after(headers.get("Retry-After"), now), status in _OUTAGES)
    return Verdict(Fate.REFUSED, reason)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` asks for, in either of its forms (RFC 9110, 10.2.3); None if it says nothing sensible.

    `now`: seconds of the epoch.
    """
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return min(LONGEST_RETRY_AFTER, float(text))
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:  # an obsolete form without a zone: always GMT
        when = when.replace(tzinfo=dt.UTC)
    return min(LONGEST_RETRY_AFTER, max(0.0, when.timestamp() - now))


class Breaker:
    """Holds everything back while an API fails time and again, and then lets one request through at a time until one succeeds.

    Else each item would use up its deliveries in the minutes in which nothing can succeed. (Nygard's circuit breaker.)
    Times are of a monotonic clock, in seconds.
    """

    def __init__(self, threshold: int, first: float, longest: float) -> None:
        """`threshold`: failures in a row. `first`, `longest`: how long it holds back, doubled each time a try fails."""
        self._threshold, self._first, self._longest = threshold, first, longest
        self._failures = self._trips = 0
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it holds back."""
        return self._failures >= self._threshold

    def success(self) -> None:
        """A request was answered as it should be."""
        self._failures = self._trips = 0

    def failure(self, now: float, wait: float | None) -> None:
        """One was not, and the server asked for this many seconds (None: it did not)."""
        self._failures += 1
        if wait:
            self._until = max(self._until, now + wait)
        if self.is_open and now >= self._until:  # of many that fail together only the first makes it longer
            self._trips += 1
            self._until = now + backoff(self._trips, self._first, self._longest)

    def pause(self, now: float) -> float:
        """Seconds for which nothing may be sent."""
        return max(0.0, self._until - now)

    def room(self, most: int, under_way: int, now: float) -> int:
        """How many more requests may be sent."""
        if now < self._until:
            return 0
        return max(0, (1 if self.is_open else most) - under_way)
