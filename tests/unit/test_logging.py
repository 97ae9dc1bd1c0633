"""What the library says through `logging`: nothing unless somebody listens, and then with fields that programs can read."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from actors import Child

import segq


def fields(caplog: pytest.LogCaptureFixture, event: str) -> dict[str, object]:
    """Those of the only record of that kind."""
    (record,) = [record for record in caplog.records if getattr(record, "event", None) == event]
    assert record.name == "segq"
    return record.__dict__


def test_a_seal_says_which_segment_and_how_many_items(queue_path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "segq"):
        with segq.Queue(queue_path) as q:
            q.put_many(range(5))
        said = fields(caplog, "seal")
    assert (said["queue"], said["items"], said["levelname"]) == (queue_path, 5, "DEBUG")
    assert [str(said["segment"])] == [name for name in os.listdir(queue_path) if name.startswith("ready_")]


def test_a_rescue_says_of_whom_and_what(queue_path: str, caplog: pytest.LogCaptureFixture) -> None:
    with Child("q.put_many([1, 2]); m = q.receive(); say('holds'); wait()", queue_path) as child:
        assert child.hear() == "holds"
        child.kill()
    segq.Queue(queue_path).close()
    said = fields(caplog, "rescue")
    assert (said["queue"], said["pid"], said["segments"], said["items"]) == (queue_path, child.process.pid, 1, 1)
    assert said["levelname"] == "WARNING"


def test_what_goes_to_quarantine_is_said_with_its_place_and_the_reason(
    queue_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with segq.Queue(queue_path, serializer="json") as q:
        q._producer._dumps = lambda item: item
        q.put_many([b"{not json", b"1"])
        assert q.get() == 1
    said = fields(caplog, "quarantine")
    assert said["queue"] == queue_path
    assert Path(str(said["place"])).read_bytes() == b"{not json"
    assert "cannot be decoded" in str(said["reason"])
    assert said["levelname"] == "ERROR"


def test_nothing_is_printed_unless_somebody_listens(queue_path: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Child("q.put(1); say('put'); wait()", queue_path) as child:
        assert child.hear() == "put"
        child.kill()
    with Child("q.get(); say(q.stats().rescues)", queue_path) as child:
        assert child.hear() == "1"
        child.ends()
    assert capfd.readouterr().err == ""
