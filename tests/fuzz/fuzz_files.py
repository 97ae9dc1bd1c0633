"""For atheris: what reads segq's files gets any bytes, and raises segq's errors only. `python fuzz_files.py -max_total_time=60`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=[
        "segq._core.format.format",
        "segq._core.segment.ledger_view",
        "segq._core.segment.ledger",
        "segq._core.segment.batch",
        "segq._core.directory.label",
        "segq._core.base.settings",
        "segq._core.segment.wal",
    ]
):
    from segq._core.directory.index import Index
    from segq._core.directory.label import Label
    from segq._core.format import blocks
    from segq._core.format import format as fmt
    from segq._core.segment.batch import BatchReader
    from segq._core.segment.ledger import Ledger
    from segq._core.segment.wal import WalReader

from segq._core.base.errors import DamagedError, FormatVersionError, NotAQueueError

PLACE = Path(tempfile.mkdtemp())
INDEX = Index.open(str(PLACE))


def a_block(data: bytes) -> None:
    block = blocks.decode(data[:8], b"SB\x01" + data[8:])
    block.items(block.first, block.first + block.count)
    blocks.expiries(block.runs, block.count)
    blocks.put_time([(block.first, block.first, block.runs)], block.first)


def a_queue_file(data: bytes) -> None:
    fmt.decode_queue_file(data, "p")


def a_label(data: bytes) -> None:
    fmt.label_file(fmt.decode_label(data, "p")[0])


def names(data: bytes) -> None:
    text = os.fsdecode(data)
    fmt.parse_segment(text)
    fmt.parse_slot(text)


def a_ledger(data: bytes) -> None:
    place = PLACE / "ledger"
    header = fmt.LEDGER_MAGIC.to_bytes(8, "little") + data[:240]
    place.write_bytes(header.ljust(fmt.PAGE, b"\0") + data[240:].ljust(24 * fmt.PAGE, b"\0"))
    ledger = Ledger.open(str(place))
    try:
        ledger.put_right({3})
        ledger.lapse(1 << 40)
        for _ in range(20):
            ledger.claim(9, 3)
        ledger.release(3)
        ledger.waiting(), ledger.done_bytes(), ledger.complete(), ledger.free_items(9)
    finally:
        ledger.close()


def a_batch(data: bytes) -> None:
    place = PLACE / "batch"
    with place.open("wb") as file:
        file.truncate(fmt.BATCH_SIZE)
        file.write(data)
    batch = BatchReader(str(place))
    batch.read(data[0] if data else 0, 60, 50)
    batch.unflushed(0, 60, same_boot=True)
    batch.has_unsettled_items(60)


def a_log(data: bytes) -> None:
    place = PLACE / "segment"
    place.mkdir(exist_ok=True)
    (place / "000004.log").write_bytes(data)
    reader = WalReader.open(str(place))
    assert reader is not None
    reader.block(data[0] if data else 0)
    reader.next_block(0)


def a_labels_file(data: bytes) -> None:
    place = PLACE / "x"
    header = fmt.LABEL_MAGIC.to_bytes(8, "little") + data[:240]
    place.write_bytes(header.ljust(fmt.PAGE, b"\0") + data[240:].ljust(1024 - len(data) % 8, b"\0"))
    Label.open(str(place), INDEX).book(1, 2, 3)


READERS: list[Callable[[bytes], None]] = [a_block, a_queue_file, a_label, names, a_ledger, a_batch, a_log, a_labels_file]


def one(data: bytes) -> None:
    if data:
        try:
            READERS[data[0] % len(READERS)](data[1:])
        except (DamagedError, NotAQueueError, FormatVersionError):
            pass


atheris.Setup(sys.argv, one)
atheris.Fuzz()
