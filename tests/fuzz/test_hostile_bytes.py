"""Hostile bytes in every file: what reads them raises segq's errors only, and takes memory in proportion to the file."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segq._core.base.errors import DamagedError, FormatVersionError, NotAQueueError, StorageError
from segq._core.directory.index import Index
from segq._core.directory.label import Label
from segq._core.directory.owners import record
from segq._core.format import blocks
from segq._core.format import format as fmt
from segq._core.format.format import IndexWord, LabelWord, LedgerFlag, LedgerLayout, LedgerWord
from segq._core.segment.batch import BatchReader
from segq._core.segment.blob import BlobReader
from segq._core.segment.ledger import Ledger

WORD = st.one_of(
    st.sampled_from([0, 1, 2, 100, 4096, fmt.MOST_ITEMS, fmt.MOST_ITEMS + 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1]),
    st.integers(0, 2**64 - 1),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file"


# --- pure ---


@given(st.binary(min_size=8, max_size=8), st.integers(0, 9), st.integers(0, 40), st.integers(0, 3), st.binary(max_size=200))
def test_a_block_of_hostile_counts_is_refused_or_stays_within_its_bytes(
    key: bytes, runs: int, count: int, flags: int, rest: bytes
) -> None:
    whole = blocks.HEADER.pack(blocks.MAGIC, blocks.VERSION, flags, runs, count, 0) + rest
    try:
        block = blocks.decode(key, whole)
        items = block.items(block.first, block.first + block.count)
    except DamagedError:
        return
    assert len(items) == count
    assert sum(map(len, items)) <= len(rest)
    assert len(blocks.expiries(block.runs, block.count)) == count
    assert all(at <= fmt.NEVER for at in blocks.expiries(block.runs, block.count))
    blocks.put_time([(block.first, block.first, block.runs)], block.first)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.booleans(), st.binary(min_size=50, max_size=50))
def test_ends_that_go_back_are_damage_and_not_many_times_the_memory(ends: list[int], references: bool, payload: bytes) -> None:
    ends[-1] = 50
    header = blocks.HEADER.pack(blocks.MAGIC, blocks.VERSION, int(references), 0, len(ends), 0)
    block = blocks.decode(blocks.key(0), header + struct.pack(f"<{len(ends)}I", *ends) + payload)
    if ends == sorted(ends):
        assert b"".join(block.items(0, len(ends))) == payload
    else:
        with pytest.raises(DamagedError):
            block.items(0, len(ends))


def test_a_block_far_beyond_any_segment_is_refused() -> None:
    with pytest.raises(DamagedError):
        blocks.decode(blocks.key(2**60), blocks.encode(2**60, [b"x"], 1))


@given(JSON)
def test_any_json_for_queue_json_raises_only_the_two_errors(document: object) -> None:
    for whole in (document, {"segq": 1, "uuid": "u", "kind": "queue", "settings": document}):
        try:
            fmt.decode_queue_file(json.dumps(whole).encode(), "p")
        except (NotAQueueError, FormatVersionError):
            continue
        assert isinstance(document, dict)


LABEL = {"label": "x", "id": "0123abcd", "cut": 5, "starts": {"a": 1}}


@given(st.sampled_from([*LABEL, "other"]), JSON)
def test_any_json_for_a_label_raises_only_damaged_error(field: str, value: object) -> None:
    try:
        text, label_id, cut, starts = fmt.decode_label(json.dumps({**LABEL, field: value}).encode(), "p")
    except DamagedError:
        return
    assert (type(text), type(label_id), type(cut)) == (str, str, int)
    assert all(0 <= count <= fmt.MOST_ITEMS for count in starts.values())
    fmt.label_file(text)


@pytest.mark.parametrize(
    "starts", ["[]", '{"a": Infinity}', '{"a": NaN}', '{"a": -1}', '{"a": 1e99}', '{"a": true}', '{"a": 1000000000000}', "7"]
)
def test_a_labels_hostile_starts_are_damage(starts: str) -> None:
    with pytest.raises(DamagedError):
        fmt.decode_label(b'{"label": "x", "id": "0123abcd", "cut": 5, "starts": %s}' % starts.encode(), "p")


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"label": "\\ud800", "id": "0123abcd", "cut": 5, "starts": {}}', b"\xff"])
def test_a_labels_hostile_text_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedError):
        fmt.decode_label(data, "p")


@given(st.text(max_size=300))
def test_no_label_leads_out_of_its_directory(text: str) -> None:
    try:
        name = fmt.label_file(text)
    except UnicodeEncodeError:
        return
    assert "/" not in name
    assert name not in ("", ".", "..", fmt.UNFINISHED)
    assert len(name) < 200


# --- mapped ---


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(list(LedgerWord)[1:]), WORD, max_size=6),
    st.integers(0, 15),
    st.binary(max_size=60),
    st.data(),
)
def test_a_ledger_of_hostile_words_is_refused_or_can_be_worked_with(
    file: Path, words: dict[LedgerWord, int], flags: int, states: bytes, data: st.DataObject
) -> None:
    whole = bytearray(LedgerLayout.of(50, flags).total)
    given_words = {LedgerWord.MAGIC: fmt.LEDGER_MAGIC, LedgerWord.ITEMS: 50, LedgerWord.FLAGS: flags, LedgerWord.PUBLISHED: 40}
    for word, value in {**given_words, **words}.items():
        struct.pack_into("<Q", whole, 8 * word, value)
    whole[fmt.PAGE : fmt.PAGE + len(states)] = states
    file.write_bytes(whole[: data.draw(st.sampled_from([len(whole), len(whole), fmt.PAGE, 5000]))])
    try:
        ledger = Ledger.open(str(file))
    except DamagedError:
        return
    assert ledger.layout.total <= len(whole)
    ledger.put_right({3})
    ledger.lapse(10**12)
    freed = ledger.free_items(ledger.layout.items)
    assert ledger.waiting() == ledger.states[: ledger.published].tolist().count(0)
    claimed: list[int] = []
    for _ in range(ledger.layout.items + 10):
        ledger.seal()
        ledger.chosen()
        span = ledger.claim(7, 3)
        if span is None:
            break
        claimed += range(*span)
    assert set(freed) <= set(claimed) or LedgerFlag.EXPIRES & flags
    assert len(claimed) == len(set(claimed)) <= ledger.published
    assert ledger.release(3) == len(claimed)
    ledger.done_bytes(), ledger.reserved(), ledger.dead(), ledger.handed(), ledger.redelivered(), ledger.complete()
    ledger.close()


@settings(deadline=None)
@given(
    st.lists(WORD, min_size=7, max_size=7), st.binary(max_size=100), st.integers(0, 60), st.integers(1, 60), st.integers(0, 70)
)
def test_an_open_batch_of_hostile_words_gives_bounded_pieces_or_damaged_error(
    file: Path, words: list[int], ends: bytes, begin: int, count: int, published: int
) -> None:
    whole = bytearray(fmt.BATCH_SIZE)
    struct.pack_into("<7Q", whole, 0, *words)
    struct.pack_into("<Q", whole, fmt.HALF_SIZE, 1)
    whole[fmt.ENDS_AT : fmt.ENDS_AT + len(ends)] = ends
    file.write_bytes(whole)
    batch = BatchReader(str(file))
    try:
        found = batch.read(begin, begin + count, published)
        assert found is None or sum(map(len, found[0])) <= fmt.HALF_BYTES
    except DamagedError:
        pass
    for same_boot in (True, False):
        try:
            for first, stop, block in batch.unflushed(0, published, same_boot=same_boot):
                assert first < stop
                assert len(block) <= fmt.HALF_SIZE
        except DamagedError:
            pass
    batch.end_at(published)
    batch.has_unsettled_items(published)


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_hostile_reference_is_damage(file: Path, offset: int, length: int, checksum: int, checked: int) -> None:
    blob = file.with_name("blob")
    with blob.open("wb") as sparse:
        sparse.truncate(1 << 42)  # a length within it is more than any machine has
    reader = BlobReader(str(file.parent))
    reference = blocks.REFERENCE.pack(offset % (1 << 42), length | 1 << 31, checksum, checked)
    with pytest.raises(DamagedError):
        reader.read(reference)
    with pytest.raises(DamagedError):
        reader.read(reference[: checked % 24])
    reader.close()


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(IndexWord), WORD, max_size=8))
def test_an_index_of_hostile_words_can_be_worked_with(file: Path, words: dict[IndexWord, int]) -> None:
    whole = bytearray(fmt.INDEX_SIZE)
    for word, value in {IndexWord.MAGIC: fmt.INDEX_MAGIC, **words}.items():
        struct.pack_into("<Q", whole, 8 * word, value)
    file.with_name("index").write_bytes(whole)
    index = Index.open(str(file.parent))
    for word in (IndexWord.RESCUES, IndexWord.REDELIVERED, IndexWord.EXPIRED):
        index.add(word, 5)
    index.changing()
    index.changed()
    assert not index.generation & 1
    index.turn_to_rescue()
    index.items.ring()
    index.freed()
    index.close()


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(LabelWord), WORD, max_size=8), st.binary(max_size=50))
def test_a_label_of_hostile_words_is_refused_or_can_be_booked_on(file: Path, words: dict[LabelWord, int], tail: bytes) -> None:
    body = json.dumps(LABEL).encode()
    whole = bytearray(fmt.PAGE + 512)
    whole[fmt.PAGE : fmt.PAGE + len(body)] = body
    whole[-len(tail) :] = tail or whole[-512:]
    whole += bytes(-len(whole) % 8)
    for word, value in {LabelWord.MAGIC: fmt.LABEL_MAGIC, LabelWord.SIZE: len(body), **words}.items():
        struct.pack_into("<Q", whole, 8 * word, value)
    place = file.with_name("x")
    place.write_bytes(whole)
    index = Index.open(str(file.parent))
    try:
        label = Label.open(str(place), index)
    except DamagedError:
        return
    label.book(7, 5, 5)
    assert label.booked(7)
    assert label.settled == label.settled
    label.bell.ring()


def test_a_labels_file_under_another_labels_name_is_damage(file: Path) -> None:
    index = Index.open(str(file.parent))
    Label.create(str(file.with_name("mail")), "mail", "0123abcd", 0, {}, index, durable=False)
    os.rename(file.with_name("mail"), file.with_name("log"))
    with pytest.raises(DamagedError, match="another label"):
        Label.open(str(file.with_name("log")), index)


@pytest.mark.parametrize("size", [1 << 40, 1 << 62])
def test_a_mapped_file_larger_than_the_address_space_is_an_error_of_ours(file: Path, size: int) -> None:
    with file.open("wb") as sparse:
        sparse.write(struct.pack("<Q", fmt.LEDGER_MAGIC))
        try:
            sparse.truncate(size)
        except OSError as error:
            pytest.skip(f"no such file here: {error}")
    with pytest.raises((DamagedError, StorageError)):
        Ledger.open(str(file))


OWNER = {"pid": 1, "started": 1.0, "opened": 1.0, "command": "x"}


@settings(deadline=None)
@given(st.sampled_from([*OWNER]), JSON, st.binary(max_size=20))
def test_an_owners_file_may_say_anything(file: Path, field: str, value: object, noise: bytes) -> None:
    owners = file.with_name("owners")
    owners.mkdir(exist_ok=True)
    for data in (json.dumps({**OWNER, field: value}).encode(), noise, b"[" * 50_000):
        (owners / "0001").write_bytes(data)
        found = record(str(file.parent), 1)
        assert found is None or isinstance(found.pid, int)
