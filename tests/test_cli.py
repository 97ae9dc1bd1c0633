"""The command as a whole, and the verbs for upkeep: help, exit codes, stats, check, purge, rm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_command import environment, segq, started

import segq as library

VERBS = ["put", "get", "work", "stats", "labels", "peek", "purge", "check", "salvage", "rm", "demo"]


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    path = tmp_path / "queue"
    with library.Queue(path, capacity=1000) as target:
        target.put_many(["a", "b", "c"])
    return path


def test_help_names_every_verb_and_the_exit_codes() -> None:
    shown = segq("--help").stdout.decode()
    assert all(f"\n  {verb} " in shown for verb in VERBS)
    assert "Exit codes" in shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    ended = segq(verb, "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"Usage: segq {verb} ".encode())


def test_help_imports_no_verb_and_no_rich() -> None:
    code = (
        "import sys\nfrom segq.cli.program import run\nassert run(['--help']) == 0\n"
        "sys.exit(' '.join(n for n in sys.modules if n == 'rich' or n.startswith(('segq.cli.put', 'segq.cli.demo'))))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=environment())
    assert ended.stderr == b"\n"


def test_an_unknown_verb_is_wrong_usage() -> None:
    ended = segq("putt")
    assert ended.returncode == 2
    assert b"No such command 'putt'" in ended.stderr


def test_stats_shows_what_is_stored_and_who_has_the_queue_open(queue: Path, tmp_path: Path) -> None:
    script = f"echo held; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    with started("get", queue, "--max", "1", "--ack-after", "--", "sh", "-c", script) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        shown = segq("stats", queue).stdout.decode()
        (tmp_path / "go").touch()
        assert holder.wait() == 0
    rows = {line.split("  ")[0].strip(): line for line in shown.splitlines() if line}
    assert "3 items" in rows["stored"]
    assert "1,000 items" in rows["capacity"]
    assert str(holder.pid) in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_stats_as_json_is_one_object(queue: Path) -> None:
    stats = json.loads(segq("stats", queue, "--json").stdout)
    assert (stats["items"], stats["waiting"], stats["claimed"], stats["capacity"]) == (3, 3, 0, 1000)
    assert stats["segments"].keys() == {"loading", "ready", "chosen"}


def test_check_of_a_sound_queue_exits_with_0(queue: Path) -> None:
    ended = segq("check", queue)
    assert (ended.returncode, ended.stdout) == (0, b"no problems\n")
    nothing = {"ok": True, "errors": 0, "notes": 0, "fixed": 0, "problems": [], "quarantine": []}
    assert json.loads(segq("check", queue, "--json").stdout) == {"queue": str(queue), **nothing}


def test_check_names_what_a_killed_process_left_and_fix_mends_it(queue: Path) -> None:
    with started("get", queue, "--max", "1", "--ack-after", "--", "sh", "-c", "echo held; kill -9 $PPID") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.wait()
    found = segq("check", queue)
    assert found.returncode == 1
    assert b"died with the queue open" in found.stdout
    assert found.stdout.startswith(b"note: owners/0001: process ")
    assert found.stdout.endswith(b"1 note (heals at the next open); `segq check --fix` repairs what can be repaired\n")
    mended = segq("check", queue, "--fix")
    assert (mended.returncode, mended.stdout.splitlines()[-1]) == (0, b"1 fixed, none left")
    assert segq("check", queue).stdout == b"no problems\n"
    assert sorted(segq("get", queue).stdout.split()) == [b"a", b"b", b"c"]


def test_check_exits_with_1_while_a_problem_remains_that_it_cannot_fix(queue: Path) -> None:
    (queue / "holiday.jpg").touch()
    left = segq("check", queue, "--fix")
    assert left.returncode == 1
    assert b"holiday.jpg" in left.stdout
    assert b"0 fixed, 1 left" in left.stdout
    report = json.loads(segq("check", queue, "--json").stdout)
    assert not report["ok"]
    (problem,) = report["problems"]
    assert problem.keys() == {"kind", "severity", "where", "what", "remedy", "fixed"}
    assert (problem["kind"], problem["severity"], problem["where"]) == ("foreign", "error", "holiday.jpg")
    assert (report["errors"], report["notes"], report["fixed"]) == (1, 0, 0)
    assert (queue / "holiday.jpg").exists()


def test_check_tells_what_is_in_quarantine_and_salvage_reads_it(queue: Path, tmp_path: Path) -> None:
    (segment,) = queue.glob("ready_*")
    (segment / "CURRENT").unlink()
    found = segq("check", queue)
    assert found.returncode == 1
    assert b"3 of its 3 items cannot be read" in found.stdout
    mended = segq("check", queue, "--fix")
    assert mended.returncode == 0
    assert b"1 fixed, none left" in mended.stdout
    assert f"in quarantine: {segment.name}".encode() in segq("check", queue).stdout
    (entry,) = json.loads(segq("check", queue, "--json").stdout)["quarantine"]
    assert entry.keys() == {"name", "reason", "bytes"}
    told = segq("salvage", queue / "quarantine" / entry["name"], tmp_path / "out")
    assert (told.returncode, told.stdout.splitlines()[-1]) == (
        0,
        f"3 items read to {tmp_path}/out; none acknowledged before; none unreadable".encode(),
    )
    assert segq("get", tmp_path / "out").stdout == b"a\nb\nc\n"


def test_check_as_json_of_what_cannot_be_examined_names_salvage(queue: Path) -> None:
    (queue / "queue.json").write_text('{"segq": 2}')
    told = segq("check", queue, "--json")
    (problem,) = json.loads(told.stdout)["problems"]
    assert (told.returncode, problem["kind"]) == (1, "queue")
    assert "version 2" in problem["what"]
    (queue / "queue.json").unlink()
    lost = segq("check", queue)
    assert lost.returncode == 1
    assert b"segq salvage" in lost.stderr


@pytest.mark.parametrize(
    ("option", "printed"),
    [("--lines", b"a\nb\n\xff\n[1]\n"), ("--null", b"a\0b\0\xff\0[1]\0"), ("--json", b'"a"\n"b"\n{"base64": "/w=="}\n[1]\n')],
)
def test_salvage_prints_as_get_does_and_leaves_the_queue_as_it_is(tmp_path: Path, option: str, printed: bytes) -> None:
    path = tmp_path / "queue"
    with library.Queue(path) as target:
        target.put_many(["a", "b", b"\xff", [1]])
    shown = segq("salvage", option, path, "-")
    assert (shown.returncode, shown.stdout) == (0, printed)
    assert b"4 items read to standard output" in shown.stderr
    assert segq("salvage", option, path, tmp_path / "file").returncode == 0
    assert (tmp_path / "file").read_bytes() == printed
    again = segq("salvage", option, path, tmp_path / "file")
    assert again.returncode == 1
    assert b"exists" in again.stderr
    with library.Queue(path) as target:
        assert target.qsize() == 4


def test_salvage_exits_with_1_when_some_items_cannot_be_read(queue: Path, tmp_path: Path) -> None:
    (segment,) = queue.glob("ready_*")
    for log in segment.glob("*.log"):
        log.unlink()
    told = segq("salvage", queue, tmp_path / "out")
    assert (told.returncode, told.stdout.splitlines()[-1]) == (
        1,
        f"0 items read to {tmp_path}/out; none acknowledged before; 3 unreadable".encode(),
    )


def test_salvage_says_what_is_wrong_usage(queue: Path) -> None:
    for arguments in ((queue, "-"), (queue / "nowhere", "out"), ("--json", "--null", queue, "-"), (queue,)):
        assert segq("salvage", *arguments).returncode == 2


def test_rm_refuses_a_queue_that_somebody_has_open(queue: Path) -> None:
    with library.Queue(queue, create=False) as held:
        refused = segq("rm", queue, "--yes")
        assert refused.returncode == 1
        assert refused.stderr.startswith(b"segq: error: ")
        assert held.qsize() == 3


def test_purge_asks_first_and_throws_away_what_waits(queue: Path) -> None:
    refused = segq("purge", queue, stdin=b"n\n")
    assert refused.returncode == 1
    assert b"3 items" in refused.stderr
    assert segq("peek", queue).stdout == b"a\n"
    ended = segq("purge", queue, "--yes")
    assert (ended.returncode, ended.stdout) == (0, b"3 items thrown away\n")
    assert segq("peek", queue).returncode == 3


def test_rm_asks_first_and_removes_the_directory(queue: Path) -> None:
    assert segq("rm", queue, stdin=b"n\n").returncode == 1
    assert queue.exists()
    assert segq("rm", queue, stdin=b"y\n").returncode == 0
    assert not queue.exists()


@pytest.mark.parametrize("verb", ["get", "peek", "stats", "purge", "check", "rm", "work"])
def test_a_directory_that_is_no_queue_is_refused_and_left_alone(tmp_path: Path, verb: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("thesis")
    more = ["--yes"] if verb in ("purge", "rm") else ["--", "true"] if verb == "work" else []
    ended = segq(verb, tmp_path, *more)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"segq: error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
