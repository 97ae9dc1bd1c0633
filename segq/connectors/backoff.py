"""How long to wait before the next attempt."""

from __future__ import annotations

import random


def backoff(attempt: int, first: float, longest: float) -> float:
    """Seconds before the attempt after this one (1 is the first): doubled each time, the second half of it by chance.

    Without chance all that failed together would come again together ("equal jitter", of Brooker's essay on backoff).
    """
    whole: float = min(longest, first * 2.0 ** min(attempt - 1, 60))
    return whole / 2 + random.random() * whole / 2  # noqa: S311  # no secret
