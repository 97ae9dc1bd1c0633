"""What an earlier version wrote, today's code opens and delivers exactly."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import make
import pytest

import segq

ARCHIVES = sorted(Path(__file__).parent.glob("v*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda archive: archive.name)
def written(request: pytest.FixtureRequest, queue_path: str) -> str:
    """A copy of the queue as it was left behind."""
    with tarfile.open(request.param) as archive:
        archive.extractall(Path(queue_path).parent, filter="data")
    Path(queue_path).chmod(0o700)
    return queue_path


def delivered(path: str) -> list[tuple[Any, int]]:
    """Everything, with its delivery number."""
    found: list[tuple[Any, int]] = []
    with segq.Queue(path, create=False) as q:
        while True:
            try:
                m = q.receive(timeout=0.2)
            except segq.Empty:
                return found
            found.append((m.value, m.deliveries))
            m.ack()


def assert_delivered(found: list[tuple[Any, int]]) -> None:
    counts = Counter((str(item), make.DELIVERIES.get(str(item), 1)) for item in make.EXPECTED)
    assert Counter((str(item), number) for item, number in found) == counts


def test_there_is_an_archive() -> None:
    assert ARCHIVES
    assert all(archive.stat().st_size < 200_000 for archive in ARCHIVES)


def test_its_settings_and_counts_are_read(written: str) -> None:
    with segq.Queue(written, create=False) as q:
        assert q.settings.capacity == 1000
        assert q.settings.segment_items == 8
        assert q.qsize() == len(make.EXPECTED)
        assert q.stats().items == len(make.EXPECTED)


def test_every_item_that_was_not_done_is_delivered_and_no_other(written: str) -> None:
    assert_delivered(delivered(written))


def test_it_can_be_added_to(written: str) -> None:
    with segq.Queue(written) as q:
        q.put("new")
        assert q.qsize() == len(make.EXPECTED) + 1
    found = delivered(written)
    assert ("new", 1) in found
    assert_delivered([pair for pair in found if pair[0] != "new"])


def test_check_mends_what_the_dead_left_and_the_items_stay(written: str) -> None:
    assert not segq.check(written).ok
    assert segq.check(written, fix=True).ok
    assert_delivered(delivered(written))


def test_what_is_written_today_is_what_the_archive_holds(queue_path: str) -> None:
    """So that the script and the archive do not drift apart unnoticed."""
    make.make(queue_path)
    assert_delivered(delivered(queue_path))
