"""A queue against a model of it: several handles in one process, used in every order that Hypothesis can think of.

The model knows of each item whether it waits, is put off for long, is out with a message, is a dead letter, or is gone, and how
often it was handed out. Small
segments make rolling, resuming and retiring happen all the time; items of up to 300 KiB make the open batch turn and be passed by.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import segq

PATIENCE = 20.0  # seconds; an item that another handle has prefetched comes back within about 0.05
FAST_DISK = "/dev/shm" if os.path.isdir("/dev/shm") else None
SIZES = st.sampled_from([0, 0, 0, 1, 30, 30, 500, 5_000, 60_000, 150_000, 270_000, 300_000])
NUMBERS = st.integers(0, 10**6)


@dataclasses.dataclass(slots=True, eq=False)
class Item:
    """`number` counts the items of one producer handle in the order put."""

    data: bytes
    producer: int
    number: int
    state: str = "waiting"  # | "later" | "out" | "dead" | "gone"
    handed: int = 0
    put_off: bool = False  # for a moment: it is free when somebody comes for it


@dataclasses.dataclass(slots=True, eq=False)
class Handle:
    queue: segq.Queue
    producer: int
    puts: int = 0
    messages: list[tuple[segq.Message, Item]] = dataclasses.field(default_factory=list)


def settings_of_queue() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "segment_items": st.integers(4, 16),
            "segment_bytes": st.sampled_from([4096, 200_000, 16 << 20]),
            "capacity": st.sampled_from([None, None, 3, 10, 40]),
            "max_bytes": st.sampled_from([None, None, 1000, 400_000]),
            "lease": st.sampled_from([None, None, 1000.0]),
            "durability": st.sampled_from(["process", "process", "process", "power"]),
            "max_deliveries": st.sampled_from([None, None, 1, 3]),
        }
    )


def kill(queue: segq.Queue) -> None:
    """What the kernel does to a handle whose process dies: locks and RocksDB go, nothing is written, sealed or given back."""
    parts = queue._parts
    assert parts is not None
    if parts.dead is not None and parts.dead._parts is not None:
        kill(parts.dead)
    parts.keeper.stop()
    writer = getattr(parts.producer._segment, "_writer", None)
    if writer is not None:
        writer.close()
        parts.producer._segment._writer = None
    batch = getattr(parts.producer._segment, "_batch", None)
    if batch is not None:
        batch.close()
    parts.owner.forget()
    dead.append(queue)  # its destructors run when the example is over


dead: list[segq.Queue] = []


def come_for_all(queue: segq.Queue) -> None:
    """Claims whatever is free, which gives up what came back too often, and gives the rest back."""
    consumer = queue._consumer
    with consumer._lock:
        consumer._give_back_left()
        claimed = []
        while consumer._something_free():
            if (items := consumer._claim_next(1 << 20)) is not None:
                claimed.append(items)
        for items in claimed:
            items.ledger.give_back(items.begin, items.end, consumer._slot)


class QueueMachine(RuleBasedStateMachine):
    """`lone`: one handle gets at a time, so that the order of each producer's items can be demanded."""

    lone = False

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(dir=FAST_DISK, prefix="segq-model-")
        self.path = os.path.join(self.directory, "queue")
        self.handles: list[Handle] = []
        self.items: dict[bytes, Item] = {}
        self.newest: dict[int, int] = {}  # of each producer, the number of the item handed out last for the first time
        self.producers = 0

    @initialize(settings=settings_of_queue(), prefetch=st.sampled_from([None, 1, 5]))
    def create(self, settings: dict[str, Any], prefetch: int | None) -> None:
        self.settings = {name: value for name, value in settings.items() if value is not None}
        queue = segq.Queue(self.path, serializer="raw", prefetch=prefetch, **self.settings)
        self.handles = [self.made(queue)]

    def made(self, queue: segq.Queue) -> Handle:
        self.producers += 1
        return Handle(queue, self.producers)

    # --- what the model knows ---

    def waiting(self) -> list[Item]:
        return [item for item in self.items.values() if item.state == "waiting"]

    def later(self) -> list[Item]:
        return [item for item in self.items.values() if item.state == "later"]

    def dead(self) -> list[Item]:
        return [item for item in self.items.values() if item.state == "dead"]

    def stored(self) -> list[Item]:
        return [item for item in self.items.values() if item.state not in ("gone", "dead")]

    def spent(self, item: Item) -> bool:
        most = self.settings.get("max_deliveries")
        return most is not None and item.handed >= most

    def handle(self, n: int) -> Handle:
        return self.handles[n % len(self.handles)]

    def getter(self, n: int) -> Handle:
        return self.handles[0 if self.lone else n % len(self.handles)]

    def others_hold(self, handle: Handle) -> bool:
        return any(other is not handle and other.queue._consumer.holding() for other in self.handles)

    def make(self, handle: Handle, sizes: list[int]) -> list[bytes]:
        made = []
        for k, size in enumerate(sizes):
            head = b"%d.%d:" % (handle.producer, handle.puts + k)
            made.append(head + (head * (size // len(head) + 1))[:size])
        return made

    def fits(self, data: list[bytes]) -> bool | None:
        """None: never."""
        stored, size = self.stored(), sum(map(len, data))
        capacity, most = self.settings.get("capacity"), self.settings.get("max_bytes")
        if (capacity and len(data) > capacity) or (most and size > most):
            return None
        full = capacity is not None and len(stored) + len(data) > capacity
        return not (full or (most is not None and sum(len(item.data) for item in stored) + size > most))

    def came(self, data: bytes) -> Item:
        """An item was handed out: it must be one that waits."""
        assert data in self.items, f"never put: {data[:40]!r} ({len(data)} bytes)"
        item = self.items[data]
        assert item.state == "waiting", f"{data[:40]!r} is {item.state}, and was handed out again"
        if self.lone and not item.handed:
            assert item.number > self.newest.get(item.producer, -1), f"{data[:40]!r} came after a later one of its producer"
            self.newest[item.producer] = item.number
        item.put_off = False
        return item

    # --- putting ---

    def check_put(self, handle: Handle, data: list[bytes], put: Any) -> None:
        fits = self.fits(data)
        try:
            put()
        except segq.Full:
            assert fits is False, f"Full, with {len(self.stored())} stored and {len(data)} more"
        except segq.ItemTooLarge:
            assert fits is None
        else:
            assert fits, f"stored {len(data)} more than there was room for"
            for k, each in enumerate(data):
                self.items[each] = Item(each, handle.producer, handle.puts + k)
            handle.puts += len(data)

    @rule(n=NUMBERS, size=SIZES)
    def put(self, n: int, size: int) -> None:
        handle = self.handle(n)
        (data,) = self.make(handle, [size])
        self.check_put(handle, [data], lambda: handle.queue.put_nowait(data))

    @rule(n=NUMBERS, sizes=st.lists(SIZES, max_size=20))
    def put_many(self, n: int, sizes: list[int]) -> None:
        handle = self.handle(n)
        data = self.make(handle, sizes)
        self.check_put(handle, data, lambda: handle.queue.put_many(data, block=False))

    # --- getting ---

    def check_empty(self, handle: Handle, call: Any) -> Any:
        """Calls with a patience that suffices if anything waits, and without any if nothing does."""
        if self.waiting():
            return call(timeout=PATIENCE)
        try:
            found = call(block=False)
        except segq.Empty:
            return None
        raise AssertionError(f"nothing waits, and this came: {str(found)[:80]}")

    @rule(n=NUMBERS)
    def get(self, n: int) -> None:
        handle = self.getter(n)
        data = self.check_empty(handle, handle.queue.get)
        if data is not None:
            self.came(data).state = "gone"

    @rule(n=NUMBERS, most=st.integers(1, 30))
    def get_many(self, n: int, most: int) -> None:
        handle = self.getter(n)
        found = self.check_empty(handle, lambda **how: handle.queue.get_many(most, **how)) or []
        assert len(found) <= most
        for data in found:
            self.came(data).state = "gone"

    def received(self, handle: Handle, message: segq.Message) -> None:
        item = self.came(message.value)
        assert message.deliveries == item.handed + 1
        item.handed += 1
        item.state = "out"
        handle.messages.append((message, item))

    @rule(n=NUMBERS)
    def receive(self, n: int) -> None:
        handle = self.getter(n)
        message = self.check_empty(handle, handle.queue.receive)
        if message is not None:
            self.received(handle, message)

    @rule(n=NUMBERS, most=st.integers(1, 10))
    def receive_many(self, n: int, most: int) -> None:
        handle = self.getter(n)
        found = self.check_empty(handle, lambda **how: handle.queue.receive_many(most, **how)) or []
        assert len(found) <= most
        for message in found:
            self.received(handle, message)

    def message(self, n: int) -> tuple[segq.Message, Item]:
        out = [pair for handle in self.handles for pair in handle.messages]
        pair = out[n % len(out)]
        for handle in self.handles:
            if pair in handle.messages:
                handle.messages.remove(pair)
        return pair

    @precondition(lambda self: any(handle.messages for handle in self.handles))
    @rule(n=NUMBERS)
    def ack(self, n: int) -> None:
        message, item = self.message(n)
        message.ack()
        item.state = "gone"

    @precondition(lambda self: any(handle.messages for handle in self.handles))
    @rule(n=NUMBERS)
    def nack(self, n: int) -> None:
        message, item = self.message(n)
        message.nack()
        item.state = "dead" if self.spent(item) else "waiting"

    @precondition(lambda self: any(handle.messages for handle in self.handles))
    @rule(n=NUMBERS, long=st.booleans())
    def nack_for_later(self, n: int, long: bool) -> None:
        message, item = self.message(n)
        message.nack(delay=5000.0 if long else 0.002)
        item.state = "dead" if self.spent(item) else "later" if long else "waiting"
        item.put_off = item.state == "waiting"

    @precondition(lambda self: any(handle.messages for handle in self.handles))
    @rule(n=NUMBERS)
    def reject(self, n: int) -> None:
        message, item = self.message(n)
        message.reject("rejected")
        item.state = "dead"

    @rule(n=NUMBERS)
    def look_at_the_dead(self, n: int) -> None:
        letters = {letter.value: letter.deliveries for letter in self.handle(n).queue.dead}
        assert letters == {item.data: item.handed for item in self.dead()}
        assert self.handle(n).queue.stats().dead == len(letters)

    @rule(n=NUMBERS)
    def requeue(self, n: int) -> None:
        handle, items = self.handle(n), self.dead()
        if self.fits([item.data for item in items]):
            assert handle.queue.dead.requeue(timeout=0) == len(items)
            for item in items:
                self.producers += 1
                item.state, item.handed, item.producer, item.number = "waiting", 0, self.producers, 0
        elif items:
            try:
                handle.queue.dead.requeue(timeout=0)
            except (segq.Full, segq.ItemTooLarge):
                return
            raise AssertionError("put back more than there was room for")

    @rule(n=NUMBERS, most=st.integers(1, 40))
    def peek(self, n: int, most: int) -> None:
        handle = self.handle(n)
        hoarded = self.others_hold(handle)
        found = handle.queue.peek(most)
        waiting = {item.data for item in self.waiting()}
        assert set(found) <= waiting
        assert len(set(found)) == len(found) <= most
        if not hoarded:
            assert len(found) >= min(most, sum(not item.put_off for item in self.waiting()))

    @rule(n=NUMBERS)
    def purge(self, n: int) -> None:
        handle = self.handle(n)
        if self.others_hold(handle):
            return
        waiting = self.waiting() + self.later()
        assert handle.queue.purge() == len(waiting)
        for item in waiting:
            item.state = "gone"

    # --- handles come and go ---

    @precondition(lambda self: len(self.handles) < 5)
    @rule(prefetch=st.sampled_from([None, 1, 2, 50]))
    def open(self, prefetch: int | None) -> None:
        self.handles.append(self.made(segq.Queue(self.path, prefetch=prefetch)))

    def gone(self, handle: Handle) -> None:
        """The handle is no more: what it had out waits again."""
        self.handles.remove(handle)
        for message, item in handle.messages:
            item.state = "waiting"
            try:
                message.ack()
            except segq.ReceiptError:
                continue
            raise AssertionError("a message of a handle that is no more could be acknowledged")
        if not self.handles:
            self.handles = [self.made(segq.Queue(self.path))]
        given_up = [item for item in self.waiting() if self.spent(item)]
        if given_up:  # by whoever comes for it next
            come_for_all(self.handles[0].queue)
        for item in given_up:
            item.state = "dead"

    @rule(n=NUMBERS)
    def close(self, n: int) -> None:
        handle = self.handle(n)
        handle.queue.close()
        self.gone(handle)

    @rule(n=NUMBERS)
    def die(self, n: int) -> None:
        handle = self.handle(n)
        kill(handle.queue)
        assert segq.check(self.path, fix=True).ok
        self.gone(handle)

    # --- always ---

    @invariant()
    def sizes_are_right(self) -> None:
        for handle in self.handles:
            assert handle.queue.qsize() == len(self.waiting()) + len(self.later())
            if (capacity := self.settings.get("capacity")) and not self.settings.get("max_bytes"):
                assert handle.queue.full() == (len(self.stored()) >= capacity)

    def teardown(self) -> None:
        try:
            if not self.handles:
                return
            for handle in self.handles:
                handle.queue.close()
                for _, item in handle.messages:
                    item.state = "dead" if self.spent(item) else "waiting"
            assert segq.check(self.path).ok
            with segq.Queue(self.path) as queue:
                come_for_all(queue)  # what its last holder had once too often is given up
                while self.waiting():
                    for data in queue.get_many(7, timeout=PATIENCE):
                        self.came(data).state = "gone"
                assert queue.stats().delayed == len(self.later())
                assert queue.purge() == len(self.later())
                assert queue.empty()
                assert sorted(letter.value for letter in queue.dead) == sorted(item.data for item in self.dead())
                assert queue.stats().quarantined == 0
            assert segq.check(self.path).ok
            assert not [
                name for name in os.listdir(self.path) if name.startswith(("loading_", "ready_", "chosen_", "removed_"))
            ]
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
            dead.clear()


class LoneConsumerMachine(QueueMachine):
    """One handle gets at a time."""

    lone = True
