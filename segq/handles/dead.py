"""`DeadLetters`: what a queue's consumers gave up, a queue of its own at `<queue>/dead`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from segq._core.base.errors import Empty, QueueError
from segq._core.base.letter import DeadLetter, decoder
from segq._core.base.message import Message
from segq._core.base.settings import Settings
from segq._core.directory import tally
from segq._core.directory.catalog import Catalog
from segq._core.directory.creation import settle
from segq._core.format import format as fmt
from segq._core.put.producer import Producer
from segq._core.recovery import recovery
from segq._core.take.consumer import Consumer
from segq._core.take.dead_letter_writer import Burial
from segq.handles.getting import Getting
from segq.handles.handle import Parts

_AT_ONCE = 100  # letters in hand while they are put back: as many items a crash in between may repeat
_ALL = 1 << 40


class PutBack(Protocol):
    """Puts items, as they were stored, back where they came from."""

    def __call__(self, data: list[bytes], /, block: bool, timeout: float | None) -> None: ...


class DeadParts(Parts):
    """A producer of what is encoded already, and a consumer of letters."""

    producer: Producer
    consumer: Consumer

    def __init__(self, path: str, settings: Settings, loads: Callable[[bytes], DeadLetter]) -> None:
        super().__init__(path, settings, Catalog)
        counts = tally.Tally(self.catalog)
        self.producer = Producer(self.catalog, self.owner, settings, bytes, counts, self.keeper, self.tidier)
        burial = Burial(_Ground(path), settings.serializer, None)
        self.consumer = Consumer(self.catalog, self.index.items, self.owner, settings, loads, None, self.keeper, burial)


class _Ground:
    """Where a dead letter would go that is rejected."""

    def __init__(self, path: str) -> None:
        self._path = path

    def bury(self, _stored: bytes) -> None:
        raise QueueError(
            f"{self._path}: a dead letter cannot be rejected again; ack() throws it away, nack() leaves it, requeue() puts it"
            " back",
            path=self._path,
        )

    def holds(self, _letter_id: str, _label: str | None) -> bool:
        return False

    def rescue(self) -> None:
        """There is nothing further down."""


class DeadLetters(Getting):
    """The dead letters of a queue or a topic, as `Queue.dead` and `Topic.dead` give them. Each item is a `DeadLetter`.

    Whatever gets from a queue gets here as well (`receive`, `get`, `peek`, `messages`, `purge`), and a process may wait for
    letters to come. `requeue` puts items back where they came from::

        for letter in q.dead:
            print(letter.id, letter.reason, letter.value)
        q.dead.requeue()

    The directory `<queue>/dead` is made when it is first needed. It can be opened with `segq.Queue` too: its items are maps.
    """

    def __init__(self, queue: str, settings: Settings, loads: Callable[[bytes], Any], put_back: PutBack | None) -> None:
        """`queue`: whose; with these settings. `put_back`: None where an item cannot be put back (in a topic)."""
        self._own = {"serializer": "msgpack", "durability": settings.durability}
        self._describe(os.path.join(queue, fmt.DEAD_DIR), Settings(serializer="msgpack", durability=settings.durability))
        self._loads, self._put_back = decoder(settings.serializer, loads), put_back

    def _assemble(self) -> DeadParts:
        stored = os.path.lexists(os.path.join(self.path, fmt.QUEUE_FILE))
        # Whether this file system will do was settled when the queue was opened.
        self.settings = settle(self.path, "queue", {} if stored else self._own, create=True, allow_network_fs=True)
        return DeadParts(self.path, self.settings, self._loads)

    @property
    def _is_there(self) -> bool:
        return self._parts is not None or os.path.lexists(os.path.join(self.path, fmt.QUEUE_FILE))

    # --- what the burial asks ---

    def bury(self, stored: bytes) -> None:
        """Stores a letter that is encoded already."""
        self._producer.put_stored([stored], False)

    def holds(self, letter_id: str, label: str | None) -> bool:
        """Whether a letter of that id (and label) waits here."""
        return any(letter.id == letter_id and letter.label == label for letter in self)

    def rescue(self) -> None:
        """Settles what dead processes held here."""
        if self._is_there:
            opened = self._parts is not None
            parts: DeadParts = self._open()
            if opened:  # else opening did it
                recovery.rescue(parts.catalog, parts.owner.slot)

    # --- looking ---

    def __iter__(self) -> Iterator[DeadLetter]:
        """The letters that wait, oldest first; nothing is claimed."""
        return iter(self.peek(_ALL))

    def peek(self, n: int = 1) -> list[DeadLetter]:
        """Up to `n` letters that wait, oldest first; nothing is claimed."""
        return super().peek(n) if self._is_there else []

    def purge(self) -> int:
        """Throws all letters away that wait; returns how many."""
        return super().purge() if self._is_there else 0

    def find(self, letter_id: str) -> DeadLetter | None:
        """The letter of the item that had this id; None if it does not wait here."""
        return next((letter for letter in self if letter.id == letter_id), None)

    def qsize(self) -> int:
        """How many letters wait."""
        if not self._is_there:
            return 0
        parts: DeadParts = self._open()
        with parts.tally_lock:
            stored, handed = parts.tally.stored()
        return stored - handed

    # --- settling ---

    def requeue(self, ids: str | Iterable[str] | None = None, timeout: float | None = None) -> int:
        """Puts the items of these letters (None: of all there are now) back as new ones, last in the queue; returns how many.

        An item is stored in the queue before its letter is gone: a crash in between repeats it. Letters of one item (a
        crash may have left two) put it back once. Raises Full if the queue has no room within `timeout` seconds (None: waits),
        QueueError for a topic's, where an item put back would go to labels that had it.
        """
        put_back = self._put_back
        if put_back is None:
            raise QueueError(
                f"{self.path}: a topic's item cannot be put back for one label alone; receive() its letters and do the work",
                path=self.path,
            )
        done: set[str] = set()
        for messages in self._taken(ids):
            new = {message.value.id: message.value.data for message in messages if message.value.id not in done}
            put_back(list(new.values()), block=True, timeout=timeout)
            done |= new.keys()
            for message in messages:
                message.ack()
        return len(done)

    def discard(self, ids: str | Iterable[str]) -> int:
        """Throws these letters away; returns how many there were. (`purge` throws all away.)"""
        count = 0
        for messages in self._taken(ids):
            for message in messages:
                message.ack()
            count += len(messages)
        return count

    def _taken(self, ids: str | Iterable[str] | None) -> Iterator[list[Message]]:
        """The letters of these ids, in hand; all that are not settled by whoever iterates are given back in the end."""
        if not self._is_there:
            return
        wanted = None if ids is None else {ids} if isinstance(ids, str) else set(ids)
        begun, held = time.time(), list[Message]()
        try:
            while True:
                try:
                    messages = self.receive_many(_AT_ONCE, block=False)
                except Empty:
                    return
                held += messages
                chosen = [m for m in messages if (m.value.dead_at <= begun if wanted is None else m.value.id in wanted)]
                if chosen:
                    yield chosen
        finally:
            for message in held:
                message.give_back_if_held()

    def __repr__(self) -> str:
        return f"<segq.DeadLetters {self.path!r}{' closed' if self._closed else ''}>"
