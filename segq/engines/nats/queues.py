"""Queues, topics and labels on NATS, with the API of `segq.Queue`, `segq.Topic` and `segq.Subscription`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NoReturn

from segq._core.base.errors import SettingsError
from segq._core.directory.labels import checked_label
from segq._core.directory.tally import LabelStats
from segq.engines.nats.connection import Pool
from segq.engines.nats.core import Core, Plan
from segq.engines.nats.dead import NatsDeadLetters
from segq.engines.nats.handle import NatsGetting, NatsHandle, NatsPutting
from segq.handles.subscription import STARTS, Lag


class Burying(NatsHandle):
    """What has dead letters."""

    _letters: NatsDeadLetters | None = None
    _of_queue = False

    @property
    def dead(self) -> NatsDeadLetters:
        """What was given up: rejected, or handed out `max_deliveries` times in vain. Closed with this handle."""
        core = self._open()
        if self._letters is None:
            self._letters = NatsDeadLetters(self._plan, core, of_queue=self._of_queue)
        return self._letters

    def close(self) -> None:
        """Gives back what this handle holds; what is stored stays. Closing twice is fine."""
        letters, self._letters = self._letters, None
        if letters is not None:
            letters.close()
        super().close()

    def _forked(self) -> None:
        super()._forked()
        self._letters = None


class NatsQueue(Burying, NatsGetting, NatsPutting):
    """A work-queue stream with the API of `segq.Queue`."""

    _of_queue = True

    def task_done(self) -> NoReturn:
        """UnsupportedError: the server keeps no account of what was got and not finished."""
        self._cannot("task_done", "use receive and ack; what is not acknowledged counts as stored")

    def join(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002  # the signature of the local one
        """UnsupportedError: as `task_done`."""
        self._cannot("join", "use receive and ack, and wait for stats().items to be 0")


class NatsTopic(Burying, NatsPutting):
    """An interest (or limits) stream with the API of `segq.Topic`."""

    def subscribe(
        self, label: str, start: str = "oldest", prefetch: int | None = None, *, max_deliveries: int | None = None
    ) -> NatsSubscription:
        """A handle that gets the items of `label`; the first makes it, where `start` says, in one step with respect to puts."""
        self._open()
        if prefetch not in (None, 1):
            self._cannot("prefetch", "what is handed ahead counts as a delivery there; use get_many or receive_many")
        plan = self._plan
        if max_deliveries is not None:
            plan = Plan(plan.address, "topic", {**plan.given_as, "max_deliveries": max_deliveries})
        return NatsSubscription(plan, label, start)

    def labels(self) -> list[str]:
        """The labels there are, in the order of their text."""
        found = self._call(self._open().stream.labels())
        return [each["config"]["metadata"]["segq.label"] for each in found]

    def remove_label(self, label: str) -> None:
        """Removes a label and what only it held back. Raises KeyError if there is none."""
        self._call(self._open().stream.remove_label(checked_label(label)))

    def qsize(self) -> int:
        """How many items are stored."""
        return int(self._call(self._open().stored()))


class NatsSubscription(Burying, NatsGetting):
    """A durable consumer with the API of `segq.Subscription`."""

    def __init__(self, plan: Plan, label: str, start: str = "oldest") -> None:
        if start not in STARTS:
            raise SettingsError(f"start must be one of {', '.join(map(repr, STARTS))}, not {start!r}")
        self.label, self._start = checked_label(label), start
        super().__init__(plan)

    def _assemble(self, pool: Pool) -> Coroutine[Any, Any, Core]:
        return Core.open_label(pool, self._plan, self.label, self._start)

    def _more(self) -> dict[str, Any]:
        return {"label": self.label, "_start": self._start}

    def stats(self) -> LabelStats:
        """How far the label is; `unknown` names the fields that this engine cannot tell."""
        found: LabelStats = self._call(self._open().label_stats())
        return found

    @property
    def lag(self) -> Lag:
        """How far the label is behind, in items and in seconds."""
        found = self.stats()
        return Lag(found.lag, found.lag_seconds)

    @property
    def missed(self) -> int:
        """0 where nothing can be missed; UnsupportedError for a topic with a time to live, or that drops its oldest."""
        if self._open().can_lose:
            self._cannot("missed", "the server does not count, by consumer, what it dropped before it was delivered")
        return 0
