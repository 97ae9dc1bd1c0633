"""Work on a queue while servers and connections fail, and the account of it.

Put but not confirmed is allowed to be there or not. Confirmed has to be delivered, what was never put must not come, and no item may
be stored twice: each has one message id, however often it is delivered.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from typing import Any

import segq


class Load:
    """Producers and consumers in threads, each with a handle of its own, until `finish`."""

    def __init__(self, address: str, *, producers: int = 2, consumers: int = 2, batch: int = 20, **settings: Any) -> None:
        self.address, self._settings, self._batch = address, settings, batch
        self._stop = threading.Event()
        self.begun: set[str] = set()
        self.confirmed: set[str] = set()
        self.delivered: defaultdict[str, set[str]] = defaultdict(set)
        self.wrong: list[BaseException] = []
        self._producers = [threading.Thread(target=self._guarded, args=(self._produce, n)) for n in range(producers)]
        self._consumers = [threading.Thread(target=self._guarded, args=(self._consume, n)) for n in range(consumers)]
        segq.connect(address, **settings).close()
        for thread in [*self._producers, *self._consumers]:
            thread.start()

    def _guarded(self, work: Any, number: int) -> None:
        try:
            with segq.connect(self.address, **self._settings) as q:
                work(q, number)
        except BaseException as error:
            self.wrong.append(error)

    def _produce(self, q: Any, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            ids = [f"{number}-{count + i}" for i in range(self._batch if count % 2 else 1)]
            count += len(ids)
            self.begun.update(ids)
            with contextlib.suppress(segq.UnreachableError):
                q.put_many(ids) if len(ids) > 1 else q.put(ids[0])
                self.confirmed.update(ids)
            time.sleep(0.002)

    def _consume(self, q: Any, _number: int) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(segq.Empty, segq.ReceiptError, segq.UnreachableError):
                messages = q.receive_many(30, timeout=1)
                self._note(messages)
                q.ack_many(messages)

    def _note(self, messages: list[Any]) -> None:
        for message in messages:
            self.delivered[message.value].add(message.id)

    def goes_on(self, seconds: float = 30.0) -> None:
        """Fails unless more is confirmed and delivered from here on."""
        puts, gets = len(self.confirmed), len(self.delivered)
        deadline = time.monotonic() + seconds
        while len(self.confirmed) < puts + 50 or len(self.delivered) < gets + 50:
            assert time.monotonic() < deadline, (
                f"no progress: {len(self.confirmed) - puts} puts, {len(self.delivered) - gets} gets"
            )
            assert not self.wrong, self.wrong
            time.sleep(0.01)

    def finish(self, may_be_twice: int = 0) -> None:
        """Stops, drains what is left, closes the account.

        `may_be_twice`: where all servers died, what was stored, taken and acknowledged before its confirmation arrived: they build
        their memory of ids anew from what is still there.
        """
        self._stop.set()
        for thread in [*self._producers, *self._consumers]:
            thread.join(90)
            assert not thread.is_alive(), "stuck"
        assert not self.wrong, self.wrong
        with segq.connect(self.address, **self._settings) as q:
            deadline = time.monotonic() + 60
            while q.stats().items:
                assert time.monotonic() < deadline, q.stats()
                with contextlib.suppress(segq.Empty):
                    messages = q.receive_many(500, timeout=1)
                    self._note(messages)
                    q.ack_many(messages)
        assert self.confirmed
        assert not self.confirmed - self.delivered.keys(), f"lost: {sorted(self.confirmed - self.delivered.keys())[:10]}"
        assert not self.delivered.keys() - self.begun, "invented"
        twice = {item: ids for item, ids in self.delivered.items() if len(ids) > 1}
        assert len(twice) <= may_be_twice, f"stored twice: {twice}"
