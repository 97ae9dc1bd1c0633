"""The ledger: who has which item, in every order of claim, hand, ack, nack, expiry and death."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segq._core.base.errors import DamagedError
from segq._core.format import format as fmt
from segq._core.format.format import LEDGER_STEP, LedgerFlag, LedgerWord
from segq._core.segment.ledger import Ledger

ME, YOU = 3, 1500
NEVER = float("inf")


def make(tmp_path: Path, items: int = 10, flags: int = 0, published: int | None = None) -> Ledger:
    ledger = Ledger.create(str(tmp_path / "ledger"), max(items, 1), flags, 1, 99)
    ledger.allocate(items)
    ledger.words[LedgerWord.PUBLISHED] = items if published is None else published
    return ledger


def test_claims_follow_each_other_up_to_what_is_published(tmp_path: Path) -> None:
    ledger = make(tmp_path, 10, published=7)
    assert ledger.claim(4, ME) == (0, 4)
    assert ledger.claim(4, YOU) == (4, 7)
    assert ledger.claim(4, ME) is None
    ledger.words[LedgerWord.PUBLISHED] = 8
    assert ledger.available()
    assert ledger.claim(4, ME) == (7, 8)
    assert not ledger.available()


def test_two_handles_of_one_ledger_see_one_truth(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    other = Ledger.open(str(tmp_path / "ledger"))
    assert ledger.claim(4, ME) == (0, 4)
    assert other.claim(4, YOU) == (4, 8)
    assert ledger.settle_claimed(0, 4, ME) is None
    assert other.done() == 4


def test_an_item_is_acknowledged_once_by_the_one_who_holds_it(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    ledger.claim(2, ME)
    delivery = ledger.hand(0, ME)
    assert delivery == 1
    assert not ledger.settle(0, YOU, delivery)
    assert not ledger.settle(0, ME, delivery + 1)
    assert not ledger.settle(1, ME, 1)  # claimed, but not handed out
    assert ledger.settle(0, ME, delivery)
    assert not ledger.settle(0, ME, delivery)
    assert not ledger.refuse(0, ME, delivery)
    assert ledger.done() == 1


def test_what_is_refused_comes_first_with_its_delivery_counted_and_the_old_receipt_is_void(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    ledger.claim(3, ME)
    delivery = ledger.hand(1, ME)
    assert ledger.refuse(1, ME, delivery)
    assert not ledger.settle(1, ME, delivery)
    assert ledger.claim(5, YOU) == (1, 2)
    assert ledger.hand(1, YOU) == 2
    assert not ledger.settle(1, ME, delivery)
    assert ledger.settle(1, YOU, 2)
    assert ledger.claim(5, YOU) == (3, 8)


def test_the_same_holder_needs_a_new_receipt_after_giving_back(tmp_path: Path) -> None:
    ledger = make(tmp_path, 1)
    for delivery in range(1, 5):
        assert ledger.claim(1, ME) == (0, 1)
        assert ledger.hand(0, ME) == delivery
        assert not ledger.settle(0, ME, delivery - 1)
        assert ledger.refuse(0, ME, delivery)


def test_the_delivery_count_stays_at_its_most(tmp_path: Path) -> None:
    ledger = make(tmp_path, 1)
    for _ in range(300):
        ledger.claim(1, ME)
        assert ledger.refuse(0, ME, ledger.hand(0, ME))
    ledger.claim(1, ME)
    delivery = ledger.hand(0, ME)
    assert delivery == 256
    assert ledger.settle(0, ME, delivery)


def test_giving_back_what_was_not_handed_out_counts_no_delivery_and_leaves_the_rest(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    ledger.claim(6, ME)
    ledger.hand(0, ME)
    ledger.settle_claimed(1, 2, ME)
    assert ledger.give_back(0, 6, ME) == 4
    assert ledger.claim(10, YOU) == (2, 6)
    assert [ledger.hand(i, YOU) for i in (2, 5)] == [1, 1]
    assert ledger.claim(10, YOU) == (6, 10)
    assert ledger.give_back(2, 6, ME) == 0  # they are another's by now


def test_what_a_dead_owner_held_is_freed_and_only_that(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    ledger.claim(3, ME)
    ledger.claim(3, YOU)
    ledger.hand(0, ME)
    ledger.settle_claimed(1, 2, ME)
    assert ledger.release(ME) == 2
    assert ledger.release(ME) == 0
    assert ledger.claim(10, YOU) == (0, 1)
    assert ledger.hand(0, YOU) == 2  # it had been handed out
    assert ledger.claim(10, YOU) == (2, 3)
    assert ledger.hand(2, YOU) == 1  # it had not
    assert ledger.claim(10, YOU) == (6, 10)


def test_a_claim_left_by_a_death_between_marking_and_moving_is_passed_over_and_freed_by_release(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    for i in range(3):
        ledger.states[i] = fmt.CLAIMED[0]
        ledger.owners[i] = ME
    assert ledger.words[LedgerWord.NEXT] == 0
    assert ledger.claim(4, YOU) == (3, 7)
    assert ledger.release(ME) == 3
    assert ledger.claim(4, YOU) == (0, 3)
    assert ledger.claim(4, YOU) == (7, 10)
    assert ledger.claim(4, YOU) is None


def test_a_death_between_marking_and_moving_at_the_very_end_leaves_nothing_behind(tmp_path: Path) -> None:
    ledger = make(tmp_path, 3)
    for i in range(3):
        ledger.states[i] = fmt.CLAIMED[0]
        ledger.owners[i] = ME
    assert ledger.claim(4, YOU) is None
    assert ledger.release(ME) == 3
    assert ledger.available()
    assert ledger.claim(4, YOU) == (0, 3)


def test_a_lease_that_ran_out_frees_the_item_and_voids_the_receipt(tmp_path: Path) -> None:
    ledger = make(tmp_path, 4, LedgerFlag.DEADLINES)
    assert ledger.claim(2, ME, 100.0) == (0, 2)
    assert ledger.hand(0, ME, 100.0) == 1
    assert ledger.next_deadline() == 100.0
    assert ledger.expire(99.0) == 0
    assert ledger.expire(101.0) == 2
    assert not ledger.settle(0, ME, 1)
    assert ledger.settle_claimed(1, 2, ME) == b"\0"
    assert ledger.hand(1, ME, 100.0) == 0
    assert ledger.claim(2, YOU, 200.0) == (0, 2)
    assert [ledger.hand(i, YOU, 200.0) for i in (0, 1)] == [2, 1]


def test_an_extended_lease_runs_on(tmp_path: Path) -> None:
    ledger = make(tmp_path, 1, LedgerFlag.DEADLINES)
    ledger.claim(1, ME, 100.0)
    ledger.hand(0, ME, 100.0)
    assert ledger.extend(0, ME, 1, 500.0)
    assert not ledger.extend(0, YOU, 1, 900.0)
    assert ledger.expire(400.0) == 0
    assert ledger.expire(501.0) == 1
    assert not ledger.extend(0, ME, 1, 900.0)


def test_a_ledger_without_leases_never_expires_anything(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    ledger.claim(5, ME)
    assert ledger.expire(NEVER) == 0
    assert ledger.next_deadline() is None


def test_complete_means_sealed_and_every_item_done_or_dead(tmp_path: Path) -> None:
    ledger = make(tmp_path, 3)
    ledger.claim(3, ME)
    ledger.settle_claimed(0, 2, ME)
    ledger.bury(2, 3, ME)
    assert (ledger.done(), ledger.dead()) == (3, 1)
    assert not ledger.complete()
    ledger.seal()
    assert ledger.complete()


def test_a_segment_sealed_untouched_is_not_claimed_in_before_its_name_says_so(tmp_path: Path) -> None:
    ledger = make(tmp_path, 3)
    ledger.seal()
    assert ledger.must_be_chosen()
    assert ledger.claim(1, ME) is None
    ledger.chosen()
    assert ledger.claim(1, ME) == (0, 1)
    assert not ledger.untouched()


def test_bytes_done_are_those_of_the_items_done(tmp_path: Path) -> None:
    ledger = make(tmp_path, 5, LedgerFlag.SIZES)
    assert ledger.sizes is not None
    for i, end in enumerate((10, 10, 35, 40, 100)):
        ledger.sizes[i] = end
    assert ledger.published_bytes() == 100
    ledger.claim(5, ME)
    assert ledger.done_bytes() == 0
    ledger.settle_claimed(2, 3, ME)
    assert ledger.done_bytes() == 25
    ledger.settle_claimed(0, 1, ME)
    assert ledger.done_bytes() == 35
    ledger.settle_claimed(1, 2, ME)
    ledger.settle_claimed(4, 5, ME)
    assert ledger.done_bytes() == 95


def test_free_items_are_looked_at_without_being_claimed(tmp_path: Path) -> None:
    ledger = make(tmp_path, 6)
    ledger.claim(3, ME)
    ledger.give_back(1, 2, ME)
    assert ledger.free_items(10) == [1, 3, 4, 5]
    assert ledger.free_items(2) == [1, 3]
    assert ledger.claim(1, YOU) == (1, 2)


def test_sealing_gives_back_reserved_room(tmp_path: Path) -> None:
    ledger = make(tmp_path, 10, published=4)
    ledger.words[LedgerWord.LIMIT] = 9
    assert ledger.reserved()[0] == 9
    ledger.seal()
    assert ledger.reserved()[0] == 4


def test_the_arrays_get_their_place_on_the_disk_step_by_step(tmp_path: Path) -> None:
    ledger = Ledger.create(str(tmp_path / "ledger"), 10 * LEDGER_STEP, 0, 1, 1)
    first = os.stat(tmp_path / "ledger").st_blocks
    assert ledger.allocated == LEDGER_STEP
    ledger.allocate(LEDGER_STEP + 1)
    assert ledger.allocated == 2 * LEDGER_STEP
    assert os.stat(tmp_path / "ledger").st_blocks > first


def test_claims_larger_than_a_step_are_claimed_whole(tmp_path: Path) -> None:
    ledger = make(tmp_path, 3 * LEDGER_STEP)
    assert ledger.claim(2 * LEDGER_STEP + 5, ME) == (0, 2 * LEDGER_STEP + 5)
    assert set(ledger.owners[: 2 * LEDGER_STEP + 5].tolist()) == {ME}
    assert ledger.release(ME) == 2 * LEDGER_STEP + 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda words: words.__setitem__(LedgerWord.MAGIC, 5),
        lambda words: words.__setitem__(LedgerWord.ITEMS, 0),
        lambda words: words.__setitem__(LedgerWord.ITEMS, 1 << 40),
        lambda words: words.__setitem__(LedgerWord.ITEMS, 1 << 20),  # more than the file has room for
        lambda words: words.__setitem__(LedgerWord.FLAGS, 9),
        lambda words: words.__setitem__(LedgerWord.PUBLISHED, 11),
        lambda words: words.__setitem__(LedgerWord.NEXT, 2**64 - 1),
    ],
    ids=["magic", "no items", "too many items", "too short", "flags", "published", "next"],
)
def test_a_damaged_header_is_refused(tmp_path: Path, damage: object) -> None:
    ledger = make(tmp_path)
    damage(ledger.words)  # type: ignore[operator]
    ledger.close()
    with pytest.raises(DamagedError):
        Ledger.open(str(tmp_path / "ledger"))


@given(data=st.binary(max_size=300))
def test_any_bytes_for_a_ledger_are_refused_with_damaged_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"ledger-{os.getpid()}"
    path.write_bytes(data + b"\0" * (8192 - len(data)))
    with pytest.raises(DamagedError):
        Ledger.open(str(path))


def test_threads_and_processes_that_claim_at_the_same_time_share_the_items_out_exactly(tmp_path: Path) -> None:
    total = 30_000
    make(tmp_path, total).close()

    def work(slot: int, ledger: Ledger) -> list[int]:
        mine: list[int] = []
        while (span := ledger.claim(7, slot)) is not None:
            mine += range(*span)
            ledger.settle_claimed(*span, slot)
        return mine

    pipes = []
    for process in range(2):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            shared = Ledger.open(str(tmp_path / "ledger"))
            found: list[list[int]] = [[], []]

            def run(n: int, process: int = process, shared: Ledger = shared, found: list[list[int]] = found) -> None:
                found[n] = work(10 * process + n + 1, shared)

            threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with os.fdopen(write, "w") as file:
                file.write("\n".join(map(str, found[0] + found[1])))
            os._exit(0)
        os.close(write)
        pipes.append((pid, read))
    claimed: list[int] = []
    for pid, read in pipes:
        with os.fdopen(read) as file:
            claimed += map(int, file.read().split())
        assert os.waitpid(pid, 0)[1] == 0
    assert sorted(claimed) == list(range(total))


STEPS = st.lists(
    st.tuples(st.sampled_from(["claim", "hand", "ack", "nack", "give back", "die", "publish"]), st.integers(0, 9)), max_size=60
)


@given(steps=STEPS)
def test_no_item_is_ever_lost_or_held_twice(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]) -> None:
    """A model of two owners and twelve items; in the end both die, and what was not done is claimable, once."""
    path = tmp_path_factory.getbasetemp() / f"model-ledger-{os.getpid()}"
    path.unlink(missing_ok=True)
    ledger = Ledger.create(str(path), 12, 0, 1, 1)
    ledger.words[LedgerWord.PUBLISHED] = 4
    held: dict[int, tuple[int, int]] = {}  # item: (owner, receipt, 0 while it is only claimed)
    done: set[int] = set()
    for step, n in steps:
        slot = (ME, YOU)[n % 2]
        mine = [i for i, (owner, _) in held.items() if owner == slot]
        handed = [i for i in mine if held[i][1]]
        match step:
            case "publish":
                ledger.words[LedgerWord.PUBLISHED] = min(12, ledger.published + 1 + n % 3)
            case "claim":
                span = ledger.claim(1 + n % 4, slot)
                free = set(range(ledger.published)) - done - held.keys()
                assert (span is None) == (not free)
                if span is not None:
                    assert set(range(*span)) <= free
                    held.update(dict.fromkeys(range(*span), (slot, 0)))
            case "hand":
                for i in mine[:1]:
                    if not held[i][1]:
                        held[i] = (slot, ledger.hand(i, slot))
            case "ack":
                for i in handed[:1]:
                    assert ledger.settle(i, slot, held.pop(i)[1])
                    done.add(i)
            case "nack":
                for i in handed[:1]:
                    assert ledger.refuse(i, slot, held.pop(i)[1])
            case "give back":
                given = [i for i in mine if not held[i][1]]
                assert ledger.give_back(0, 12, slot) == len(given)
                for i in given:
                    del held[i]
            case "die":
                assert ledger.release(slot) == len(mine)
                for i in mine:
                    del held[i]
    ledger.release(ME)
    ledger.release(YOU)
    rest: list[int] = []
    while (span := ledger.claim(12, ME)) is not None:
        rest += range(*span)
    assert sorted(rest) == sorted(set(range(ledger.published)) - done)
    assert ledger.done() == len(done)
