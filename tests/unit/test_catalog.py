"""The life of a segment: every step of the table and no other, and stamps that only grow."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from actors import segments, states

import segq
from segq._core.base.errors import NotAQueueError
from segq._core.base.settings import Settings
from segq._core.directory.catalog import LIFE, Catalog, Loading
from segq._core.directory.index import Index
from segq._core.format import format as fmt
from segq._core.format.format import LedgerWord, SegmentName, State
from segq._core.system.locks import StructureLock

EPOCH = 7


def catalog_of(path: str) -> Catalog:
    return Catalog(path, Settings(segment_items=10), Index.open(path), StructureLock(path))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return catalog_of(str(tmp_path))


@pytest.fixture
def loading(catalog: Catalog) -> Loading:
    """A segment being loaded, with four items published."""
    created = catalog.create("0123456789ab", 10, 1, EPOCH)
    created.ledger.words[LedgerWord.PUBLISHED] = 4
    return created


@pytest.mark.parametrize(("source", "target"), list(itertools.product(State, State)), ids=lambda state: state.value)
def test_a_segment_moves_as_the_table_says_and_in_no_other_way(catalog: Catalog, source: State, target: State) -> None:
    name = SegmentName(1, "0123456789ab", source)
    os.mkdir(catalog.path(name))
    before = catalog.index.generation
    if (source, target) in LIFE:
        assert catalog._move(name, target) == name.in_state(target)
        assert segments(catalog.queue) == [str(name.in_state(target))]
        assert catalog.index.generation != before
    else:
        with pytest.raises(AssertionError, match="no step"):
            catalog._move(name, target)
        assert segments(catalog.queue) == [str(name)]
        assert catalog.index.generation == before


def test_the_table_has_a_way_from_the_first_state_to_the_last_and_none_back_from_it() -> None:
    reached, last = {State.LOADING}, set()
    while reached != last:
        last = set(reached)
        reached |= {target for source, target in LIFE if source in last}
    assert reached == set(State)
    assert not [target for source, target in LIFE if source is State.REMOVED]


def test_a_step_that_somebody_else_made_first_is_none(catalog: Catalog) -> None:
    assert catalog._move(SegmentName(1, "0123456789ab", State.READY), State.CHOSEN) is None


def test_sealed_untouched_is_ready_begun_is_chosen_and_done_is_gone(catalog: Catalog, loading: Loading) -> None:
    sealed = catalog.seal(loading.name, loading.ledger)
    assert sealed is not None
    assert sealed.state is State.READY
    for done, state in ((1, State.CHOSEN), (4, None)):
        other = catalog.create(None, 10, 1, EPOCH)
        other.ledger.words[LedgerWord.PUBLISHED] = 4
        other.ledger.claim(done, 1)
        other.ledger.settle_claimed(0, done, 1)
        sealed = catalog.seal(other.name, other.ledger)
        assert (sealed.state if sealed else None) is state
    assert states(catalog.queue) == ["ready", "chosen"]


def test_a_ready_segment_is_chosen_before_anything_is_claimed_in_it(catalog: Catalog, loading: Loading) -> None:
    sealed = catalog.seal(loading.name, loading.ledger)
    assert sealed is not None
    assert loading.ledger.claim(1, 1) is None
    catalog.choose(sealed, loading.ledger)
    assert states(catalog.queue) == ["chosen"]
    assert loading.ledger.claim(1, 1) == (0, 1)


def test_a_segment_is_retired_when_all_is_done_and_not_before(catalog: Catalog, loading: Loading) -> None:
    sealed = catalog.seal(loading.name, loading.ledger)
    assert sealed is not None
    catalog.choose(sealed, loading.ledger)
    loading.ledger.claim(4, 1)
    loading.ledger.settle_claimed(0, 3, 1)
    assert not catalog.retire(sealed, loading.ledger)
    loading.ledger.settle_claimed(3, 4, 1)
    assert catalog.retire(sealed, loading.ledger)
    assert not catalog.retire(sealed, loading.ledger)  # somebody was faster
    assert segments(catalog.queue) == []


def test_a_segment_with_items_that_cannot_be_read_is_kept_in_quarantine(catalog: Catalog, loading: Loading) -> None:
    loading.ledger.claim(4, 1)
    loading.ledger.settle_claimed(0, 3, 1)
    loading.ledger.bury(3, 4, 1)
    sealed = catalog.seal(loading.name, loading.ledger)
    assert sealed is not None
    catalog.retire(sealed, loading.ledger)
    assert segments(catalog.queue) == []
    kept = os.listdir(os.path.join(catalog.queue, fmt.QUARANTINE_DIR))
    assert sorted(kept) == sorted([str(sealed), f"{sealed}.reason"])


def test_the_untouched_tail_of_a_lineage_is_resumed(catalog: Catalog, loading: Loading) -> None:
    sealed = catalog.seal(loading.name, loading.ledger)
    assert sealed is not None
    resumed = catalog.resume(10, 2, EPOCH)
    assert resumed is not None
    assert resumed.name.identity == loading.name.identity
    assert resumed.ledger.owner == 2
    assert not resumed.ledger.sealed
    assert states(catalog.queue) == ["loading"]
    assert catalog.resume(10, 3, EPOCH) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda _, loading: loading.ledger.words.__setitem__(LedgerWord.PUBLISHED, 6),
        lambda _, loading: (loading.ledger.claim(1, 1), loading.ledger.settle_claimed(0, 1, 1)),
        lambda _, loading: loading.ledger.adopt(1, EPOCH + 1),
        lambda _, loading: loading.ledger.finalize(),
    ],
    ids=["more than half full", "touched", "of an earlier boot", "with a log that may say more"],
)
def test_a_segment_that_must_not_be_appended_to_is_not_resumed(
    catalog: Catalog, loading: Loading, change: Callable[[Catalog, Loading], object]
) -> None:
    change(catalog, loading)
    catalog.seal(loading.name, loading.ledger)
    before = segments(catalog.queue)
    assert catalog.resume(10, 2, EPOCH) is None
    assert segments(catalog.queue) == before


def test_a_tail_behind_which_its_lineage_goes_on_is_not_resumed(catalog: Catalog, loading: Loading) -> None:
    catalog.seal(loading.name, loading.ledger)
    catalog.create(loading.name.lineage, 10, 1, EPOCH)
    assert catalog.resume(10, 2, EPOCH) is None


def test_stamps_grow_even_when_the_clock_goes_back(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    stamps = []
    for clock in (now, now, now - 10**12, 0, now - 1, now + 1):
        monkeypatch.setattr(time, "time_ns", lambda clock=clock: clock)
        stamps.append(catalog.create(None, 10, 1, EPOCH).name.stamp)
    assert stamps == sorted(set(stamps))
    assert stamps[0] == now


def test_stamps_grow_even_when_the_index_is_lost_with_the_clock_behind(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = catalog.create(None, 10, 1, EPOCH).name.stamp
    os.unlink(os.path.join(catalog.queue, fmt.INDEX_FILE))
    monkeypatch.setattr(time, "time_ns", lambda: first - 10**15)
    again = catalog_of(catalog.queue)
    assert again.create(None, 10, 1, EPOCH).name.stamp > first


@pytest.mark.parametrize("nonsense", [2**64 - 1, 2**63, 1 << 62])
def test_a_nonsensical_last_stamp_in_the_index_does_not_spoil_the_names(catalog: Catalog, nonsense: int) -> None:
    catalog.index.words[fmt.IndexWord.LAST_STAMP] = nonsense
    name = catalog.create(None, 10, 1, EPOCH).name
    assert fmt.parse_segment(str(name)) == name
    assert catalog.create(None, 10, 1, EPOCH).name > name


def test_the_list_of_names_is_read_again_only_when_something_changed(
    catalog: Catalog, loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert catalog.names() == [loading.name]
    monkeypatch.setattr(os, "listdir", lambda _path: pytest.fail("listed again"))
    assert catalog.names() == [loading.name]
    monkeypatch.undo()
    catalog.seal(loading.name, loading.ledger)
    assert [name.state for name in catalog.names()] == [State.READY]


def test_a_segment_is_found_under_whatever_name_it_has_by_now(catalog: Catalog, loading: Loading) -> None:
    sealed = catalog.seal(loading.name, loading.ledger)
    assert catalog.locate(loading.name) == sealed
    assert catalog.ledger(loading.name) is not None
    assert catalog.locate(SegmentName(1, "0123456789ab", State.READY)) is None
    assert catalog.ledger(SegmentName(1, "0123456789ab", State.READY)) is None


def test_a_half_done_deletion_is_finished_and_nothing_else_deleted(catalog: Catalog, loading: Loading) -> None:
    gone = os.path.join(catalog.queue, "removed_0000000000000000005_0123456789ab")
    os.makedirs(os.path.join(gone, "sub"))
    foreign = os.path.join(catalog.queue, "removed_by_hand")
    os.mkdir(foreign)
    catalog.sweep()
    assert not os.path.exists(gone)
    assert os.path.exists(foreign)
    assert catalog.listed() == [loading.name]


def test_a_queue_directory_that_is_gone_is_said_to_be(catalog: Catalog) -> None:
    os.rename(catalog.queue, catalog.queue + ".moved")
    with pytest.raises(NotAQueueError, match="gone"):
        catalog.listed()
    os.rename(catalog.queue + ".moved", catalog.queue)


def test_a_segment_that_is_created_on_a_full_disk_leaves_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(segq.StorageError, match="disk is full"):
        catalog.create(None, 10, 1, EPOCH)
    assert segments(catalog.queue) == []


def test_quarantine_is_reported_in_the_log(catalog: Catalog, loading: Loading, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "segq"):
        catalog.quarantine(loading.name, "it smells")
    assert "it smells" in caplog.text
    assert str(loading.name) in caplog.text
    assert catalog.names() == []


def test_a_list_of_many_segments_misses_none_that_is_just_being_renamed_and_shows_none_twice(catalog: Catalog) -> None:
    names = [SegmentName(number, "0123456789ab", State.READY) for number in range(1, 1201)]
    for name in names:
        os.mkdir(catalog.path(name))
    catalog.index.changed()
    pid = os.fork()
    if not pid:
        other = catalog_of(catalog.queue)
        for name in names:
            with other.structure:
                other._move(name, State.CHOSEN)
        os._exit(0)
    expected, wrong, listings = [name.stamp for name in names], 0, 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        wrong += [name.stamp for name in catalog.names()] != expected
        listings += 1
    assert os.waitpid(pid, 0)[1] == 0
    assert listings
    assert not wrong, f"{wrong} of {listings} listings"
