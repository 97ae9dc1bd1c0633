"""Every file of a queue and of a topic, damaged in every way, in every state of a segment; see `damage` for what has to be true after.

A sample with each run; the whole matrix with `-m torture`. The seed is new each day and is in the message of a failure, and in
SEGQ_SEED it can be given: a case is repeated with `python tests/crash/damage.py TEMPLATE PLACE KIND SEED CASE`.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import damage
import pytest

import segq
from segq._core.format import format as fmt

SEED = int(os.environ.get("SEGQ_SEED", time.time() // 86_400))
SHARES = 12  # of the matrix, each a test, so that workers share them
OFFSETS = int(os.environ.get("SEGQ_DAMAGES", "1"))  # for each kind of damage that depends on where it is done
SAMPLE = 8  # cases of each kind in the default suite


@pytest.fixture(scope="module", params=["queue", "topic"])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    path = tmp_path_factory.mktemp("template") / "queue"
    damage.build(path, request.param)
    yield path, request.param
    shutil.rmtree(path)


def endure(template: tuple[Path, str], place: Path, cases: list[damage.Case]) -> None:
    path, kind = template
    wrong = damage.ordeal(path, place, kind, SEED, cases)
    shutil.rmtree(place, ignore_errors=True)
    assert not wrong, f"{len(wrong)} of {len(cases)} cases went wrong (seed {SEED}):\n" + "\n".join(wrong[:10])


def test_a_sample_of_damages_loses_nothing_whole_and_stops_nobody(template: tuple[Path, str], tmp_path: Path) -> None:
    cases = [case for case in damage.every_case(template[1], 1) if case.state != "live"]
    endure(template, tmp_path / "place", random.Random(SEED).sample(cases, SAMPLE))


@pytest.mark.parametrize(
    "case",
    [
        "chosen:log:fifo:0",  # RocksDB waited at it for ever
        "chosen:CURRENT:device:0",  # and here it took all memory, and the process with it
        "queue:owners:gone:0",
        "queue:owner:gone:0",
        "chosen:ledger:gone:0",
        "ready:directory:linked:0",
    ],
)
def test_what_once_stopped_a_queue_for_good(template: tuple[Path, str], tmp_path: Path, case: str) -> None:
    if template[1] == "topic" and case != "chosen:ledger:gone:0":
        pytest.skip("as for queues")
    endure(template, tmp_path / "place", [damage.Case.parse(case)])


@pytest.mark.torture
@pytest.mark.parametrize("share", range(SHARES))
def test_no_damage_loses_what_is_whole_or_stops_anybody(template: tuple[Path, str], tmp_path: Path, share: int) -> None:
    endure(template, tmp_path / "place", damage.every_case(template[1], OFFSETS)[share::SHARES])


# --- nobody gets in ---------------------------------------------------------------------------------------------------


class Bomb:
    """Says so when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.place),))


def switch_to_pickle(path: Path) -> None:
    file = path / "queue.json"
    file.write_text(file.read_text().replace('"raw"', '"pickle"').replace('"msgpack"', '"pickle"'))


def test_a_queue_json_that_says_pickle_does_not_make_a_handle_of_another_serializer_unpickle(tmp_path: Path) -> None:
    import pickle

    path, crater = tmp_path / "queue", tmp_path / "crater"
    bomb = pickle.dumps(Bomb(crater))
    with segq.Queue(path, serializer="raw") as q:
        q.put_many([bomb, bomb])
        switch_to_pickle(path)
        assert q.get(timeout=5) == bomb  # open already: its settings are those it was opened with
        with pytest.raises(segq.SettingsConflict, match="serializer"):
            segq.Queue(path, serializer="raw")  # says what it expects
    os.chmod(path, 0o770)
    with pytest.raises(segq.UnsafeDirectoryError):
        segq.Queue(path)  # where others can write, nobody unpickles
    assert not crater.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused_for_pickle_and_works_without(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    segq.Queue(path).close()
    os.chown(path, 12345, 12345)
    switch_to_pickle(path)
    with pytest.raises(segq.UnsafeDirectoryError, match="12345"):
        segq.Queue(path)
    file = path / "queue.json"
    file.write_text(file.read_text().replace('"pickle"', '"msgpack"'))
    with segq.Queue(path) as q:
        q.put(1)
        assert q.get(timeout=5) == 1


def test_a_queue_that_lost_its_queue_json_is_refused_and_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with segq.Queue(path, serializer="raw", segment_items=10) as q:
        q.put_many([b"x"] * 10)
    (path / "queue.json").unlink()
    before = damage.contents(path)
    for call in (segq.Queue, segq.Topic, segq.check, segq.remove):
        with pytest.raises(segq.NotAQueueError):
            call(path)
    assert damage.contents(path) == before


def test_a_producer_whose_owners_file_was_deleted_keeps_its_segment(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with segq.Queue(path) as producer:
        producer.put(1)
        for file in (path / "owners").iterdir():
            file.unlink()
        with segq.Queue(path) as other:  # took its segment away, and what was put then was lost
            producer.put(2)
            assert [other.get(timeout=5), other.get(timeout=5)] == [1, 2]
    with segq.Queue(path) as q:
        assert q.qsize() == 0


def test_a_ledger_that_lost_its_states_with_power_gives_its_items_again(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with segq.Queue(path, segment_items=20) as q:
        q.put_many(range(20))
        q.put(20)  # seals the first
        assert q.get_many(7) == list(range(7))
    (name,) = [name for name in os.listdir(path) if name.startswith("chosen_")]
    with (path / name / "ledger").open("r+b") as file:  # `next` reached the disk, the page of states did not
        file.seek(4096)
        file.write(bytes(4096))
    with segq.Queue(path) as q:
        assert sorted(q.get_many(100, timeout=5)) == list(range(21))


def test_an_open_batch_that_claims_to_begin_earlier_does_not_take_the_place_of_whole_blocks(
    template: tuple[Path, str], tmp_path: Path
) -> None:
    if template[1] != "queue":
        pytest.skip("as for queues")
    path = tmp_path / "queue"
    shutil.copytree(template[0], path)
    (name, _) = [name for name in sorted(os.listdir(path)) if name.startswith("loading_")]
    with (path / name / "batch").open("r+b") as file:
        for half in (0, fmt.HALF_SIZE):
            file.seek(half + 8)
            if int.from_bytes(file.read(8), "little") == 26:
                file.seek(half + 8)
                file.write(bytes(8))
    with segq.Queue(path) as q:
        found = [damage.identity_of(value) for value in q.get_many(1000, timeout=5)]
    assert [identity for identity in found if identity.startswith("loading0")] == damage.IDS["loading0"][:26]
    assert [reason.stem for reason in (path / "quarantine").glob("*.reason")].count("batch") == 1


EVERY_TYPE = """
import faulthandler, os, shutil, sys
from segq._core.segment import rocksdb
from segq._core.base.errors import QueueError
place, copy, pattern = sys.argv[1:4]
(name,) = [name for name in os.listdir(place) if name.startswith(pattern) or name.endswith(pattern)]
shutil.copytree(place, copy)
with open(os.path.join(place, name), "rb") as file:
    data = file.read()
at = 0
for _ in range(3):
    for kind in (*range(14), 65, 128, 129, 130, 131, 132, 133, 255):
        with open(os.path.join(copy, name), "wb") as file:
            file.write(data[: at + 6] + bytes([kind]) + data[at + 7 :])
        faulthandler.dump_traceback_later(30, exit=True)
        try:
            reader = rocksdb.SegmentReader(copy, None)
            reader.end()
            reader.close()
        except QueueError:
            continue
    at += 7 + int.from_bytes(data[at + 4 : at + 6], "little")
    if at + 7 > len(data):
        break
print("all")
"""


@pytest.mark.parametrize("pattern", ["MANIFEST-", ".log"])
def test_a_record_of_any_type_is_read_in_a_bounded_time(template: tuple[Path, str], tmp_path: Path, pattern: str) -> None:
    if template[1] == "topic":
        pytest.skip("as for queues")
    (name, _) = [name for name in sorted(os.listdir(template[0])) if name.startswith("ready_")]
    command = [sys.executable, "-c", EVERY_TYPE, str(template[0] / name), str(tmp_path / "copy"), pattern]
    environment = os.environ | {"PYTHONPATH": str(damage.ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, timeout=300)
    assert done.stdout == "all\n", done.stderr[-3000:]


@pytest.mark.torture
def test_a_fuzzer_finds_nothing_in_a_minute(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed (pip install 'segq[fuzz]')")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    script = Path(__file__).parents[1] / "fuzz" / "fuzz_files.py"
    command = [
        sys.executable,
        str(script),
        "-max_total_time=60",
        "-rss_limit_mb=2048",
        "-timeout=20",
        "-max_len=20000",
        str(corpus),
    ]
    environment = os.environ | {"PYTHONPATH": str(damage.ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", env=environment, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "DONE" in done.stderr
    print(done.stderr[-300:])
