"""Blocks: what goes in comes out, what is damaged is said to be, and nothing is read beyond its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segq._core.base.errors import DamagedError
from segq._core.format import blocks
from segq._core.format.format import MOST_ITEMS

ITEMS = st.lists(st.binary(max_size=200), min_size=1, max_size=40)


@given(ITEMS, st.integers(0, 2**63), st.integers(0, 2**32 - 1), st.integers(0, MOST_ITEMS - 40), st.data())
def test_a_block_gives_back_its_items_from_any_to_any(
    items: list[bytes], time_ms: int, ttl: int, first: int, data: st.DataObject
) -> None:
    block = blocks.decode(blocks.key(first), blocks.encode(first, items, time_ms, ttl))
    assert (block.first, block.count) == (first, len(items))
    low = data.draw(st.integers(0, len(items) - 1))
    high = data.draw(st.integers(low, len(items)))
    assert block.items(first + low, first + high) == items[low:high]


@given(ITEMS)
def test_a_block_joined_from_its_arrays_is_the_same_block(items: list[bytes]) -> None:
    whole = blocks.encode(3, items, 5, 6)
    at = blocks.HEADER.size
    runs_at = at + 4 * len(items)
    runs, payload = whole[runs_at : runs_at + blocks.RUN.size], whole[runs_at + blocks.RUN.size :]
    joined = blocks.join(3, whole[at:runs_at], runs, payload, references=False)
    assert joined == whole


@given(st.binary(max_size=12), st.binary(max_size=400))
def test_hostile_bytes_for_a_block_raise_damaged_error_and_nothing_else(key: bytes, data: bytes) -> None:
    with pytest.raises(DamagedError):
        blocks.decode(key, data)


@given(ITEMS, st.data())
def test_a_block_with_a_changed_byte_or_cut_short_raises_damaged_error_or_stays_within_its_bytes(
    items: list[bytes], data: st.DataObject
) -> None:
    whole = bytearray(blocks.encode(0, items, 1))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        block = blocks.decode(blocks.key(0), bytes(whole))
        found = block.items(0, min(block.count, len(items)))
    except DamagedError:
        return
    assert all(isinstance(item, bytes) and len(item) <= len(whole) for item in found)


def test_block_keys_sort_as_their_numbers() -> None:
    numbers = [0, 1, 255, 256, 65_535, 65_536, 2**40]
    assert sorted(map(blocks.key, numbers)) == [blocks.key(number) for number in numbers]


@given(ITEMS, st.integers(0, MOST_ITEMS - 40), st.data())
def test_a_checksum_tells_a_block_from_one_with_a_changed_byte_and_from_one_of_another_place(
    items: list[bytes], first: int, data: st.DataObject
) -> None:
    whole = blocks.encode(first, items, 1)
    assert blocks.decode(blocks.key(first), whole, verify=True).items(first, first + len(items)) == items
    with pytest.raises(DamagedError):
        blocks.decode(blocks.key(first ^ 1), whole, verify=True)
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedError):
        blocks.decode(blocks.key(first), bytes(changed), verify=True)


@given(ITEMS, st.binary(max_size=200))
def test_a_block_whose_payload_was_patched_has_the_checksum_of_what_it_is_now(items: list[bytes], other: bytes) -> None:
    patched = blocks.patched(5, blocks.encode(5, [*items, bytes(len(other))], 1)[: -len(other) or None] + other)
    assert patched == blocks.encode(5, [*items, other], 1)
