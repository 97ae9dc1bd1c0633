"""`transfer`: the stages of an import, each of which may be the first after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import filelock

from segq._core.base.errors import Empty, SerializationError
from segq._core.base.serializers import codec
from segq._core.directory.creation import kind_of
from segq._core.system import fs
from segq.handles.queue import Queue
from segq.handles.topic import Topic
from segq.transfer import plan as plans
from segq.transfer.plan import Plan
from segq.transfer.source import KINDS, Options, Source, SourceError, open_source

_BATCH_ITEMS = 1000
_EXACT = ("pickle", "raw")  # give back what they were given, or refuse it

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did: `items` there were, of which `before` were imported by an attempt that did not come to its end.

    `receipt` is whether a note could be left beside the source, by which a second import is refused.
    """

    items: int
    before: int
    receipt: bool


def transfer(
    kind: str,
    source: str | os.PathLike[str],
    queue: str | os.PathLike[str],
    *,
    serializer: str | None = None,
    options: Options | None = None,
    again: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Imported:
    """Brings the items of another library's queue over into the segq queue at `queue`, which is created if it is missing.

    The source stays as it is. If this is killed, the same call goes on where it was; nothing is lost then, and nothing is
    there twice if `queue` is new (else one item at most for each kill).

    Args:
        kind: "rocksq", "persist-queue", "turbo-queue" or "diskcache".
        serializer: the new queue's; None for what fits the source. A topic or queue that exists has its own.
        options: what has to be said of the source.
        again: import it though it was imported into this queue before.
        progress: is told how many items are done, and of how many.

    Raises SourceError: the source cannot be read, has changed since the import began, or was imported before.
    SerializationError: the serializer cannot hold an item. And what opening and putting raise.
    """
    source, queue = os.path.abspath(os.fspath(source)), os.path.abspath(os.fspath(queue))
    if not os.path.exists(source):
        raise SourceError(f"there is nothing at {source}")
    fs.refuse_non_directory(queue)
    workshop = f"{queue}.importing"
    with _alone(workshop):
        return _Import(kind, source, queue, workshop, serializer, options or Options(), progress).run(again=again)


@contextlib.contextmanager
def _alone(workshop: str) -> Iterator[None]:
    """Two imports into one queue would put the same items. The kernel lets go of the lock of one who dies."""
    fs.make_queue_directory(workshop)
    lock = filelock.FileLock(os.path.join(workshop, "lock"), mode=0o600)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise SourceError(f"another import into {workshop.removesuffix('.importing')} is running") from None
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # what is left is what the next attempt goes on with
            fs.unlink(os.path.join(workshop, "lock"))
            os.rmdir(workshop)


class _Import:
    def __init__(
        self, kind: str, source: str, queue: str, workshop: str, serializer: str | None, options: Options, progress: Progress
    ) -> None:
        self._kind, self._path, self._queue, self._workshop = kind, source, queue, workshop
        self._serializer, self._options, self._progress = serializer, options, progress
        self._new = os.path.join(workshop, "queue")
        self._before = 0

    def run(self, *, again: bool) -> Imported:
        plan = plans.load(self._workshop)
        if plan is None:
            self._refuse_imported(again=again)
        else:
            self._refuse_other(plan)
        if plan is None or plan.stage == plans.READING:
            plan = self._read(plan)
        else:
            self._before = plan.total
        if plan.stage == plans.ORDERING:
            plan = self._order(plan)
        if plan.stage == plans.PLACING:
            plan = self._place(plan)
        if plan.stage == plans.MOVING:
            plan = self._move(plan)
        receipt = plans.leave_receipt(plan, self._queue)
        for name in ("queue", "ordered", "copy"):
            fs.remove_tree(os.path.join(self._workshop, name))
        fs.unlink(os.path.join(self._workshop, "plan.json"))  # last: until then a further attempt knows that all is done
        return Imported(items=plan.total, before=self._before, receipt=receipt)

    def _refuse_imported(self, *, again: bool) -> None:
        receipt = plans.imported_before(self._path, self._options.table, self._queue)
        if receipt is not None and not again:
            raise SourceError(
                f"{self._path} was imported into {self._queue} before, at {receipt.get('at')} ({receipt.get('items')} items);"
                " --again does it once more"
            )

    def _refuse_other(self, plan: Plan) -> None:
        if (plan.kind, plan.source, plan.table) != (self._kind, self._path, self._options.table):
            raise SourceError(
                f"the import of {plan.source} ({plan.kind}{f', {plan.table}' if plan.table else ''}) into {self._queue} is not"
                " finished; run that again first"
            )

    # --- reading: the items into a new queue in the workshop ---

    def _read(self, plan: Plan | None) -> Plan:
        source = open_source(self._kind, self._path, self._options, os.path.join(self._workshop, "copy"))
        try:
            plan = self._planned(plan, source)
            with Queue(self._new, serializer=plan.serializer, **KINDS[self._kind][2]) as new:
                self._before = new.stats().items
                self._fill(new, source, plan)
                found = new.stats().items
        finally:
            source.close()
        if found != plan.total:
            raise SourceError(
                f"{self._path} gave {found} items, not {plan.total}: it is in use; stop who uses it. {self._anew()}"
            )
        os.sync()  # the source may be deleted once we say that it was imported
        stage = plans.ORDERING if self._before else plans.PLACING
        if plans.uuid_of(self._queue) is not None:
            stage = plans.MOVING
        return plans.save(self._workshop, plan.at(stage, uuid=plans.uuid_of(self._new)))

    def _planned(self, plan: Plan | None, source: Source) -> Plan:
        serializer = self._target_serializer()
        if plan is None:
            plan = Plan(
                kind=self._kind,
                source=self._path,
                table=self._options.table,
                fingerprint=source.fingerprint(),
                serializer=serializer,
                total=source.total,
            )
            return plans.save(self._workshop, plan)
        if plan.fingerprint != source.fingerprint():
            raise SourceError(f"{self._path} was changed since its import began; stop who uses it. {self._anew()}")
        if plan.serializer != serializer:
            raise SourceError(f"this import was begun with --serializer {plan.serializer}; say the same. {self._anew()}")
        return plan

    def _anew(self) -> str:
        return f"To begin anew delete {self._workshop}: nothing is in {self._queue} yet"

    def _target_serializer(self) -> str:
        if plans.uuid_of(self._queue) is None:
            return self._serializer or KINDS[self._kind][1]
        with _target(self._queue) as target:
            stored = target.settings.serializer
        if stored.startswith("custom:"):
            raise SourceError(f"{self._queue} has a serializer of its own ({stored}); import into a new queue")
        if self._serializer not in (None, stored):
            raise SourceError(f"{self._queue} stores its items with {stored}, not with {self._serializer}")
        return stored

    def _fill(self, new: Queue, source: Source, plan: Plan) -> None:
        done = self._before
        self._progress(done, plan.total)
        exact = _exactly(plan.serializer)
        batch: list[Any] = []
        for number, item in enumerate(source.read(done), done):
            if not exact(item):
                raise SerializationError(
                    f"{self._path}: item {number + 1} would not come out of a queue with serializer {plan.serializer!r} as it"
                    f" went in: {item!r:.120}; choose another (--serializer pickle takes everything). {self._anew()}"
                )
            batch.append(item)
            if len(batch) == _BATCH_ITEMS:
                done = self._put(new, batch, done, plan)
        self._put(new, batch, done, plan)

    def _put(self, new: Queue, batch: list[Any], done: int, plan: Plan) -> int:
        if batch:
            new.put_many(batch)
            done += len(batch)
            batch.clear()
            self._progress(done, plan.total)
        return done

    def _order(self, plan: Plan) -> Plan:
        """Once more, by one producer: consumers take turns with the segments of several, and each attempt was another."""
        ordered = os.path.join(self._workshop, "ordered")
        fs.remove_tree(ordered)
        done = 0
        with (
            Queue(self._new, create=False, oldest_first=True) as new,
            Queue(ordered, serializer=plan.serializer, **KINDS[self._kind][2]) as once_more,
        ):
            while messages := _received(new):  # not acknowledged: a kill leaves them all there
                once_more.put_many([message.value for message in messages])
                done += len(messages)
                self._progress(done, plan.total)
        if done != plan.total:
            raise SourceError(f"{self._new} gave {done} items, not {plan.total}. {self._anew()}")
        os.sync()
        return plans.save(self._workshop, plan.at(plans.PLACING, uuid=plans.uuid_of(ordered), place="ordered"))

    # --- the end: the whole of it at once, or one by one into a queue that was there ---

    def _place(self, plan: Plan) -> Plan:
        there = plans.uuid_of(self._queue)
        if there == plan.uuid:  # the rename was the last that the attempt before did
            return plans.save(self._workshop, plan.at(plans.ENDED))
        if there is not None:  # somebody made one meanwhile
            return plans.save(self._workshop, plan.at(plans.MOVING))
        if os.path.isdir(self._queue):
            try:
                os.rmdir(self._queue)
            except OSError:
                raise SourceError(f"{self._queue} is not empty and holds no queue; clear it, or import into another") from None
        fs.rename(os.path.join(self._workshop, plan.place), self._queue)
        fs.sync_directory(os.path.dirname(self._queue))
        return plans.save(self._workshop, plan.at(plans.ENDED))

    def _move(self, plan: Plan) -> Plan:
        complete = os.path.join(self._workshop, plan.place)
        with _target(self._queue) as target, Queue(complete, create=False, oldest_first=True) as new:
            done = plan.total - new.stats().items
            self._progress(done, plan.total)
            while messages := _received(new):
                for message in messages:
                    target.put(message.value)
                    message.ack()  # a kill between the two: this one item will be put again
                done += len(messages)
                self._progress(done, plan.total)
        os.sync()
        return plans.save(self._workshop, plan.at(plans.ENDED))


def _target(path: str) -> Queue | Topic:
    return Topic(path, create=False) if kind_of(path) == "topic" else Queue(path, create=False)


def _received(new: Queue) -> list[Any]:
    try:
        return new.receive_many(_BATCH_ITEMS, block=False)
    except Empty:
        return []


def _exactly(serializer: str) -> Callable[[Any], bool]:
    """Whether an item comes back as what it was: no tuple as a list, no set, no date as text."""
    if serializer in _EXACT:
        return lambda _item: True
    dumps, loads = codec(serializer, None)

    def same(item: Any) -> bool:
        try:
            return bool(loads(dumps(item)) == item)
        except Exception:  # whatever it is made of
            return False

    return same
