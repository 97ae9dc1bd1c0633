"""`salvage`: what can still be read of a segment, of what lies in quarantine, or of a queue that cannot be opened any more.

Needs nothing but the files there are: without `queue.json`, ledger or RocksDB's own books it reads what the rest tells. Items
are moved as the bytes they were stored as, into a new queue or to whoever asks for them. What it reads it never changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator

from segq._core.base.errors import DamagedError, NotAQueueError, QueueError, SettingsError
from segq._core.base.serializers import name_of
from segq._core.base.settings import Settings
from segq._core.directory import owners
from segq._core.directory.creation import absolute, settle
from segq._core.directory.label import SeenLabel
from segq._core.format import format as fmt
from segq._core.format.format import NEVER, SegmentName, State
from segq._core.segment.ledger_view import LedgerView, now_ms
from segq._core.system import fs
from segq.doctor.contents import Contents
from segq.handles.queue import described

_BATCH_ITEMS, _BATCH_BYTES = 1000, 1 << 20
_ITEM = re.compile(r"(\d{19}_[0-9a-f]{12})-(\d+)\.item(?:\.\d+)?")
_LABEL_LEDGER = re.compile(r"ledger\.[0-9a-f]{8}")
_SEGMENT_FILES = re.compile(r"ledger|batch|blob|CURRENT|MANIFEST-\d+|\d+\.(?:log|sst)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """What came of it. `read` items were written to `out`; `skipped` were acknowledged, expired or dropped before; `unreadable`
    were neither acknowledged nor can they be read. `notes`: what else is to be known, in words."""

    path: str
    out: str
    segments: int
    read: int
    skipped: int
    unreadable: int
    notes: tuple[str, ...]


def salvage(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, acknowledged: bool = False, serializer: str | None = None
) -> Salvaged:
    """Reads what can be read at `path` into a new queue at `out`, in order.

    Args:
        path: a segment's directory, an entry of a quarantine, the quarantine itself, or a whole queue or topic. Not changed.
        out: where the new queue is made, with the settings of the old one if its `queue.json` can be found, and without a
            capacity. What a topic's labels still need of it goes to one queue.
        acknowledged: also those items that were acknowledged, expired or dropped, as far as they are still there.
        serializer: with which the items were stored, where no `queue.json` tells.

    Raises NotAQueueError if there is nothing of segq's at `path`, SettingsError if there is something at `out` already,
    StorageError if the disk refuses.
    """
    wreck = Wreck(path, acknowledged=acknowledged)
    place = absolute(out)
    if os.path.lexists(place) and (not os.path.isdir(place) or fs.listing(place)):
        raise SettingsError(f"{place} exists; salvage writes to a new queue, so that nothing is mixed up", path=place)
    if place.startswith(wreck.path.rstrip(os.sep) + os.sep):
        raise SettingsError(f"{place} lies within {wreck.path}, which is not to be changed; choose another place", path=place)
    settings = wreck.settings(serializer)
    given = {name: value for name, value in settings.as_dict().items() if value is not None}
    settings = settle(place, "queue", given, create=True, allow_network_fs=False)
    with described(place, dataclasses.replace(settings, serializer="raw"), None, None, False) as queue:
        for batch, expires in _batches(wreck.read()):
            left = (expires - now_ms()) / 1000
            queue.put_many(batch, ttl=max(0.001, left) if expires != NEVER else None)
    return wreck.report(place)


def _batches(items: Iterator[tuple[bytes, int]]) -> Iterator[tuple[list[bytes], int]]:
    """Neighbours that expire together, in batches of a size that is quick to put."""
    batch: list[bytes] = []
    size, expires = 0, NEVER
    for data, at in items:
        if batch and (at != expires or len(batch) == _BATCH_ITEMS or size + len(data) > _BATCH_BYTES):
            yield batch, expires
            batch, size = [], 0
        batch.append(data)
        size, expires = size + len(data), at
    if batch:
        yield batch, expires


class Wreck:
    """What lies at a path, to be read once: `read`, and then `report`."""

    def __init__(self, path: str | os.PathLike[str], *, acknowledged: bool = False) -> None:
        """Raises NotAQueueError."""
        self.path = os.path.abspath(os.fspath(path))
        self._acknowledged = acknowledged
        self._read = self._skipped = self._unreadable = self._segments = 0
        self._notes: list[str] = []
        self._queue = self._find_queue()
        self._stored, self._kind = self._find_settings()
        self._labels = self._find_labels()
        self._sources = self._find_sources()
        if self._queue is not None and self._in_use(self._queue):
            self._note("processes have the queue open: what they take meanwhile is read here as well")

    # --- what is there ---

    def _find_queue(self) -> str | None:
        """The queue that the path is, or lies in."""
        place = self.path
        for _level in range(3):
            if os.path.isdir(os.path.join(place, fmt.OWNERS_DIR)) or os.path.lexists(os.path.join(place, fmt.QUEUE_FILE)):
                return place
            place = os.path.dirname(place)
        return None

    def _find_settings(self) -> tuple[Settings | None, str]:
        if self._queue is None:
            return None, ""
        try:
            _, kind, settings = fmt.decode_queue_file(fs.read_file(os.path.join(self._queue, fmt.QUEUE_FILE)), self._queue)
        except FileNotFoundError:
            self._note(f"{self._queue} has no {fmt.QUEUE_FILE}")
            return None, ""
        except (QueueError, OSError) as error:
            self._note(str(error))
            return None, ""
        return settings, kind

    def settings(self, serializer: str | None) -> Settings:
        """Those of the queue the items come from, without what limits it, as far as they are known."""
        stored = self._stored
        if stored is None:
            if serializer is None:
                self._note('the serializer is not known; "msgpack", the default, is assumed (see --serializer)')
            return Settings(serializer=name_of(serializer or "msgpack"))
        if serializer is not None and serializer != stored.serializer:
            raise SettingsError(
                f"{self._queue} says that its items were stored with serializer={stored.serializer!r}, not {serializer!r}",
                path=self.path,
            )
        return Settings(
            serializer=stored.serializer, durability=stored.durability, lease=stored.lease,
            segment_items=stored.segment_items, segment_bytes=stored.segment_bytes,
        )  # fmt: skip

    def _find_labels(self) -> list[SeenLabel] | None:
        """A topic's labels; None if it cannot be told which there are."""
        place = os.path.join(self._queue or "", fmt.LABELS_DIR)
        if self._queue is None or not os.path.isdir(place):
            return None
        found: list[SeenLabel] = []
        for entry in sorted(fs.listing(place)):
            if entry != fmt.UNFINISHED:
                try:
                    found.append(SeenLabel.read(os.path.join(place, entry)))
                except (DamagedError, FileNotFoundError):
                    self._note(f"{os.path.join(place, entry)} cannot be read: nothing counts as acknowledged by all labels")
                    return None
        return found

    def _find_sources(self) -> list[str]:
        """The segments and items at the path, in the order of their stamps. Raises NotAQueueError."""
        if os.path.isfile(self.path):
            if not _ITEM.fullmatch(os.path.basename(self.path)):
                raise NotAQueueError(f"{self.path} is not an item that was set aside (…-<number>.item)", path=self.path)
            return [self.path]
        if not os.path.isdir(self.path):
            raise NotAQueueError(f"there is nothing at {self.path}", path=self.path)
        entries = sorted(fs.listing(self.path))
        if any(_SEGMENT_FILES.fullmatch(entry) for entry in entries) and self.path != self._queue:
            return [self.path]
        found = [os.path.join(self.path, entry) for entry in entries if self._is_source(self.path, entry)]
        place = os.path.join(self.path, fmt.QUARANTINE_DIR)
        if os.path.isdir(place):
            found += [os.path.join(place, entry) for entry in sorted(fs.listing(place)) if self._is_source(place, entry)]
        if not found and self.path != self._queue and os.path.basename(self.path) != fmt.QUARANTINE_DIR:
            raise NotAQueueError(
                f"{self.path} is neither a queue nor a segment nor anything out of a quarantine", path=self.path
            )
        return sorted(found, key=_age)

    def _is_source(self, place: str, entry: str) -> bool:
        path = os.path.join(place, entry)
        if os.path.isdir(path):
            name = _segment_name(entry)
            return name is not None and (name.state is not State.REMOVED or self._acknowledged)
        return os.path.basename(place) == fmt.QUARANTINE_DIR and _ITEM.fullmatch(entry) is not None

    @staticmethod
    def _in_use(queue: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return any(owners.is_alive(queue, slot) for slot in owners.slots(queue))
        return False

    # --- reading ---

    def read(self) -> Iterator[tuple[bytes, int]]:
        """(item as it was stored, when it expires in milliseconds of the epoch, or NEVER), in order."""
        for source in self._sources:
            if os.path.isdir(source):
                self._segments += 1
                yield from self._segment(source)
            else:
                self._read += 1
                yield fs.read_file(source, fs.size_of(source) + 1), NEVER

    def _segment(self, path: str) -> Iterator[tuple[bytes, int]]:
        ledger = self._ledger(path)
        published = ledger.published if ledger is not None else None
        power_failed = ledger is not None and not ledger.sealed and ledger.epoch != owners.boot_epoch()
        over = self._over(path, ledger) if ledger is not None else b""
        contents = Contents(path, published, thorough=True, beyond=power_failed)
        found = bytearray(len(over))
        now = now_ms()
        try:
            for i, data, expires in contents.items():
                settled = bool(over[i : i + 1].strip(b"\0")) or expires <= now
                if i < len(found):
                    found[i] = data is not None or settled
                if settled and not self._acknowledged:
                    self._skipped += 1
                elif data is not None:
                    self._read += 1
                    yield data, expires if not settled else NEVER
                elif i >= len(found) and not settled:
                    self._unreadable += 1
        finally:
            contents.close()
        settled_and_gone = sum(1 for there, done in zip(found, over, strict=True) if done and not there)
        self._skipped += settled_and_gone
        self._unreadable += found.count(0) - settled_and_gone
        for trouble in contents.trouble:
            self._note(trouble if trouble.startswith(path) else f"{path}: {trouble}")

    def _ledger(self, path: str) -> LedgerView | None:
        try:
            ledger = LedgerView.look(os.path.join(path, fmt.LEDGER_FILE))
        except FileNotFoundError:
            self._note(f"{path} has no ledger: nothing in it counts as acknowledged")
            return None
        except DamagedError as error:
            self._note(f"{error}: nothing in it counts as acknowledged")
            return None
        ledger.close()
        return ledger

    def _over(self, path: str, ledger: LedgerView) -> bytes:
        """A 1 for each item that is nobody's any more."""
        published = ledger.published
        over = int.from_bytes(ledger.settled_mask(published), "little")
        of_labels = [entry for entry in fs.listing(path) if _LABEL_LEDGER.fullmatch(entry)]
        kept = self._stored is not None and self._stored.retain == "ttl"
        if not kept and self._labels:
            every = (1 << 8 * published) - 1
            name = _segment_name(os.path.basename(path))
            for label in self._labels:
                start = label.start_in(name) if name is not None else 0
                mask = (b"\1" * start)[:published].ljust(published, b"\0")
                with contextlib.suppress(FileNotFoundError, DamagedError):
                    view = LedgerView.look(os.path.join(path, fmt.label_ledger(label.id)), ledger)
                    view.close()
                    mask = view.settled_mask(published)
                every &= int.from_bytes(mask, "little")
            over |= every
        elif of_labels and self._labels is None:
            self._note(f"{path} is of a topic whose labels are not known: nothing in it counts as acknowledged by all of them")
        return over.to_bytes(published, "little")

    # --- telling ---

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def report(self, out: str) -> Salvaged:
        return Salvaged(
            path=self.path, out=out, segments=self._segments, read=self._read, skipped=self._skipped,
            unreadable=self._unreadable, notes=tuple(self._notes),
        )  # fmt: skip


def _segment_name(entry: str) -> SegmentName | None:
    """Of a directory as it is called in a queue, or in its quarantine, where a number may follow."""
    return fmt.parse_segment(entry) or fmt.parse_segment(entry.rpartition(".")[0])


def _age(path: str) -> tuple[str, int, str]:
    """Items set aside singly are named after their segment and their place in it."""
    entry = os.path.basename(path)
    name = _segment_name(entry)
    if name is not None:
        return name.identity, 0, path
    match = _ITEM.fullmatch(entry)
    return (match[1], int(match[2]), path) if match else (entry, 0, path)


__all__ = ["Salvaged", "Wreck", "salvage"]
