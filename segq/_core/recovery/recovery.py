"""Recovery from dead owners: seal their loading segments, free their claims, remove their slots.

Recovery runs when a queue is opened, about twice a second while any handle waits or works, and in `check`; one handle does it
for all. Every step can be repeated, because the recovering process may die as well. An owner counts as dead only while we hold
its kernel lock. If a ledger names an owner that has no file, an earlier recovery removed the file and died before it ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterator

from segq._core.base.errors import DamagedError, StorageError
from segq._core.base.failpoints import ARMED, reach
from segq._core.directory import owners
from segq._core.directory.catalog import Catalog
from segq._core.directory.index import EVERYBODY
from segq._core.format import format as fmt
from segq._core.format.format import NEVER, IndexWord, LedgerFlag, LedgerWord, SegmentName, State
from segq._core.segment.batch import BatchReader, in_hand
from segq._core.segment.blob import with_checksums
from segq._core.segment.ledger import Ledger
from segq._core.segment.rocksdb import Logged, SegmentReader, SegmentWriter
from segq._core.system import fs

log = logging.getLogger("segq")


def rescue(catalog: Catalog, own: int) -> int:
    """Checks every owner except `own`, and frees what dead owners held.

    Returns how many owners were dead. It counts, but does not recover, dead owners of the dead letters: the caller does that.
    """
    queue, found = catalog.queue, 0
    for slot in owners.slots(queue):
        if slot == own:
            continue
        with owners.proven_dead(queue, slot) as dead:
            if dead:
                with catalog.structure:
                    _settle(catalog, slot)
                found += 1
    if owners.has_unnamed(queue):
        with catalog.structure:
            owners.forget_unnamed(queue)
    letters = os.path.join(queue, fmt.DEAD_DIR)
    return found + sum(not owners.is_alive(letters, slot) for slot in owners.slots(letters))


def rescue_orphans(catalog: Catalog) -> None:
    """Recovers what belongs to slots without an owner. Under the structure lock, so that no slot is taken meanwhile."""
    queue = catalog.queue
    _set_aside_strangers(queue)
    taken = set(owners.slots(queue))
    for name in catalog.listed():
        if name.state is not State.LOADING:
            continue
        ledger = _ledger(catalog, name)
        if ledger.owner not in taken if ledger is not None else _nobodys(catalog, name, living=taken):
            seal_for_dead(catalog, name, ledger)
    for entry in owners.entries(queue):
        slot = fmt.parse_slot(entry.removesuffix(fmt.SCRATCH_SUFFIX))
        if slot is not None and slot not in taken:
            owners.forget_slot(queue, slot)
    catalog.sweep()
    _begin_boot(catalog)


def _begin_boot(catalog: Catalog) -> None:
    """Once per boot: makes segments sealed in an earlier boot consistent. Under the structure lock.

    After power loss, each page of a ledger and each name may be of any age. A claim may name a slot without an owner, so no
    process would free it; `next` may lie beyond items that were never claimed. Acks that reached the disk stay.
    """
    boot, words = owners.boot_epoch(), catalog.index.words
    if words[IndexWord.BOOT] == boot:
        return
    for name in catalog.listed():
        ledger = _ledger(catalog, name) if name.state is not State.LOADING else None
        if ledger is None:  # the next consumer rebuilds it
            continue
        try:
            if ledger.epoch != boot:
                _settle_sealed(catalog, name, ledger)
                ledger.finalize()
                ledger.note_boot(boot)
                catalog.retire(name, ledger)
        except StorageError as error:
            log.warning("cannot go through %s yet: %s", name, error, extra={"segment": str(name)})
            return
        except DamagedError as error:
            catalog.quarantine(name, f"power was lost, and it cannot be read: {error}")
        finally:
            ledger.close()
    words[IndexWord.BOOT] = boot


def _settle_sealed(catalog: Catalog, name: SegmentName, ledger: Ledger) -> None:
    path = catalog.path(name)
    if not ledger.sealed:  # its name on disk is newer than its ledger on disk
        reader = SegmentReader(path, None)
        try:
            logged = reader.logged()
        finally:
            reader.close()
        believe_the_log(path, ledger, logged)
        ledger.seal()
    _begin_anew(catalog, name, ledger)


def _begin_anew(catalog: Catalog, name: SegmentName, ledger: Ledger) -> None:
    """Forgets all claims in a segment, and makes its name agree with its ledger."""
    ledger.words[LedgerWord.CHOSEN] = 0
    for held in catalog.holders(name):
        held.forget_claims()
    catalog.settle_name(name, ledger)


def _set_aside_strangers(queue: str) -> None:
    """Moves to quarantine whatever has the name of a segment or an owner's file but is not one."""
    for entry in fs.listing(queue):
        if fmt.parse_segment(entry) and not _is(stat.S_ISDIR, os.path.join(queue, entry)):
            fs.quarantine(queue, entry, "not a directory")
    for entry in owners.entries(queue):
        name = os.path.join(fmt.OWNERS_DIR, entry)
        if fmt.parse_slot(entry) is not None and not _is(stat.S_ISREG, os.path.join(queue, name)):
            fs.quarantine(queue, name, "not a regular file")


def _is(kind: Callable[[int], bool], path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return kind(os.lstat(path).st_mode)
    return True


def put_right(catalog: Catalog) -> int:
    """Frees claims of slots without an owner, and repairs ledgers whose words do not agree. Under the structure lock.

    Runs when the first handle opens a queue: the machine may have gone down while the queue was open.
    """
    living, freed = set(owners.slots(catalog.queue)), 0
    for name in catalog.listed():
        if name.state is not State.LOADING:
            _seal_by_name(catalog, name)
        if name.state is not State.READY:
            for ledger in catalog.holders(name):
                freed += ledger.put_right(living)
    if freed:
        catalog.index.add(IndexWord.REDELIVERED, freed)
    return freed


def _seal_by_name(catalog: Catalog, name: SegmentName) -> None:
    """Seals the ledger of a segment sealed by name: power loss or damage can leave a ledger that is not sealed."""
    ledger, path = _ledger(catalog, name), catalog.path(name)
    if ledger is None:
        return
    try:
        if not ledger.sealed:
            reader = SegmentReader(path, None)
            try:
                believe_the_log(path, ledger, reader.logged())
            finally:
                reader.close()
            ledger.seal()
    except (DamagedError, StorageError) as error:
        log.warning("%s: %s", path, error, extra={"segment": str(name)})  # the next consumer of it meets the error
    finally:
        ledger.close()


def release(catalog: Catalog, slot: int, holders: Callable[[SegmentName], Iterator[Ledger]]) -> int:
    """Frees all claims of `slot` in all segments; returns how many items. Under the structure lock."""
    freed = 0
    for name in catalog.listed():
        if name.state is State.READY:  # nothing is claimed in a ready segment
            continue
        for ledger in holders(name):
            freed += ledger.release(slot)
    if freed:
        catalog.bell.ring()
    return freed


def _settle(catalog: Catalog, slot: int) -> None:
    """Recovers one owner. Under the structure lock; the owner is proven dead."""
    if ARMED:
        reach("rescue.begun")
    record = owners.record(catalog.queue, slot)
    sealed, settled = 0, True
    for name in catalog.listed():
        if name.state is not State.LOADING:
            continue
        ledger = _ledger(catalog, name)
        if ledger is not None and ledger.owner != slot:
            ledger.close()
        elif ledger is not None or _nobodys(catalog, name, living=set(owners.slots(catalog.queue)) - {slot}):
            settled = seal_for_dead(catalog, name, ledger) and settled
            sealed += 1
    if ARMED:
        reach("rescue.sealed")
    _mend_ledgers(catalog)
    freed = release(catalog, slot, catalog.holders)
    if ARMED:
        reach("rescue.freed")
    catalog.index.clear_owner(slot)
    catalog.index.add(IndexWord.REDELIVERED, freed)
    if settled:  # else (disk full) its file stays, and the next recovery tries again
        catalog.index.add(IndexWord.RESCUES, 1)
        owners.forget_slot(catalog.queue, slot)
    catalog.sweep()
    catalog.index.changed()
    catalog.bell.ring()
    catalog.index.freed(EVERYBODY)
    pid = record.pid if record else None
    log.log(
        logging.WARNING if settled or freed else logging.DEBUG,
        "rescued what process %s held: %d segments, %d items",
        pid or "?",
        sealed,
        freed,
        extra={"event": "rescue", "queue": catalog.queue, "slot": slot, "pid": pid, "segments": sealed, "items": freed},
    )
    if ARMED:
        reach("rescue.forgotten")


def _mend_ledgers(catalog: Catalog) -> None:
    """In a topic, rebuilds producers' ledgers: without them the labels' ledgers, which note claims, cannot be read."""
    for name in catalog.listed():
        if not catalog.labelled or name.state is not State.CHOSEN:
            continue
        try:
            ledger = _ledger(catalog, name) or rebuild_ledger(catalog, name)
        except DamagedError as error:
            catalog.quarantine(name, str(error))
        else:
            if ledger is not None:
                ledger.close()


def _nobodys(catalog: Catalog, name: SegmentName, *, living: set[int]) -> bool:
    """Whether a loading segment without a readable ledger belongs to no living owner.

    Creation holds the structure lock until the ledger exists, and we hold that lock now. So a segment without items was left
    by a process that died during creation. One with items lost its ledger; a producer may write to it if any owner lives.
    """
    path = catalog.path(name)
    return not living or not any(os.path.lexists(os.path.join(path, part)) for part in (fmt.BATCH_FILE, "CURRENT"))


def _ledger(catalog: Catalog, name: SegmentName) -> Ledger | None:
    try:
        return Ledger.open(os.path.join(catalog.path(name), fmt.LEDGER_FILE))
    except (FileNotFoundError, DamagedError):
        return None


def seal_for_dead(catalog: Catalog, name: SegmentName, ledger: Ledger | None) -> bool:
    """Seals the loading segment of a dead producer; False if it must be tried again. Under the structure lock.

    Idempotent. An unreadable segment goes to quarantine. On a full disk the segment stays as it is: consumers can still read
    its items from the batch, and the next recovery tries again.
    """
    path = catalog.path(name)
    if in_hand(os.path.join(path, fmt.BATCH_FILE)):
        return False
    try:
        if ledger is None:
            ledger = rebuild_ledger(catalog, name)
            if ledger is None:
                return True
        same_boot = ledger.epoch == owners.boot_epoch()
        if ledger.done() < ledger.published or not same_boot:
            _flush_batch(path, ledger, same_boot=same_boot)
        if not same_boot:
            _begin_anew(catalog, name, ledger)
        ledger.finalize()
        if ledger.published:
            catalog.seal(name, ledger)
        else:
            catalog.discard(name)
        ledger.close()
    except StorageError as error:
        log.warning("cannot seal %s yet: %s", name, error, extra={"segment": str(name)})
        return False
    except DamagedError as error:
        catalog.quarantine(name, f"its producer died, and it cannot be read: {error}")
    return True


def _flush_batch(path: str, ledger: Ledger, *, same_boot: bool) -> None:
    """Writes the items that only the open batch holds into RocksDB."""
    published = ledger.published
    try:
        batch: BatchReader | None = BatchReader(os.path.join(path, fmt.BATCH_FILE))
    except FileNotFoundError:
        batch = None
    except DamagedError as error:
        fs.quarantine(os.path.dirname(path), os.path.join(os.path.basename(path), fmt.BATCH_FILE), str(error))
        batch, same_boot = None, False
    if same_boot and (batch is None or not batch.has_unsettled_items(published)):
        return
    if batch is None and not os.path.exists(os.path.join(path, "CURRENT")):
        return
    writer = SegmentWriter(path)
    try:
        flushed = writer.flushed()
        pieces = batch.unflushed(flushed, published, same_boot=same_boot) if batch is not None else []
        if any(first < flushed < stop for first, stop, _ in pieces):  # it would overwrite an intact block
            reason = f"holds items from {pieces[0][0]} on, of which {flushed} are in blocks"
            fs.quarantine(os.path.dirname(path), os.path.join(os.path.basename(path), fmt.BATCH_FILE), reason)
            pieces, same_boot = [], False
        for first, _, block in pieces:
            writer.write(first, with_checksums(first, block, path, ledger.states, batch.reused if batch else None), sync=False)
        logged = None if same_boot else writer.logged()
    finally:
        writer.close()
    if batch is not None:
        batch.end_at(published)
    if logged is not None:
        believe_the_log(path, ledger, logged)


def believe_the_log(path: str, ledger: Ledger, logged: Logged) -> None:
    """After power loss, RocksDB's log decides: items in it exist, whatever the ledger says; all others are lost."""
    published, flushed = ledger.published, min(logged.end, ledger.layout.items)
    if flushed > published:
        ledger.allocate(flushed)
    if ledger.expires is not None:
        for i, at in enumerate(logged.expires[:flushed]):
            if at != NEVER or not ledger.expires[i]:  # a block not written, because its items were done, has no expiry
                ledger.note_expiry(i, 1, at)
    ledger.note_sizes(0, logged.lengths[:flushed])
    if flushed < published:
        ledger.note_sizes(flushed, [0] * (published - flushed))
    if flushed > published:
        ledger.words[LedgerWord.PUBLISHED] = flushed
        log.warning("%s: %d items found beyond what its ledger knew", path, flushed - published)
    elif flushed < published and (lost := ledger.bury(flushed, published, None)):
        log.error("%s: %d items did not reach the disk before power was lost", path, lost)


def rebuild_ledger(catalog: Catalog, name: SegmentName) -> Ledger | None:
    """Makes a new ledger for a segment whose ledger is missing or damaged. All items in its blocks are free (delivered again).

    None if there was nothing to keep. Under the structure lock; no producer may be appending. Raises DamagedError.
    """
    path = catalog.path(name)
    logged = Logged([], [])
    if os.path.exists(os.path.join(path, "CURRENT")):
        reader = SegmentReader(path, None)
        try:
            logged = reader.logged()
        finally:
            reader.close()
    elif os.path.exists(os.path.join(path, fmt.BATCH_FILE)):
        raise DamagedError(f"{path} has an open batch but no ledger", segment=str(name))
    end, expires = logged.end, logged.expires
    if not end:
        if name.state is State.LOADING:
            catalog.discard(name)
            return None
        raise DamagedError(f"{path} has no ledger and no items", segment=str(name))
    if name.state is State.LOADING and os.path.lexists(os.path.join(path, fmt.BATCH_FILE)):
        reason = "the ledger is lost that said how many items are in it; what is in blocks is delivered"
        fs.quarantine(catalog.queue, os.path.join(str(name), fmt.BATCH_FILE), reason)
    place = os.path.join(path, fmt.LEDGER_FILE)
    if os.path.lexists(place):
        fs.quarantine(catalog.queue, os.path.join(str(name), fmt.LEDGER_FILE), "not a ledger")
    flags = catalog.flags if min(expires, default=NEVER) == NEVER else catalog.flags | LedgerFlag.EXPIRES
    unfinished = f"{place}{fmt.UNFINISHED}"  # hides the ledger while it is incomplete: an empty one would mean no items
    fs.unlink(unfinished)
    ledger = Ledger.create(unfinished, max(end, catalog.items), flags, 0, owners.boot_epoch())
    ledger.allocate(end)
    for i, at in enumerate(expires):
        ledger.note_expiry(i, 1, at)
    ledger.note_sizes(0, logged.lengths)
    ledger.words[LedgerWord.PUBLISHED] = end
    if name.state is not State.LOADING:
        ledger.seal()
        ledger.words[LedgerWord.CHOSEN] = int(name.state is State.CHOSEN)
    ledger.appear(place)
    log.warning("%s: ledger rebuilt, %d items will be delivered (again)", name, end, extra={"segment": str(name)})
    return ledger
