"""`Bridge`: store and forward from one address to another, whatever engines they are of.

The order of things is what makes it safe: receive here, store there, have that confirmed, note it, acknowledge here. A death
between any two of them repeats, never loses; what repeats is dropped by its id, as far as docs/engines.md says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from segq._core.base.errors import (
    Empty,
    Full,
    ItemTooLarge,
    QueueError,
    ReceiptError,
    SerializationError,
    SettingsError,
    ShutDown,
    StorageError,
    UnreachableError,
)
from segq._core.base.message import Message
from segq._core.base.settings import whole_number
from segq._core.system.journal import Journal
from segq.engines.address import parse
from segq.engines.connect import connect, exists, kind_of, subscription
from segq.engines.interface import KnowsIds, QueueLike, SettlesMany, SubscriptionLike, TopicLike

log = logging.getLogger("segq")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds between attempts at a side that is down: doubled, with jitter
MOST_AT_ONCE, MOST_KNOWN = 10_000, 40_000  # ids; as many as a slot of the journal holds
IDLE = 1.0  # seconds: how soon a waiting bridge sees that it shall stop
AWAY = (UnreachableError, StorageError, OSError)  # a side that is down, and may come back


class _StoppedError(Exception):
    """Told to stop in the middle of a wait; what is in hand goes back when the bridge is closed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BridgeStats:
    """Since the bridge was made. `lag` counts what the source still holds for it, received or not; None: the source is away.

    `lag_seconds` is how long ago the oldest item was put that was received and not forwarded yet. `down_since` is when a side
    was found away, in seconds of the epoch; `trouble` says what it said.
    """

    forwarded: int
    duplicates: int
    rejected: int
    in_hand: int
    lag: int | None
    lag_seconds: float
    down_since: float | None
    trouble: str | None


class Bridge:
    """Forwards what is put at `source` to `target`, until stopped.

    >>> import segq, tempfile
    >>> place = tempfile.mkdtemp()
    >>> with segq.Queue(place + "/spool") as spool, segq.Queue(place + "/far") as far:
    ...     spool.put_many([1, 2, 3])
    ...     with segq.Bridge(place + "/spool", place + "/far") as bridge:
    ...         bridge.run(until_empty=True)
    ...     far.get_many(9)
    3
    [1, 2, 3]

    Args:
        source, target: addresses, as for `segq.connect`. The source has to be there, once it is reached; a target that is not
            there is created: a queue, or a topic if `topic`.
        label, start: of a source that is a topic: whose items, and where a new label begins.
        batch: how many items are forwarded at once, at most; up to 10,000.
        journal: a file in which the ids of what was stored are kept until they are acknowledged; by default beside a local
            target or source, none if both are remote.
        source_settings, target_settings: keyword arguments for `segq.connect`.

    One bridge for each pair of addresses. Either side may be away, for hours: what was received is kept, leases are extended,
    and the attempts go on. Errors that no waiting mends (no such queue, wrong settings) are raised.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        *,
        label: str | None = None,
        start: str = "oldest",
        topic: bool = False,
        batch: int = 1000,
        journal: str | os.PathLike[str] | None = None,
        source_settings: dict[str, Any] | None = None,
        target_settings: dict[str, Any] | None = None,
    ) -> None:
        if parse(source).shown() == parse(target).shown() and label is None:
            raise SettingsError(f"a bridge from {source} to itself would never end")
        self._from, self._to, self._label, self._start, self._topic = source, target, label, start, topic
        self._batch = whole_number("batch", batch)
        if batch > MOST_AT_ONCE:
            raise SettingsError(f"batch must be between 1 and {MOST_AT_ONCE}, not {batch}: the journal keeps its ids")
        self._source_settings, self._target_settings = source_settings or {}, target_settings or {}
        self._source: QueueLike | SubscriptionLike | None = None
        self._target: QueueLike | TopicLike | None = None
        path = journal or _journal_path(source, target, label)
        self._journal_path = None if path is None else os.fspath(path)
        self._journal: Journal | None = None
        self._known: dict[str, None] = {}  # ids, in the order stored
        self._hands: list[Message] = []
        self._from_before = False  # whether what is in hand was there in an earlier turn, which failed
        self._stop = threading.Event()
        self._forwarded = self._duplicates = self._rejected = 0
        self._down_since: float | None = None
        self._trouble: str | None = None

    def run(self, *, until_empty: bool = False) -> int:
        """Forwards until `stop` is called, or nothing waits any more; returns how many items it forwarded."""
        begun = self._forwarded
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            try:
                if not self._turn(until_empty=until_empty):
                    break
                pause, self._down_since, self._trouble = FIRST_PAUSE, None, None
            except _StoppedError:
                break
            except AWAY as error:
                self._note(error)
                self._rest(pause * (0.7 + os.urandom(1)[0] / 425))  # jitter: 0.7 to 1.3
                pause = min(LONGEST_PAUSE, pause * 2)
        return self._forwarded - begun

    def stop(self) -> None:
        """From another thread, or a signal handler: `run` returns soon."""
        self._stop.set()

    def close(self) -> None:
        """Gives back what is in hand and closes both sides."""
        for side in (self._source, self._target):
            if side is not None:
                with contextlib.suppress(*AWAY):
                    side.close()
        self._source = self._target = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._hands.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def stats(self) -> BridgeStats:
        """How much was forwarded, and how much there is still to do."""
        lag: int | None = None
        source, hands = self._source, list(self._hands)
        if source is not None:
            with contextlib.suppress(QueueError, OSError):
                lag = source.qsize() + len(hands)
        return BridgeStats(
            forwarded=self._forwarded,
            duplicates=self._duplicates,
            rejected=self._rejected,
            in_hand=len(hands),
            lag=lag,
            lag_seconds=max(0.0, time.time() - min(each.enqueued_at for each in hands)) if hands else 0.0,
            down_since=self._down_since,
            trouble=self._trouble,
        )

    # --- one turn ---

    def _turn(self, *, until_empty: bool) -> bool:
        """A batch. False if there is none and there will be none."""
        source, target = self._opened()
        if not self._hands:
            try:
                self._hands = source.receive_many(self._batch, timeout=0 if until_empty else IDLE)
            except Empty:
                return not until_empty
            except ShutDown:
                return False
        fresh = [each for each in self._hands if _id_of(each) not in self._known]
        if not self._from_before:
            self._duplicates += len(self._hands) - len(fresh)
        self._from_before = True
        for part in self._parts(target, fresh):
            self._store(target, part)
        if self._acknowledge(source, self._hands):
            for each in self._hands:
                self._known.pop(_id_of(each), None)
        self._hands, self._from_before = [], False
        return True

    def _opened(self) -> tuple[QueueLike | SubscriptionLike, QueueLike | TopicLike]:
        if self._journal is None and self._journal_path is not None:
            self._journal = Journal(self._journal_path)
            self._known = dict.fromkeys(self._journal.ids)
        if self._source is None:
            settings = {**self._source_settings, "create": False}
            if self._label is not None:
                self._source = subscription(self._from, self._label, self._start, **self._source_settings)
            elif kind_of(self._from, **self._source_settings) == "topic":
                raise SettingsError(f"{self._from} is a topic: say which label to forward")
            else:
                self._source = connect(self._from, **settings)
        if self._target is None:
            there = exists(self._to, **self._target_settings)
            kind = kind_of(self._to, **self._target_settings) if there else ("topic" if self._topic else "queue")
            self._target = connect(self._to, kind, **self._target_settings)
        return self._source, self._target

    def _store(self, target: QueueLike | TopicLike, part: Sequence[Message]) -> None:
        """Until it is confirmed, and noted. Raises those of AWAY, and _StoppedError."""
        ids, values = [_id_of(each) for each in part], [each.value for each in part]
        while True:
            try:
                if isinstance(target, KnowsIds):
                    target.put_many_as(ids, values, timeout=self._step())
                else:
                    target.put_many(values, timeout=self._step())
            except Full:
                self._keep_leases()
                if self._stop.is_set():
                    raise _StoppedError from None
            except (ItemTooLarge, SerializationError) as error:
                self._one_by_one(target, part, error)
                return
            else:
                self._known.update(dict.fromkeys(ids))
                while len(self._known) > MOST_KNOWN:
                    del self._known[next(iter(self._known))]
                if self._journal is not None:
                    self._journal.write(self._known)
                self._forwarded += len(part)
                return

    def _parts(self, target: QueueLike | TopicLike, messages: Sequence[Message]) -> list[Sequence[Message]]:
        """All at once, so that it is one write; in quarters of a target's capacity, so that it goes on before that is empty."""
        capacity = target.settings.capacity
        most = len(messages) or 1
        if capacity is not None and not isinstance(target, KnowsIds):
            most = max(1, min(most, capacity // 4))
        return [messages[at : at + most] for at in range(0, len(messages), most)]

    def _one_by_one(self, target: QueueLike | TopicLike, part: Sequence[Message], error: QueueError) -> None:
        """Something among them can never be stored there: it is rejected at the source, and the rest goes on."""
        if len(part) > 1:
            for each in part:
                self._store(target, [each])
            return
        reject = getattr(part[0], "reject", None)
        if reject is None:
            raise error
        log.error("item %s cannot be stored at %s, it is rejected: %s", part[0].id, self._to, error)
        reject(f"cannot be forwarded to {self._to}: {error}")
        self._rejected += 1
        self._hands = [each for each in self._hands if each is not part[0]]

    @staticmethod
    def _acknowledge(source: QueueLike | SubscriptionLike, messages: list[Message]) -> bool:
        """False if one of them was lost before: it comes again, and its id has to be known then."""
        try:
            if isinstance(source, SettlesMany):
                source.ack_many(messages)
                return True
        except ReceiptError:
            return False
        lost = False
        for each in messages:
            try:
                each.ack()
            except ReceiptError:
                lost = True
        return not lost

    # --- while a side is away ---

    def _note(self, error: BaseException) -> None:
        if self._down_since is None:
            self._down_since = time.time()
            log.warning("bridge %s -> %s: waiting: %s", self._from, self._to, error)
        self._trouble = str(error)

    def _rest(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stop.is_set() and (left := deadline - time.monotonic()) > 0:
            self._keep_leases()
            self._stop.wait(min(self._step(), left))

    def _step(self) -> float:
        """Seconds that may pass until leases are looked after, or the order to stop is."""
        lease = self._source.settings.lease if self._source is not None else None
        return IDLE if lease is None else min(IDLE, lease / 3)

    def _keep_leases(self) -> None:
        """What is in hand stays ours, however long it takes. What was lost all the same is with somebody else."""
        source = self._source
        if source is None or source.settings.lease is None:
            return
        kept = []
        for each in self._hands:
            try:
                each.extend(source.settings.lease)
                kept.append(each)
            except ReceiptError:
                continue
            except AWAY:
                kept.append(each)
        self._hands = kept


def _id_of(message: Message) -> str:
    """What it was published under on an engine that knows that, else its own id, which no other queue has."""
    found: str = getattr(message, "identity", None) or message.id
    return found


def _journal_path(source: str | os.PathLike[str], target: str | os.PathLike[str], label: str | None) -> str | None:
    import hashlib  # loads OpenSSL

    near, far = parse(source), parse(target)
    pair = hashlib.sha256(f"{near.shown()} {label} {far.shown()}".encode()).hexdigest()[:12]
    local = next((each for each in (far, near) if each.scheme == "segq"), None)
    return None if local is None else f"{os.path.abspath(local.path).rstrip('/')}.bridge-{pair}"
