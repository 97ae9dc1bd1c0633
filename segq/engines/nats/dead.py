"""The dead letters of a queue or a topic on NATS, as the user sees them."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, NoReturn

from segq._core.base.errors import Empty, QueueError
from segq._core.base.letter import DeadLetter, decoder
from segq._core.base.message import Message
from segq.engines.address import Address
from segq.engines.nats.connection import Pool
from segq.engines.nats.core import LOGIN, Core, Plan
from segq.engines.nats.graveyard import SUFFIX
from segq.engines.nats.handle import NatsGetting

_AT_ONCE = 100  # letters in hand while they are put back
_OF_THE_HANDLE = {*LOGIN, "patience", "connect_timeout"}


class NatsDeadLetters(NatsGetting):
    """What was given up, with the API of `segq.DeadLetters`; the queue `<name>-dead` in a stream of its own."""

    def __init__(self, plan: Plan, of: Core, *, of_queue: bool) -> None:
        self._of, self._of_queue = of, of_queue
        self._decode = decoder(of.settings.serializer, of.loads)
        address = plan.address
        where = Address(
            text=address.text,
            scheme=address.scheme,
            netloc=address.netloc,
            path=address.path.rstrip("/") + SUFFIX,
            settings={},
        )
        kept = {name: value for name, value in plan.given_as.items() if name in _OF_THE_HANDLE}
        super().__init__(Plan(where, "queue", kept | {"replicas": of.settings.replicas}))

    def _assemble(self, pool: Pool) -> Coroutine[Any, Any, Core]:
        return Core.open_dead(pool, self._plan, self._decode)

    def __iter__(self) -> Iterator[DeadLetter]:
        """The letters there are, oldest first; nothing is claimed."""
        return iter(self.peek(1 << 40))

    def find(self, letter_id: str) -> DeadLetter | None:
        """The letter of the item that had this id; None if there is none."""
        return next((letter for letter in self if letter.id == letter_id), None)

    def qsize(self) -> int:
        """How many letters there are."""
        return int(self._call(self._open().stored()))

    def requeue(self, ids: str | Iterable[str] | None = None, timeout: float | None = None) -> int:
        """Puts the items of these letters (None: of all there are now) back as new ones; returns how many.

        Under an id of its own: a crash in between repeats an item only when the stream's `duplicate_window` is over. Raises
        Full; QueueError for a topic's, where an item put back would go to labels that had it.
        """
        if not self._of_queue:
            raise QueueError(
                f"{self.path}: a topic's item cannot be put back for one label alone; receive() its letters and do the work",
                path=self.path,
            )
        done: set[str] = set()
        for messages in self._taken(ids):
            new = {message.value.id: message.value for message in messages if message.value.id not in done}
            names = [f"requeued-{letter.id}-{letter.dead_at:.3f}" for letter in new.values()]
            self._call(self._of.publisher.put_many_as(names, [letter.data for letter in new.values()], timeout))
            done |= new.keys()
            self.ack_many(messages)
        return len(done)

    def discard(self, ids: str | Iterable[str]) -> int:
        """Throws these letters away; returns how many there were. (`purge` throws all away.)"""
        count = 0
        for messages in self._taken(ids):
            self.ack_many(messages)
            count += len(messages)
        return count

    def _taken(self, ids: str | Iterable[str] | None) -> Iterator[list[Message]]:
        """The letters of these ids, in hand; all that are not settled by whoever iterates are given back in the end."""
        wanted = None if ids is None else {ids} if isinstance(ids, str) else set(ids)
        held: list[Message] = []
        try:
            for _ in range(self.qsize() // _AT_ONCE + 1):
                try:
                    messages = self.receive_many(_AT_ONCE, block=False)
                except Empty:
                    return
                held += messages
                if chosen := [each for each in messages if wanted is None or each.value.id in wanted]:
                    yield chosen
        finally:
            for message in held:
                message.give_back_if_held()

    def __reduce__(self) -> NoReturn:
        raise TypeError("dead letters do not travel; send the queue, and ask for its dead there")
