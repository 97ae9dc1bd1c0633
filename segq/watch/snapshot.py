"""What is seen of a queue at a moment: plain values, the same for the screen, the metrics and the page."""

from __future__ import annotations

import dataclasses
from typing import Any

OPEN, MISSING, REFUSED = "open", "missing", "refused"
"""There is a queue; there is none (yet, or any more); what is there cannot be read as one, and `error` says why."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Items put, handed out and acknowledged: since the watch began (totals), or a second (rates)."""

    put: float = 0.0
    get: float = 0.0
    ack: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessView:
    """One process that has the queue open, through one handle or more.

    `holds` is how many items it has claimed and not acknowledged; `puts` and `gets` count since its handles were opened.
    `cpu` is in parts of one processor since the last look, `memory` the resident bytes; both are None where the operating
    system does not show the process (it is another user's, or in another container), or it is dead.
    """

    pid: int
    command: str
    started: float
    alive: bool
    handles: int
    producing: bool
    consuming: bool
    holds: int
    puts: int
    gets: int
    put_rate: float
    get_rate: float
    cpu: float | None
    memory: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelView:
    """One label of a topic; see `segq.LabelStats`. `ack_rate` is in items a second since the last look."""

    label: str
    lag: int
    lag_seconds: float
    waiting: int
    claimed: int
    acknowledged: int
    missed: int
    ack_rate: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened between two looks: `kind` is rescue, died, quarantine, redelivery, shutdown, label, or queue."""

    time: float
    kind: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A queue or a topic at a moment; processes go on meanwhile, so the numbers need not fit each other to the item.

    `items` are stored and not acknowledged (`waiting`, or `claimed` by somebody who has them in hand), `bytes` their payload
    where a byte limit is set. `taken` is the room they take together with what producers have reserved. `oldest_age`, in
    seconds, is exact while the item lies in the open batch, else reckoned from when its segment was begun and sealed.
    `totals` count since the watch began, `rates` since the last look (`interval` seconds ago; None at the first look).
    `dead_letters` is None where the queue has none. All times are seconds of the epoch.
    """

    path: str
    time: float
    state: str
    error: str = ""
    kind: str = ""
    capacity: int | None = None
    max_bytes: int | None = None
    items: int = 0
    waiting: int = 0
    claimed: int = 0
    taken: int = 0
    bytes: int | None = None
    oldest_age: float | None = None
    segments: dict[str, int] = dataclasses.field(default_factory=dict)
    quarantined: int = 0
    dead_letters: int | None = None
    rescues: int = 0
    redelivered: int = 0
    expired: int = 0
    shutdown: bool = False
    interval: float | None = None
    totals: Flow = Flow()
    rates: Flow = Flow()
    processes: tuple[ProcessView, ...] = ()
    labels: tuple[LabelView, ...] = ()
    events: tuple[Event, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)
