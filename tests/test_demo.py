"""`segq demo`: the account closes, with kills too, and does not close when anything at all is wrong."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_command import PATIENCE, environment, eventually, segq, started

import segq as library
from segq.cli.demo import corpus, hands, trails
from segq.cli.demo.account import Account, Reference

TEXT = b"one two\n\nthree\n"
Record = tuple[int, int, bytes]


# --- the whole of it ---


def test_every_line_of_the_standard_library_arrives_exactly_once() -> None:
    ended = segq("demo", "--limit", 60_000)
    assert ended.returncode == 0, ended.stdout.decode()
    assert b"The account closes: every line arrived exactly once." in ended.stdout
    assert re.search(rb"lines +60,000 +60,000 +ok", ended.stdout)
    assert re.search(rb"repeated +0 +ok", ended.stdout)


def test_every_line_arrives_although_processes_are_killed() -> None:
    ended = segq("demo", "--limit", 150_000, "--kills", 6, "--producers", 2, "--workers", 2)
    assert ended.returncode == 0, ended.stdout.decode()
    killed = re.search(rb"The account closes: (\d+) processes were killed", ended.stdout)
    assert killed is not None, ended.stdout.decode()
    assert int(killed[1]) >= 3
    assert re.search(rb"lines +150,000 +150,000 +ok", ended.stdout)


def test_a_run_that_is_cut_short_accounts_for_what_was_put() -> None:
    ended = segq("demo", "--limit", 300_000, "--seconds", 0.5, "--kills", 2)
    assert ended.returncode == 0, ended.stdout.decode()
    assert b"The account closes" in ended.stdout


def test_any_files_can_be_read_and_the_queue_kept(tmp_path: Path) -> None:
    text, queue = tmp_path / "text", tmp_path / "queue"
    text.mkdir()
    (text / "a").write_bytes(TEXT * 1000)
    (text / "b").write_bytes(b"\xff\x00 no newline at the end")
    (text / "empty").touch()
    ended = segq("demo", text, "--queue", queue, "--producers", 3, "--workers", 1)
    assert ended.returncode == 0, ended.stdout.decode()
    assert re.search(rb"lines +3,001 +3,001 +ok", ended.stdout)
    assert library.check(queue).ok
    with library.Queue(queue, create=False) as kept:
        assert kept.stats().items == 0
        kept.put(b"still in use")


def test_a_queue_that_holds_items_is_refused_and_keeps_them(tmp_path: Path) -> None:
    with library.Queue(tmp_path / "queue", serializer="raw") as queue:
        queue.put(b"mine")
        ended = segq("demo", "--limit", 100, "--queue", tmp_path / "queue")
        assert ended.returncode == 1
        assert b"holds items" in ended.stderr
        assert queue.get() == b"mine"


def test_ctrl_c_ends_all_processes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with started("demo", stdin=None, env=environment(TMPDIR=str(tmp_path)), start_new_session=True) as demo:
        eventually(lambda: any(tmp_path.glob("segq-demo-*/worker-*")))
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
        _, err = demo.communicate(timeout=PATIENCE)  # also waits until every child has closed its end
    assert demo.returncode == 130
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# --- the account ---


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    (tmp_path / "text").write_bytes(TEXT)
    return Reference.of([str(tmp_path / "text")])


def noted(directory: Path, records: list[Record]) -> str:
    """A directory of trails in which a worker noted these results."""
    directory.mkdir()
    with trails.Trail(str(directory), "worker", 0, 1) as trail:
        trail.add(b"".join(corpus.IDENTITY.pack(file, line) + measure for file, line, measure in records))
    return str(directory)


def right() -> list[Record]:
    return [(0, number, corpus.measured(line)) for number, line in enumerate(TEXT.split(b"\n")[:-1])]


def test_the_account_closes_when_every_result_is_there_once(tmp_path: Path, reference: Reference) -> None:
    account = Account.of(reference, noted(tmp_path / "trails", right()), allowed=0)
    assert account.closes
    assert (account.found.lines, account.found.words) == (3, 3)


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda records: records.pop(1), "lost"),
        (lambda records: records.append(records[0]), "again"),
        (lambda records: records.__setitem__(1, (0, 1, records[0][2])), "wrong"),
        (lambda records: records.append((0, 3, records[0][2])), "invented"),
        (lambda records: records.append((1, 0, records[0][2])), "invented"),
    ],
    ids=["lost", "twice", "wrong", "line that never was", "file that never was"],
)
def test_the_account_does_not_close_when_a_result_is(
    tmp_path: Path, reference: Reference, spoil: Callable[[list[Record]], object], field: str
) -> None:
    records = right()
    spoil(records)
    account = Account.of(reference, noted(tmp_path / "trails", records), allowed=0)
    assert getattr(account, field) == 1
    assert not account.closes


def test_repetitions_are_forgiven_only_as_far_as_kills_explain_them(tmp_path: Path, reference: Reference) -> None:
    account = Account.of(reference, noted(tmp_path / "trails", right() * 2), allowed=3)
    assert account.again == 3
    assert account.closes
    assert not dataclasses.replace(account, allowed=2).closes


def test_a_torn_record_at_the_end_of_a_trail_counts_for_nothing(tmp_path: Path, reference: Reference) -> None:
    directory = noted(tmp_path / "trails", right())
    with trails.Trail(directory, "worker", 0, 2) as trail:
        trail.add(b"torn")
    assert Account.of(reference, directory, allowed=0).closes
    assert trails.results_noted(directory) == 3


def test_only_what_was_put_is_expected_of_a_run_cut_short(tmp_path: Path) -> None:
    paths = []
    for name in "abc":
        (tmp_path / name).write_bytes(TEXT)
        paths.append(str(tmp_path / name))
    reference = Reference.of(paths)
    share = reference.sources
    cut = reference.until([(share, trails.Position(1, 2, 5))])
    assert [source.lines for source in cut.sources] == [3, 2, 0]
    assert cut.total().lines == 5
    assert reference.until([(share, trails.Position(3, 0, 9))]).total() == reference.total()


def test_a_producer_goes_on_from_the_last_position_noted_by_any_of_its_lives(tmp_path: Path) -> None:
    for life, put in ((1, 3), (2, 5)):
        with trails.Trail(str(tmp_path), "producer", 7, life) as trail:
            trail.add(trails.Position(0, put, put).packed())
    with trails.Trail(str(tmp_path), "producer", 7, 3):
        pass
    assert trails.last_position(str(tmp_path), 7) == (0, 5, 5)
    assert trails.last_position(str(tmp_path), 70) == (0, 0, 0)


def test_the_same_position_always_gives_the_same_batches(tmp_path: Path) -> None:
    paths = []
    for name in "abc":
        (tmp_path / name).write_bytes(TEXT * 300)
        paths.append(str(tmp_path / name))
    share = Reference.of(paths).sources
    whole = list(hands._batches(share, 0, 0))
    assert [len(items) for items, _, _ in whole] == [1000, 1000, 700]
    _, place, line = whole[0]
    assert list(hands._batches(share, place, line)) == whole[1:]


def test_text_appended_after_the_start_takes_no_part(tmp_path: Path) -> None:
    text = tmp_path / "log"
    text.write_bytes(TEXT + b"begun")
    source = Reference.of([str(text)]).sources[0]
    with text.open("ab") as file:
        file.write(b" and ended\nmore\n")
    assert list(corpus.lines_of(source.path, source.size)) == [b"one two", b"", b"three", b"begun"]
