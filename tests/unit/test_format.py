"""Names and bytes: what segq writes it reads back, and what it did not write it refuses with its own errors only."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segq._core.base.errors import FormatVersionError, NotAQueueError
from segq._core.base.settings import Settings
from segq._core.format import blocks
from segq._core.format import format as fmt
from segq._core.format.format import SegmentName, State

GOOD_NAMES = [
    ("loading_0000000000000000001_0123456789ab", SegmentName(1, "0123456789ab", State.LOADING)),
    ("ready_1795242728461686108_1bf7ae746d4a", SegmentName(1795242728461686108, "1bf7ae746d4a", State.READY)),
    ("chosen_9223372036854775807_ffffffffffff", SegmentName(2**63 - 1, "ffffffffffff", State.CHOSEN)),
    ("removed_0000000000000000000_000000000000", SegmentName(0, "000000000000", State.REMOVED)),
]
BAD_NAMES = [
    "",
    "ready",
    "ready_1_0123456789ab",
    "ready_0000000000000000001_0123456789a",
    "ready_0000000000000000001_0123456789abc",
    "ready_0000000000000000001_0123456789AB",
    "ready_0000000000000000001_0123456789ag",
    "Ready_0000000000000000001_0123456789ab",
    "done_0000000000000000001_0123456789ab",
    "ready_-000000000000000001_0123456789ab",
    "ready_00000000000000000011_0123456789ab",
    "ready_\u0660000000000000000001_0123456789ab",
    "ready_0000000000000000001_0123456789ab\n",
    " ready_0000000000000000001_0123456789ab",
    "ready_0000000000000000001_0123456789ab.1",
    "ready-0000000000000000001-0123456789ab",
    "ready_0000000000000000001_0123456789ab/ledger",
]


@pytest.mark.parametrize(("text", "name"), GOOD_NAMES, ids=[text for text, _ in GOOD_NAMES])
def test_a_segment_name_reads_back_as_what_was_written(text: str, name: SegmentName) -> None:
    assert fmt.parse_segment(text) == name
    assert fmt.parse_segment(text).state is name.state  # equality leaves the state out
    assert str(name) == text


@pytest.mark.parametrize("text", BAD_NAMES, ids=repr)
def test_a_malformed_segment_name_names_nothing(text: str) -> None:
    assert fmt.parse_segment(text) is None


def test_segments_sort_by_stamp_and_keep_their_identity_through_all_states() -> None:
    older, newer = SegmentName(5, "ffffffffffff", State.READY), SegmentName(40, "000000000000", State.LOADING)
    assert sorted([newer, older]) == [older, newer]
    assert {older.in_state(state).identity for state in State} == {older.identity}


@given(st.integers(0, 10**19 - 1), st.text("0123456789abcdef", min_size=12, max_size=12), st.sampled_from(State))
def test_every_segment_name_round_trips(stamp: int, lineage: str, state: State) -> None:
    name = SegmentName(stamp, lineage, state)
    again = fmt.parse_segment(str(name))
    assert again == name
    assert again.state is state


@pytest.mark.parametrize("slot", [1, 42, fmt.MAX_OWNERS - 1])
def test_a_slot_name_reads_back(slot: int) -> None:
    assert fmt.parse_slot(fmt.slot_name(slot)) == slot


@pytest.mark.parametrize(
    "text",
    ["", "0000", "1", "00001", "000a", "-001", "9999", f"{fmt.MAX_OWNERS}", "0001.new", "\u0660\u0660\u0660\u0661", "0001\n"],
)
def test_a_malformed_slot_name_names_nothing(text: str) -> None:
    assert fmt.parse_slot(text) is None


# --- queue.json ---


def test_queue_json_keeps_every_setting() -> None:
    settings = Settings(
        capacity=7, max_bytes=1000, serializer="raw", durability="power", lease=1.5, segment_items=9, segment_bytes=8192
    )
    assert fmt.decode_queue_file(fmt.encode_queue_file("u", "queue", settings), "p") == ("u", "queue", settings)


def document(**changes: object) -> bytes:
    whole = json.loads(fmt.encode_queue_file("u", "queue", Settings()))
    whole.update(changes)
    return json.dumps({name: value for name, value in whole.items() if value != "LEFT OUT"}).encode()


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5, [1], -1])
def test_another_format_version_is_refused_as_that(version: object) -> None:
    with pytest.raises(FormatVersionError, match="version"):
        fmt.decode_queue_file(document(segq=version), "p")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"17",
        b'"segq"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"segq": 1}',
        document(segq="LEFT OUT"),
        document(uuid="LEFT OUT"),
        document(uuid=17),
        document(kind="heap"),
        document(kind=["queue"]),
        document(settings=[]),
        document(settings={"capacity": -1}),
        document(settings={"capacity": "many"}),
        document(settings={"colour": "red"}),
        document(settings={"lease": float("nan")}),
        document(settings={"durability": ["power"]}),
        document(settings={"segment_items": True}),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_a_queue_json_that_segq_did_not_write_is_refused(data: bytes) -> None:
    with pytest.raises(NotAQueueError):
        fmt.decode_queue_file(data, "p")


@given(st.binary(max_size=300))
def test_any_bytes_for_queue_json_raise_only_the_two_errors(data: bytes) -> None:
    with pytest.raises((NotAQueueError, FormatVersionError)):
        fmt.decode_queue_file(data, "p")


# --- layouts ---


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize("items", [1, 4096, 4097, 65_536, 1 << 24])
def test_the_arrays_of_a_ledger_do_not_overlap_and_begin_on_pages(items: int, flags: int) -> None:
    layout = fmt.LedgerLayout.of(items, flags)
    widths = [(layout.states, 1), (layout.owners, 2), (layout.deliveries, 1), (layout.deadlines, 8), (layout.sizes, 8)]
    spans = sorted((at, at + width * items) for at, width in widths if at)
    assert len(spans) == 3 + bool(flags & 1) + bool(flags & 2)
    assert spans[0][0] >= fmt.PAGE
    assert all(at % fmt.PAGE == 0 for at, _ in spans)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert spans[-1][1] <= layout.total


@pytest.mark.parametrize("flags", [0, 3])
def test_the_steps_of_a_ledger_cover_all_of_its_arrays(flags: int) -> None:
    items = 3 * fmt.LEDGER_STEP
    layout = fmt.LedgerLayout.of(items, flags)
    covered: set[int] = set()
    for step in range(3):
        for at, length in layout.step(step):
            assert at % fmt.PAGE == 0 == length % fmt.PAGE
            pages = set(range(at, at + length, fmt.PAGE))
            assert not covered & pages
            covered |= pages
    assert covered == set(range(fmt.PAGE, layout.total, fmt.PAGE))


def test_the_places_in_the_open_batch_follow_each_other() -> None:
    assert fmt.ENDS_AT + 4 * fmt.HALF_ITEMS <= fmt.RUNS_AT
    assert fmt.RUNS_AT + blocks.RUN.size * fmt.HALF_RUNS <= fmt.PAYLOAD_AT
    assert fmt.HALF_SIZE % fmt.PAGE == 0 == fmt.PAYLOAD_AT % fmt.PAGE


def test_a_queue_file_that_names_a_serializer_there_is_not_says_where() -> None:
    data = fmt.encode_queue_file("u", "queue", Settings()).replace(b"msgpack", b"msgpaCk")
    with pytest.raises(NotAQueueError, match=r"/here.*msgpaCk"):
        fmt.decode_queue_file(data, "/here")
