"""Getting: hand out claimed items one by one, claim more when they are used up, wait when the queue is empty.

`claimer.py` claims and reads the items; `open_segments.py` keeps the segments open.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from itertools import compress
from typing import Any

from segq._core.background.release_idle import HOLD_SECONDS, Keeper
from segq._core.base.errors import ClosedError, DamagedError, Empty, ShutDown, StorageError
from segq._core.base.failpoints import ARMED, reach
from segq._core.base.message import Message
from segq._core.base.settings import Settings
from segq._core.directory.catalog import Catalog
from segq._core.directory.index import EVERYBODY, Bell
from segq._core.directory.owners import Owner
from segq._core.format.format import DONE, HANDED, IndexWord, OwnerWord, SegmentName
from segq._core.recovery import recovery
from segq._core.take.claimer import Claimer
from segq._core.take.claims import MOST_AT_ONCE, Claimant, ClaimedItems, Pace
from segq._core.take.dead_letter_writer import Burial
from segq._core.take.maintenance import Caretaker
from segq._core.take.open_segments import Shelf

_ROOM_SLEEPERS, _SHUTDOWN = int(IndexWord.ROOM_SLEEPERS), int(IndexWord.SHUTDOWN)
_HANDED_STATE, _DONE_STATE = HANDED[0], DONE[0]
_VAIN = 1000  # looks in a row that saw a free item and claims that got none: the ledger is damaged


Run = tuple[ClaimedItems, int, list[Any], bool]
"""Adjacent items taken together: their claim, index of the first, values, whether `get` could already take them."""


class Consumer:
    """The consumer half of a handle. Threads claim under one lock; taking a claimed item needs no lock."""

    def __init__(
        self, catalog: Catalog, bell: Bell, owner: Owner, settings: Settings, loads: Callable[[bytes], Any] | None,
        prefetch: int | None, keeper: Keeper, burial: Burial, *, oldest_first: bool = False,
    ) -> None:  # fmt: skip
        """`bell`: where waiting threads sleep. `loads`: the deserializer; None to hand out the stored bytes."""
        self.bell = self._bell = bell
        self._catalog, self._index, self._keeper = catalog, catalog.index, keeper
        self._words = catalog.index.words
        self._slot, self._lease = owner.slot, settings.lease
        self._gets_at = self._index.owner_word(owner.slot, OwnerWord.GETS)
        self._finished_at = self._index.owner_word(owner.slot, OwnerWord.FINISHED)
        self._receives_at = self._index.owner_word(owner.slot, OwnerWord.RECEIVES)
        self._lock = threading.RLock()
        self._by = Claimant(
            owner, catalog.index, bell, settings, weakref.WeakMethod(self._settled), weakref.WeakMethod(self._reject)
        )
        self._burial = burial
        self._pace = Pace(prefetch)
        self._shelf = Shelf(catalog, owner)
        self._shelf.oldest_first = oldest_first
        self._caretaker = Caretaker(catalog, self._shelf, self._by, burial)
        self._claimer = Claimer(catalog, self._shelf, self._by, self._pace, settings, loads, burial)
        #: runs the removal of finished segments; None: the thread that finishes one removes it
        self.elsewhere: Callable[[Callable[[], None]], None] | None = None
        self._gets_total = 0  # items of finished claims that `get` handed out
        self._had_fresh_at = 0.0  # when `get` handed out the last item, if it took that item alone
        self._vain = 0
        self._nothing = self._claimed = ClaimedItems.nothing()
        keeper.add(self)

    # --- handing out ---

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        claimed = self._claimed
        try:
            i, value = claimed.take()
        except IndexError:
            i, value, claimed = self._take_next(block, timeout)
        while claimed.contested and claimed.ledger.settle_claimed(i, i + 1, self._slot) is not None:
            i, value, claimed = self._take_next(block, timeout)  # lost: lease ran out, expired or dropped
        if i < 0:
            return value  # taken alone by `_take_fresh`, and already settled
        words, total = self._words, claimed.gets_offset + i
        if ARMED:
            reach("get.taken")
        if words[self._gets_at] < total:  # threads may arrive here out of order
            words[self._gets_at] = total
        claimed.states[i] = _DONE_STATE
        if ARMED:
            reach("get.done")
        if words[_ROOM_SLEEPERS]:
            self._index.freed()
        if i == claimed.final:
            self._settled(claimed.name)
        return value

    def get_many(self, most: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        found: list[Any] = []
        while not found:
            found = self.got(self.take_many(most, block, timeout))
        return found

    def got(self, taken: list[Run]) -> list[Any]:
        """Acks what `take_many` claimed; returns the values, without items lost since (lease, expiry, drop)."""
        found: list[Any] = []
        words, gets_at = self._words, self._gets_at
        for claimed, begin, values, offered in taken:
            if not offered:
                self._gets_total += len(values)
            words[gets_at] = max(words[gets_at], claimed.gets_offset + begin if offered else self._gets_total)
            kept = claimed.ledger.settle_claimed(begin, begin + len(values), self._slot)
            found += values if kept is None else compress(values, kept)
        with self._lock:
            for claimed, *_ in taken:
                self._retire_if_over(claimed)
        if words[_ROOM_SLEEPERS]:
            self._index.freed(len(found))
        return found

    def receive(self, block: bool = True, timeout: float | None = None) -> Message:
        while True:
            with self._lock:  # the thread that finishes this claim must not count the item as a get
                claimed = self._claimed
                try:
                    i, value = claimed.take()
                    claimed.gets_offset -= 1
                except IndexError:
                    claimed = self._nothing
            if claimed is self._nothing:
                i, value, claimed = self._take_next(block, timeout, got=False)
            if claimed.contested:
                delivery = claimed.ledger.hand(i, self._slot, self._by.deadline())
                if not delivery:
                    continue
            else:  # `hand` inlined, to save the call
                claimed.states[i] = _HANDED_STATE
                if ARMED:
                    reach("receive.handed")
                delivery = claimed.deliveries[i] + 1
            claimed.unsettled += 1
            self._words[self._receives_at] += 1
            return Message(claimed, i, value, delivery)

    def receive_many(self, most: int, block: bool = True, timeout: float | None = None) -> list[Message]:
        messages: list[Message] = []
        while not messages:
            messages = self.received(self.take_many(most, block, timeout))
        return messages

    def received(self, taken: list[Run]) -> list[Message]:
        """Messages of what `take_many` claimed, without items lost since (lease, expiry, drop)."""
        messages: list[Message] = []
        for claimed, begin, values, offered in taken:
            if offered:
                claimed.gets_offset -= 1
            for i, value in enumerate(values, begin):
                delivery = claimed.ledger.hand(i, self._slot, self._by.deadline())
                if delivery:
                    claimed.unsettled += 1
                    messages.append(Message(claimed, i, value, delivery))
        self._words[self._receives_at] += len(messages)
        return messages

    def finished(self) -> None:
        """task_done. Raises ValueError if it was called more often than get."""
        with self._lock:
            words = self._words
            if words[self._finished_at] >= words[self._gets_at]:
                raise ValueError("task_done() called too many times")
            words[self._finished_at] += 1
        self._index.joins.ring(EVERYBODY)

    def peek(self, most: int) -> list[Any]:
        values: list[Any] = []
        with self._lock:
            self._refuse_if_closed()
            self._give_back_left()
            for name in list(self._catalog.names()):
                if len(values) >= most:
                    break
                known = self._shelf.known(name)
                view = known or self._shelf.fresh(name)
                if view is None:
                    continue
                for i in view.ledger.free_items(most - len(values)):
                    try:
                        values += self._claimer.decoded_or_nothing(view.read(i, i + 1)[0])
                    except DamagedError:
                        continue
                if known is None:  # a peek over a thousand segments must not keep a thousand readers open
                    view.close()
                    view.ledger.close()
        return values

    def purge(self) -> int:
        """Drops every item that no consumer has claimed; returns how many."""
        dropped = 0
        with self._lock:
            self._refuse_if_closed()
            self._give_back_left()
            self._catalog.look_again()
            for name in list(self._catalog.names()):
                view = self._shelf.view(name)
                if view is not None and view.ledger.due:
                    view.ledger.free_due(None)
                while view is not None and (span := self._claimer.span(view, MOST_AT_ONCE)) is not None:
                    kept = view.ledger.settle_claimed(*span, self._slot)
                    dropped += span[1] - span[0] if kept is None else sum(kept)
                self._shelf.retire_if_complete(view)
        self._index.freed(EVERYBODY)
        return dropped

    # --- claiming; under the lock ---

    def _take_next(self, block: bool, timeout: float | None, *, got: bool = True) -> tuple[int, Any, ClaimedItems]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if got and (fresh := self._take_fresh()) is not None:
                    return -1, fresh[0], self._nothing
                claimed = self._replenished()
                try:
                    i, value = claimed.take()
                except IndexError:
                    pass
                else:
                    if not got:
                        claimed.gets_offset -= 1
                    if claimed.left and not self._keeper.attend():
                        self._give_back_left()
                    return i, value, claimed
            self._wait(block, deadline)

    def _take_fresh(self) -> tuple[Any] | None:
        """Takes and acks one item in one step, if few items wait and no claim is needed."""
        claimed, caretaker = self._claimed, self._caretaker
        if claimed.left or self._by.closed:
            return None
        now = time.monotonic()
        if claimed.end > claimed.begin:
            self._finish()
        elif self._had_fresh_at:
            self._pace.took(now - self._had_fresh_at, 1)
        self._had_fresh_at = 0.0
        if caretaker.is_late() or self._by.alarm.is_set():
            return None
        found = self._claimer.fresh(now)
        if found is None:
            return None
        view, i, value = found
        total = self._gets_total + 1
        if not view.ledger.take_fresh(i, self._words, self._gets_at, total):
            return None
        self._gets_total, self._had_fresh_at = total, now
        if view.ledger.available():
            self._bell.ring()  # the rest may be for another consumer
        if self._words[_ROOM_SLEEPERS]:
            self._index.freed()
        return (value,)

    def _replenished(self) -> ClaimedItems:
        """The current claim; a new one if the current one is used up."""
        claimed = self._claimed
        if not claimed.left:
            self._refuse_if_closed()
            self._finish()
            fresh = self._claim_next(self._pace.count())
            if fresh is not None:
                claimed = fresh
                claimed.offer(self._gets_total)
                self._claimed = claimed
        return claimed

    def take_many(self, most: int, block: bool, timeout: float | None) -> list[Run]:
        """Claims up to `most` items and settles none; returns runs of adjacent items. Waits for the first item."""
        deadline = None if timeout is None else time.monotonic() + timeout
        runs: list[Run] = []
        while True:
            try:
                with self._lock:
                    self._refuse_if_closed()
                    self._collect(runs, most)
            except BaseException as error:
                if runs and isinstance(error, StorageError):
                    return runs  # the next call meets the same disk error
                self.put_back(runs)
                raise
            if runs:
                return runs
            self._wait(block, deadline)

    def put_back(self, taken: list[Run]) -> None:
        """Frees what `take_many` claimed, in its old order; this counts no delivery."""
        for claimed, begin, values, _ in taken:
            claimed.ledger.give_back(begin, begin + len(values), self._slot)
        self._bell.ring()

    def _collect(self, runs: list[Run], most: int) -> None:
        found, claimed = 0, self._claimed
        while found < most:  # first the items ready for `get`; other threads may still take some of them
            try:
                i, value = claimed.take()
            except IndexError:
                break
            runs.append((claimed, i, [value], True))
            found += 1
        if found < most:
            self._finish(measured=False)
        while found < most:
            fresh = self._claim_next(most - found)
            if fresh is None:
                return
            runs.append((fresh, fresh.begin, fresh.values, False))
            found += len(fresh.values)

    def _finish(self, *, measured: bool = True) -> None:
        """Ends a claim whose items are all handed out: records how long they took, retires a complete segment."""
        claimed = self._claimed
        if claimed.end > claimed.begin:
            if measured:
                self._pace.took(time.monotonic() - claimed.loaded_at, claimed.end - claimed.begin)
            self._claimed = self._nothing
            self._gets_total = claimed.gets_total()
            self._retire_if_over(claimed)

    def _claim_next(self, count: int) -> ClaimedItems | None:
        if self._caretaker.is_late():  # a busy consumer does it here, an idle one before it sleeps
            self._caretaker.look_after_others()
        self._caretaker.see_to_the_alarm()
        fresh = self._claimer.next(count)
        if fresh is not None:
            self._vain = 0
        return fresh

    def _retire_if_over(self, claimed: ClaimedItems) -> None:
        if claimed.end > claimed.begin and claimed.ledger.sealed:
            self._settled(claimed.name)

    def _settled(self, name: SegmentName) -> None:
        """Retires a sealed segment if it is complete. Called when a claim in it is settled or its last item was got."""
        if self.elsewhere is None:
            self._retire(name)
        elif (view := self._shelf.known(name)) is not None and view.ledger.complete():
            self.elsewhere(partial(self._retire, name))

    def _retire(self, name: SegmentName) -> None:
        with self._lock:
            if not self._by.closed:
                self._shelf.retire_if_complete(self._shelf.known(name))

    # --- for callers that must not block (`segq.aio`) ---

    def at_ease(self, *, ahead: bool = True) -> bool:
        """Whether the next item can be taken without opening anything (ten microseconds). `ahead`: a claimed item is enough."""
        if ahead and self._claimed.left:
            return True
        if self._caretaker.is_late():
            return False  # maintenance comes first
        with self._lock:
            return self._claimer.at_ease() if ahead else self._shelf.at_ease()

    def pause(self) -> float:
        """How many seconds a waiting thread may sleep before the next maintenance or delayed item."""
        return self._caretaker.pause()

    def has_ahead(self) -> bool:
        """Whether the next item is already claimed."""
        return bool(self._claimed.left)

    def over(self) -> bool:
        """Whether the queue was shut down: no item is put any more."""
        return self._words[_SHUTDOWN] != 0

    def claim_ahead(self) -> None:
        """Claims the next items for `get` and `receive`, if there are any. Call it in a thread that may block."""
        with self._lock:
            if self._replenished().left:
                self._keeper.attend()

    # --- waiting; not under the lock ---

    def _wait(self, block: bool, deadline: float | None) -> None:
        """Returns when an item may have arrived; raises Empty or ShutDown otherwise."""
        bell = self._bell
        while True:
            heard = bell.listen()
            shutdown = self._words[_SHUTDOWN]
            if shutdown != 2 and self._vain < _VAIN and self._something_free():
                self._vain += 1
                return
            self._vain = 0
            if shutdown == 2 or (shutdown and not self._something_free()):
                raise ShutDown(f"{self._catalog.queue} was shut down", path=self._catalog.queue)
            if not block:
                raise Empty(f"{self._catalog.queue} is empty", path=self._catalog.queue)
            if deadline is not None and deadline <= time.monotonic():
                raise Empty(f"{self._catalog.queue} stayed empty", path=self._catalog.queue)
            left = self.pause()
            if left <= 0:
                with self._lock:
                    if not self._by.closed:
                        self._caretaker.see_to_the_alarm()
                return
            if deadline is not None:
                left = min(left, max(0.0, deadline - time.monotonic()))
            if self._caretaker.is_due():
                self.look_after_others()
            bell.sleep(heard, left)
            if bell.rung_since(heard):
                return

    def _something_free(self) -> bool:
        with self._lock:
            self._refuse_if_closed()
            return self._shelf.something_free()

    def look_after_others(self) -> None:
        """Does the maintenance that one handle does from time to time for all."""
        with self._lock:
            if not self._by.closed:
                self._caretaker.look_after_others()

    # --- giving up ---

    def _reject(self, claimed: ClaimedItems, i: int, delivery: int, reason: str) -> bool:
        """Moves an unsettled item to the dead letters; False if its receipt is no longer valid."""
        if not claimed.ledger.holds(i, self._slot, delivery):
            return False
        with self._lock:  # move the stored bytes: the holder may have changed the value
            self._refuse_if_closed()
            view = self._shelf.view(claimed.name)
            if view is None:
                return False
            data = self._shelf.read(view, i)
        self._burial.move(
            claimed.name, claimed.ledger, i, data, reason=reason, deliveries=delivery, enqueued_at=claimed.time_of(i)
        )
        if not claimed.acknowledge(i, delivery):  # its lease ran out
            return False
        self._burial.moved(claimed.ledger, i)
        return True

    # --- called by the keeper thread ---

    def holding(self) -> bool:
        return bool(self._claimed.left)

    def give_back(self, *, recalled: bool) -> None:
        dropped = self._words[_SHUTDOWN] == 2
        if not dropped and (recalled or time.monotonic() - self._claimed.loaded_at < HOLD_SECONDS):
            return
        with self._lock:
            self._give_back_left(dropped=dropped)

    def _give_back_left(self, *, dropped: bool = False) -> None:
        """Frees the claimed items that are not handed out; `dropped` (after an immediate shutdown): drops them."""
        claimed = self._claimed
        taken: list[int] = []
        while claimed.left:
            try:
                taken.append(claimed.left.pop()[0])
            except IndexError:  # a thread in `get` was faster
                break
        if not taken:
            return
        if dropped:
            claimed.ledger.settle_claimed(taken[-1], taken[0] + 1, self._slot)
            self._index.freed(EVERYBODY)
        else:
            claimed.ledger.give_back(taken[-1], taken[0] + 1, self._slot)
            self._bell.ring()
        claimed.end = taken[-1]

    # --- the end ---

    def _refuse_if_closed(self) -> None:
        if self._by.closed:
            raise ClosedError(f"{self._catalog.queue}: this handle is closed; open the queue again", path=self._catalog.queue)

    def drop_left(self) -> None:
        """After an immediate shutdown: drops the items that this handle has claimed and not handed out."""
        with self._lock:
            self._give_back_left(dropped=True)

    def forsake(self) -> None:
        """In a forked child: stops the child from settling the parent's messages."""
        self._by.closed = True

    def wake(self) -> None:
        """Wakes the threads that wait in this handle, so that they see that it is closed."""
        self._bell.ring_all()

    def close(self) -> None:
        """Frees all claimed items that are not acked. Unsettled messages raise ReceiptError from now on."""
        with self._lock:
            if self._by.closed:
                return
            self._finish(measured=False)
            self._give_back_left()
            self._by.closed = True
            with self._catalog.structure:
                recovery.release(self._catalog, self._slot, self._catalog.own_holders)
            self._shelf.close()
        self.wake()
