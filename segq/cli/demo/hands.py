"""The two kinds of process of the demo. Either may be killed at any instruction and started again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import segq
from segq.cli import reports
from segq.cli.demo import trails
from segq.cli.demo.corpus import IDENTITY, Source, lines_of, measured
from segq.cli.worker import Stop

PUT_LINES = 1000  # lines in one put_many; also what a killed producer may put twice
PUT_BYTES = 1 << 20  # for files with very long lines
TAKE_LINES = 500  # lines in one receive_many; also what a killed worker may do twice
PATIENCE = 0.5  # seconds between two looks at whether to end


def producer(  # positional: they travel through multiprocessing
    queue: str, directory: str, number: int, life: int, share: Sequence[Source], deadline: float | None
) -> None:
    """Puts the lines of its share, from where its predecessors in this place were known to be.

    The position is noted after `put_many` returned. A death in between lets the successor put one batch twice, never
    leave one out. The deadline (`time.time()`) is looked at only after a batch was noted, so that a batch which was put
    but not noted is put again and noted, even when the time is over.
    """
    stop = Stop()
    reports.to_stderr(logging.ERROR)
    begin = trails.last_position(directory, number)
    put = begin.put
    with segq.Queue(queue, create=False) as target, trails.Trail(directory, "producer", number, life) as trail:
        for items, place, line in _batches(share, begin.place, begin.line):
            if not _put(target, items, stop):
                return
            put += len(items)
            trail.add(trails.Position(place, line, put).packed())
            if deadline is not None and time.time() > deadline:
                return


def _put(target: segq.Queue, items: list[bytes], stop: Stop) -> bool:
    """Waits for room as long as it takes; False when this process shall end instead."""
    while not stop:
        try:
            target.put_many(items, timeout=PATIENCE)
        except segq.Full:
            continue
        return True
    return False


def _batches(share: Sequence[Source], place: int, line: int) -> Iterator[tuple[list[bytes], int, int]]:
    """Items to put at once, and the position behind them. The same position always gives the same batches."""
    batch: list[bytes] = []
    size = 0
    for here, source in enumerate(share):
        if here < place:
            continue
        first = line if here == place else 0
        for number, text in enumerate(islice(lines_of(source.path, source.size), source.lines)):
            if number < first:
                continue
            batch.append(IDENTITY.pack(source.number, number) + text)
            size += len(text)
            if len(batch) == PUT_LINES or size >= PUT_BYTES:
                yield batch, here, number + 1
                batch, size = [], 0
    if batch:
        yield batch, len(share), 0


def worker(queue: str, directory: str, number: int, life: int) -> None:
    """Takes lines, works on them, notes the results, and only then acknowledges.

    A death before the note leaves nothing and the lines go to somebody else; a death between note and acknowledgement
    lets them be noted twice. What is noted but never was in the queue, or is lost, would show in the account.
    """
    stop = Stop()
    reports.to_stderr(logging.ERROR)
    with segq.Queue(queue, create=False) as source, trails.Trail(directory, "worker", number, life) as trail:
        while not stop:
            try:
                messages = source.receive_many(TAKE_LINES, timeout=PATIENCE)
            except segq.Empty:
                continue
            trail.add(b"".join([_result(message.value) for message in messages]))
            for message in messages:
                message.ack()


def _result(item: bytes) -> bytes:
    return item[: IDENTITY.size] + measured(item[IDENTITY.size :])
