"""Every name and every byte that segq puts on disk; pure, no input or output.

Names in a queue's directory::

    queue.json  queue.lock  index
    owners/<slot>                      slot: 4 decimal digits, from 0001
    labels/<label>                     topics: where a label began, what it missed; the label as `label_file` writes it
    <state>_<stamp>_<uuid>/            state: loading | ready | chosen | removed
    quarantine/<name>[.<n>]            what could not be read; <name>.reason beside it

`stamp` (19 digits) is nanoseconds of the epoch, made strictly increasing: it orders the segments. `uuid` (12 hex
digits) names a *lineage*: all segments written by one producer handle carry the same one (a handle that resumes the
tail of another's work goes on under the other's), so that "items of one producer are delivered in the order put" can be
kept by looking at names alone. In a segment's directory lie a RocksDB instance, `ledger`, and, while it is loading, `batch`.

The *open batch* (file `batch`) is two halves, each::

    0       sequence u64   odd while the half is being made ready for reuse
    8       first    u64   index of its first item in the segment
    16      end      u64   0 while open; index behind its last item once closed
    24      runs     u64   number of runs
    32      refs     u64   1: has references
    40      reused   u64   of the first half only: how far `blob` is being written over, see there
    48      settled  u64   1: nothing of the half is wanted that is not in a block
    64      ends     u32[HALF_ITEMS]
    16384   runs     (index u32, ttl u32, time u64)[HALF_RUNS]
    32768   payload  HALF_BYTES

The *ledger* is a header of u64 words (`LedgerWord`) in the first 4096 bytes, then arrays with one entry an item, each
beginning on a page: state u8, owner's slot u16, deliveries u8; with a lease also the deadline f64 (monotonic seconds);
with a byte limit also the end of the item within the segment's payload, u64; with times to live also the millisecond of the
epoch in which the item expires, u64.

A topic's segment has a `ledger` of the producer, in which a state says only whether the item expired or was dropped, and a
`ledger.<id>` for each label that has begun with the segment, of the same layout without the last two arrays.

A *label's file* is a header of u64 words (`LabelWord`) in the first 4096 bytes, then JSON: {"label": its text, "id": 8 hex
digits, "cut": the newest stamp when it was created, "starts": {segment: items of it that were there before}}.

The *index* is `IndexWord`s (u64) in the first 4096 bytes, then 64 bytes for each owner's slot (`OwnerWord`).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import re
import sys
import uuid
from typing import Any
from urllib.parse import quote

from segq._core.base.errors import DamagedError, FormatVersionError, NotAQueueError, SettingsError
from segq._core.base.settings import Settings, validated

if sys.byteorder != "little":  # pragma: no cover  # mapped words are native; the format is little-endian
    raise ImportError("segq maps little-endian words and does not run on big-endian machines")

VERSION = 1
PAGE = 4096
MOST_ITEMS = 1 << 26  # in a segment: bounds what a damaged count can make a reader allocate

QUEUE_FILE, LOCK_FILE, INDEX_FILE = "queue.json", "queue.lock", "index"
OWNERS_DIR, QUARANTINE_DIR, SCRATCH_SUFFIX = "owners", "quarantine", ".scratch"
LABELS_DIR, UNFINISHED = "labels", ".new"
DEAD_DIR = "dead"  # a queue itself: what was given up
CONNECTORS_DIR = "connectors"  # what `segq.connectors` keep beside the items; the engine only knows its name
DIRECTORIES = (OWNERS_DIR, LABELS_DIR, QUARANTINE_DIR, DEAD_DIR)
LEDGER_FILE, BATCH_FILE, BLOB_FILE = "ledger", "batch", "blob"


# --- names ------------------------------------------------------------------------------------------------------------


class State(enum.StrEnum):
    """What a segment's name says about it; see `catalog` for who changes it, and when."""

    LOADING = "loading"
    READY = "ready"
    CHOSEN = "chosen"
    REMOVED = "removed"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """`<state>_<stamp>_<uuid>`; sorts by stamp, which is the order in which segments were begun.

    `identity` is the part that stays the same through all states.
    """

    stamp: int
    lineage: str
    state: State = dataclasses.field(compare=False)
    identity: str = dataclasses.field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", f"{self.stamp:019d}_{self.lineage}")

    def __str__(self) -> str:
        return f"{self.state.value}_{self.identity}"

    def in_state(self, state: State) -> SegmentName:
        return SegmentName(self.stamp, self.lineage, state)


_SEGMENT = re.compile(r"(loading|ready|chosen|removed)_([0-9]{19})_([0-9a-f]{12})", re.ASCII)
_SLOT = re.compile(r"[0-9]{4}", re.ASCII)
_LABEL_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)


@functools.lru_cache(1 << 14)  # a directory of thousands is read again whenever a name in it changes
def parse_segment(text: str) -> SegmentName | None:
    """The segment that a directory entry names, or None if it names none."""
    match = _SEGMENT.fullmatch(text)
    return (match and SegmentName(int(match[2]), match[3], State(match[1]))) or None


def slot_name(slot: int) -> str:
    return f"{slot:04d}"


def parse_slot(text: str) -> int | None:
    """The slot that an entry of `owners/` names, or None."""
    if not _SLOT.fullmatch(text):
        return None
    slot = int(text)
    return slot if 1 <= slot < MAX_OWNERS else None


def label_ledger(label_id: str) -> str:
    """The file of a segment in which a label notes who has what."""
    return f"{LEDGER_FILE}.{label_id}"


_LABEL_MOST = 180  # bytes of a label's file name before it is shortened; file systems end at 255


def label_file(label: str) -> str:
    """The name under which a label is kept: readable, unlike any other label's, and safe whatever the label is."""
    name = quote(label, safe="")
    if name.startswith(".") or not name:
        name = "%" + name  # no quoted text begins with a % that two hex digits do not follow
    if len(name) > _LABEL_MOST:
        digest = hashlib.sha256(label.encode()).hexdigest()[:32]
        name = f"{name[: _LABEL_MOST - 40]}%~{digest}"
    return name


# --- queue.json -------------------------------------------------------------------------------------------------------


def encode_queue_file(uuid: str, kind: str, settings: Settings) -> bytes:
    document = {"segq": VERSION, "uuid": uuid, "kind": kind, "settings": settings.as_dict()}
    return json.dumps(document, indent=2).encode() + b"\n"


def decode_queue_file(data: bytes, path: str) -> tuple[str, str, Settings]:
    """(uuid, kind, settings). Raises FormatVersionError for another version, NotAQueueError for anything unreadable."""
    try:
        document: Any = json.loads(data)
        version = document["segq"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NotAQueueError(
            f"{path}: {QUEUE_FILE} is not one that segq wrote; nothing was touched. If the queue is yours, restore that"
            " file from another queue with the same settings",
            path=path,
        ) from error
    if type(version) is not int or version != VERSION:
        raise FormatVersionError(
            f"{path} has format version {version!r}; this segq reads version {VERSION}. Use the segq that wrote it;"
            " nothing was touched",
            path=path,
        )
    try:
        uuid, kind, settings = document["uuid"], document["kind"], document["settings"]
        if not (isinstance(uuid, str) and kind in ("queue", "topic") and isinstance(settings, dict)):
            raise TypeError("wrong types")
        return uuid, kind, Settings(**validated(settings))
    except (KeyError, TypeError, SettingsError) as error:
        raise NotAQueueError(f"{path}: {QUEUE_FILE} is damaged ({error}); nothing was touched", path=path) from error


# --- open batch -------------------------------------------------------------------------------------------------------

HALF_ITEMS = 4080  # with the 64-byte header exactly 16 KiB, so that the runs begin on a page of any machine
HALF_RUNS = 1024
HALF_BYTES = 256 << 10  # a half stays in the second-level cache while it is filled and copied out
ENDS_AT, RUNS_AT, PAYLOAD_AT = 64, 16_384, 32_768
HALF_SIZE = PAYLOAD_AT + HALF_BYTES
BATCH_SIZE = 2 * HALF_SIZE


class HalfWord(enum.IntEnum):
    """Words (u64) at the beginning of each half."""

    SEQUENCE = 0
    FIRST = 1
    END = 2
    RUNS = 3
    REFERENCES = 4
    REUSED = 5
    SETTLED = 6


# --- ledger -----------------------------------------------------------------------------------------------------------

LEDGER_MAGIC = int.from_bytes(b"segqL\x00\x00\x01", "little")
FREE, CLAIMED, DONE, HANDED, DEAD, MISSED, DELAYED = b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06"
"""DEAD: cannot be read. MISSED: expired, or dropped for the sake of newer ones, before it was handed out.

DELAYED: given back, to be free again at the time of the bucket whose number stands in the place of its owner.
"""
NEVER = 1 << 62  # an item without a time to live expires then
MAX_OWNERS = 2048  # slots; the index holds 64 bytes for each
LEDGER_STEP = 4096  # items by which a ledger's arrays are allocated: whole pages of each


class LedgerWord(enum.IntEnum):
    """Words (u64) of a ledger's header. Those a put stores are away from those a claim stores: other cache lines."""

    MAGIC = 0
    ITEMS = 1  # how many items the arrays have room for
    FLAGS = 2  # LedgerFlag
    OWNER = 3  # slot of the producer
    EPOCH = 4  # a hash of the boot in which the ledger was last written
    PUBLISHED = 8  # items stored; the producer's alone
    SEALED = 16
    LIMIT = 17  # items the producer may publish before it has to ask for room again (capacity)
    LIMIT_BYTES = 18
    NEXT = 24  # items below it have been claimed at some time
    FINAL = 19  # 1: not to be resumed, since its log may hold a block that was never published
    LAPSE = 20  # milliseconds of the epoch in which the last of its items expires; 0 if there are none
    RETURNED = 25  # how many below NEXT are FREE again, at most
    CHOSEN = 26  # 1: renamed chosen_, so that items may be claimed although it was sealed untouched
    ALLOCATED = 27  # a label's: items for which the arrays have their place on the disk
    SKIPPED = 28  # a label's: items that were there before it began; their state is DONE
    DUE = 29  # monotonic milliseconds at which the first of its delayed items is due, or before; 0: none is delayed
    MOVING = 30  # 1: some item may be on its way to the dead letters, as the list from MOVES_AT on says


# Further words of the header.
MOVES_AT, MOVES = 192, 64  # the number + 1 of each item that is on its way to the dead letters, or was when somebody died
BUCKETS_AT, BUCKETS = 256, 256  # monotonic milliseconds at which the items of each bucket are due; 0: not in use


class LedgerFlag(enum.IntFlag):
    """Which of the optional arrays a ledger has."""

    DEADLINES = 1
    SIZES = 2
    EXPIRES = 4
    DROPPABLE = 8  # no array: claims may be taken away, because items are dropped when the topic is full


@dataclasses.dataclass(frozen=True, slots=True)
class LedgerLayout:
    """Where the arrays of a ledger for `items` items begin; 0 for one that it does not have."""

    items: int
    states: int
    owners: int
    deliveries: int
    deadlines: int
    sizes: int
    expires: int
    total: int

    @classmethod
    def of(cls, items: int, flags: int) -> LedgerLayout:
        room = -(-items // LEDGER_STEP) * LEDGER_STEP
        states = PAGE
        owners = states + room
        deliveries = owners + 2 * room
        end = deliveries + room
        deadlines = end if flags & LedgerFlag.DEADLINES else 0
        end += 8 * room if deadlines else 0
        sizes = end if flags & LedgerFlag.SIZES else 0
        end += 8 * room if sizes else 0
        expires = end if flags & LedgerFlag.EXPIRES else 0
        end += 8 * room if expires else 0
        return cls(items, states, owners, deliveries, deadlines, sizes, expires, end)

    def step(self, number: int) -> list[tuple[int, int]]:
        """The (offset, length) ranges that items number*LEDGER_STEP … need on disk."""
        begin = number * LEDGER_STEP
        ranges = [(self.states, 1), (self.owners, 2), (self.deliveries, 1)]
        ranges += [(self.deadlines, 8), (self.sizes, 8), (self.expires, 8)]
        return [(at + begin * width, LEDGER_STEP * width) for at, width in ranges if at]


# --- index ------------------------------------------------------------------------------------------------------------

INDEX_MAGIC = int.from_bytes(b"segqI\x00\x00\x01", "little")
OWNER_SIZE = 64
INDEX_SIZE = PAGE + MAX_OWNERS * OWNER_SIZE


class IndexWord(enum.IntEnum):
    """Words (u64) of the index's header, by cache line (8 words)."""

    MAGIC = 0
    GENERATION = 1  # changes whenever a segment appears, goes, or changes its name
    LAST_STAMP = 2
    SHUTDOWN = 3  # 0, 1 (drain) or 2 (immediate)
    RESCUED_AT = 4  # monotonic nanoseconds of the last look for dead owners
    RESCUES = 5
    REDELIVERED = 6
    EXPIRED = 7  # items whose time ran out before anybody had them (queues; topics count by label)
    ITEMS_WAKE = 8  # low half: the futex that consumers sleep on
    ITEMS_SLEEPERS = 16  # 1: somebody may be sleeping on it
    ROOM_WAKE = 24
    ROOM_SLEEPERS = 32
    RECALL_WAKE = 40  # producers that hold unused room are asked to give it back
    RECALL_SLEEPERS = 48
    JOIN_WAKE = 56  # whoever waits in join: apart from ROOM_WAKE, so that it does not take a wake meant for a producer
    JOIN_SLEEPERS = 64
    LABELS = 72  # topics: changes whenever a label appears or goes
    TIDIED_AT = 73  # monotonic nanoseconds of the last look for what has expired
    BOOT = 74  # the boot in which the ledgers of earlier ones were gone through
    DUE = 75  # monotonic milliseconds of the first delayed item that is due, as far as is known; 0: none (queues)


# --- labels -----------------------------------------------------------------------------------------------------------

LABEL_MAGIC = int.from_bytes(b"segqT\x00\x00\x01", "little")


class LabelWord(enum.IntEnum):
    """Words (u64) of a label's header. MISSED and DONE count what lay in segments that are gone.

    A segment's share is added under the structure lock in two steps, the second of which a death may leave out and anybody
    repeat: the new sums to *_AFTER and then its stamp to JOURNAL; the sums from there to MISSED and DONE.
    """

    MAGIC = 0
    SIZE = 1  # bytes of the JSON
    REMOVED = 2  # 1: the label was removed
    MISSED = 3
    DONE = 4
    JOURNAL = 5
    MISSED_AFTER = 6
    DONE_AFTER = 7
    WAKE = 8  # low half: the futex that its consumers sleep on
    SLEEPERS = 16
    REDELIVERED = 24
    DUE = 25  # as the index's, for this label


ONES = re.compile(rb"\x01+")  # in a mask of items


def new_label_id() -> str:
    return uuid.uuid4().hex[:8]


def encode_label(label: str, label_id: str, cut: int, starts: dict[str, int]) -> bytes:
    return json.dumps({"label": label, "id": label_id, "cut": cut, "starts": starts}).encode()


def decode_label(data: bytes, path: str) -> tuple[str, str, int, dict[str, int]]:
    """(label, id, cut, starts). Raises DamagedError."""
    try:
        document: Any = json.loads(data)
        label, label_id, cut, starts = document["label"], document["id"], document["cut"], document["starts"]
        if not (isinstance(label, str) and _LABEL_ID.fullmatch(label_id) and type(cut) is int and isinstance(starts, dict)):
            raise TypeError("wrong types")
        if not all(type(count) is int and 0 <= count <= MOST_ITEMS for count in starts.values()):
            raise TypeError("wrong starts")
        label.encode()
        return label, label_id, cut, starts
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedError(f"{path} is not a label's file ({error})", path=path) from error


class OwnerWord(enum.IntEnum):
    """Words (u64) of an owner's slot, written by that owner alone."""

    GETS = 0  # items handed out by get
    FINISHED = 1  # task_done calls
    RECEIVES = 2  # messages handed out by receive
    PUTS = 3
    WAITED = 4  # monotonic milliseconds at which it last began to wait for items; a hint
