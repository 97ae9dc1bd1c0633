"""`segq put`, `get` and `peek`: what goes in comes out, in pipes too, and nothing is lost on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from cli_command import PATIENCE, eventually, segq, started

import segq as library


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "queue"


def held(queue: Path) -> list[object]:
    """Everything in the queue, in order, left there."""
    with library.Queue(queue, create=False) as source:
        return source.peek(10_000_000)


# --- in ---


def test_every_line_of_stdin_becomes_an_item(queue: Path) -> None:
    assert segq("put", queue, stdin="eins\n\n  zwei \ndrei: ü".encode()).returncode == 0
    assert held(queue) == ["eins", "", "  zwei ", "drei: ü"]


def test_a_line_that_is_not_utf8_survives_as_bytes(queue: Path) -> None:
    segq("put", queue, stdin=b"fine\n\xff\xfe\n")
    assert held(queue) == ["fine", b"\xff\xfe"]
    assert segq("get", queue).stdout == b"fine\n\xff\xfe\n"


def test_a_line_longer_than_many_reads_is_one_item(queue: Path) -> None:
    line = b"x" * 5_000_000
    segq("put", queue, stdin=b"a\n" + line + b"\nb\n")
    assert segq("get", queue).stdout == b"a\n" + line + b"\nb\n"


def test_arguments_become_items(queue: Path) -> None:
    assert segq("put", queue, "one", "two words", "--", "-x").returncode == 0
    assert held(queue) == ["one", "two words", "-x"]


def test_files_are_read_line_by_line_or_whole(queue: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"1\n2\n")
    second.write_bytes(b"3")
    segq("put", queue, "--file", first, "--file", second)
    segq("put", queue, "--file", first, "--file", second, "--whole")
    assert held(queue) == ["1", "2", "3", "1\n2\n", "3"]


def test_a_binary_file_goes_through_a_raw_queue_unchanged(queue: Path) -> None:
    blob = bytes(range(256)) * 1000
    assert segq("put", queue, "--serializer", "raw", "--whole", stdin=blob).returncode == 0
    assert segq("get", queue, "--exact").stdout == blob


def test_lines_for_an_existing_raw_queue_are_stored_as_bytes(queue: Path) -> None:
    library.Queue(queue, serializer="raw").close()
    segq("put", queue, stdin=b"a\nb\n")
    assert held(queue) == [b"a", b"b"]
    assert segq("get", queue).stdout == b"a\nb\n"


def test_zero_bytes_separate_items_that_contain_newlines(queue: Path) -> None:
    segq("put", queue, "-0", stdin=b"a\nb\0c\0")
    assert held(queue) == ["a\nb", "c"]
    assert segq("get", queue, "-0").stdout == b"a\nb\0c\0"


def test_json_lines_become_values_and_come_out_as_json(queue: Path) -> None:
    segq("put", queue, "--json", stdin=b'{"a": [1, null]}\n"text"\n')
    assert held(queue) == [{"a": [1, None]}, "text"]
    assert segq("peek", queue, "-n", 2, "--json").stdout == b'{"a": [1, null]}\n"text"\n'
    assert segq("get", queue).stdout == b'{"a": [1, null]}\ntext\n'


def test_what_is_not_json_is_refused_with_a_message(queue: Path) -> None:
    refused = segq("put", queue, "--json", stdin=b"{oops\n")
    assert refused.returncode == 1
    assert b"not JSON" in refused.stderr


def test_a_typed_line_is_an_item_while_stdin_stays_open(queue: Path) -> None:
    with started("put", queue) as typing:
        assert typing.stdin is not None
        for number in range(3):
            typing.stdin.write(b"line %d\n" % number)
            typing.stdin.flush()
            eventually(lambda n=number: queue.exists() and (queue / "queue.json").exists() and len(held(queue)) == n + 1)
        typing.stdin.close()
        assert typing.wait(PATIENCE) == 0
    assert held(queue) == ["line 0", "line 1", "line 2"]


def test_a_full_queue_ends_put_with_3_and_an_exact_count_of_what_is_stored(queue: Path) -> None:
    full = segq("put", queue, "--capacity", 10, "--timeout", 0.05, stdin=b"".join(b"%d\n" % n for n in range(25)))
    assert full.returncode == 3
    stored = held(queue)
    assert stored == [str(n) for n in range(len(stored))]
    assert f"{len(stored)} items were stored, {25 - len(stored)} more" in full.stderr.decode()
    assert 8 <= len(stored) <= 10


def test_put_waits_for_room_until_a_consumer_makes_some(queue: Path) -> None:
    lines = b"".join(b"%d\n" % n for n in range(500))
    with started("put", queue, "--capacity", 20) as putting:
        assert putting.stdin is not None
        putting.stdin.write(lines)
        putting.stdin.close()
        eventually((queue / "queue.json").exists)
        assert segq("get", queue, "--max", 500, "--timeout", PATIENCE).stdout == lines
        assert putting.wait(PATIENCE) == 0


def test_a_byte_limit_is_respected_in_small_steps(queue: Path) -> None:
    lines = b"".join(b"%0100d\n" % n for n in range(300))
    with started("put", queue, "--max-bytes", 4000) as putting:
        assert putting.stdin is not None
        putting.stdin.write(lines)
        putting.stdin.close()
        eventually((queue / "queue.json").exists)
        assert segq("get", queue, "--max", 300, "--timeout", PATIENCE).stdout == lines
        assert putting.wait(PATIENCE) == 0


def test_a_setting_that_the_queue_was_not_created_with_is_refused(queue: Path) -> None:
    segq("put", queue, "x")
    refused = segq("put", queue, "--serializer", "json", "y")
    assert refused.returncode == 1
    assert refused.stderr.startswith(b"segq: ")
    assert b"serializer" in refused.stderr
    assert held(queue) == ["x"]


# --- out ---


def test_get_prints_what_waits_and_leaves_nothing(queue: Path) -> None:
    segq("put", queue, "a", "b")
    assert segq("get", queue).stdout == b"a\nb\n"
    assert held(queue) == []


def test_get_from_an_empty_queue_exits_with_3(queue: Path) -> None:
    library.Queue(queue).close()
    for verb in ("get", "peek"):
        ended = segq(verb, queue)
        assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"", b"")


def test_get_of_a_path_that_is_no_queue_is_an_error_and_creates_nothing(queue: Path) -> None:
    ended = segq("get", queue)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"segq: error: ")
    assert not queue.exists()


def test_get_takes_no_more_than_asked_for(queue: Path) -> None:
    segq("put", queue, *"abcde")
    assert segq("get", queue, "--max", 2).stdout == b"a\nb\n"
    assert held(queue) == ["c", "d", "e"]


def test_peek_leaves_the_items_where_they_are(queue: Path) -> None:
    segq("put", queue, *"abc")
    assert segq("peek", queue, "-n", 2).stdout == b"a\nb\n"
    assert held(queue) == ["a", "b", "c"]


def test_get_with_a_timeout_waits_for_an_item_that_comes_later(queue: Path) -> None:
    with library.Queue(queue) as target, started("get", queue, "--timeout", PATIENCE, "--max", 1) as getting:
        eventually(lambda: len(target.stats().owners) == 2)
        target.put("late")
        assert getting.wait(PATIENCE) == 0
        assert getting.stdout is not None
        assert getting.stdout.read() == b"late\n"


def test_follow_prints_each_item_as_it_comes_until_ctrl_c(queue: Path) -> None:
    with library.Queue(queue) as target, started("get", queue, "--follow") as following:
        assert following.stdout is not None
        assert following.stderr is not None
        for number in range(3):
            target.put(f"item {number}")
            assert following.stdout.readline() == b"item %d\n" % number
        eventually(lambda: target.stats().items == 0)
        following.send_signal(signal.SIGINT)
        assert following.wait(PATIENCE) == 130
        assert following.stderr.read() == b""


def test_follow_ends_when_the_queue_is_shut_down(queue: Path) -> None:
    with library.Queue(queue) as target, started("get", queue, "--follow") as following:
        target.put("last")
        target.shutdown()
        out, err = following.communicate(timeout=PATIENCE)
    assert (following.returncode, out, err) == (0, b"last\n", b"")


def test_what_the_reader_did_not_read_goes_back_to_the_queue(queue: Path) -> None:
    lines = [b"%06d" % n for n in range(200_000)]
    segq("put", queue, stdin=b"\n".join(lines))
    with started("get", queue) as getting:
        assert getting.stdout is not None
        assert getting.stderr is not None
        read = os.read(getting.stdout.fileno(), 7 * 100)
        getting.stdout.close()
        assert getting.wait(PATIENCE) == 141
        assert getting.stderr.read() == b""
    taken = len(read) // 7
    assert 1 <= taken <= 100
    assert sorted(str(value) for value in held(queue)) == [line.decode() for line in lines[taken:]]


def test_a_reader_that_goes_away_is_noticed_although_nothing_comes(queue: Path) -> None:
    with library.Queue(queue) as target, started("get", queue, "--follow") as following:
        assert following.stdout is not None
        target.put("only")
        assert following.stdout.readline() == b"only\n"
        following.stdout.close()
        assert following.wait(PATIENCE) == 141


def test_a_caller_that_reads_only_after_the_end_does_not_hang(queue: Path) -> None:
    segq("put", queue, "a")
    with started("get", queue) as getting:
        assert getting.wait(PATIENCE) == 0
        assert getting.stdout is not None
        assert getting.stdout.read() == b"a\n"
    assert held(queue) == []


def test_many_lines_pass_through_a_shell_pipeline_in_order(queue: Path) -> None:
    script = 'seq 300000 | "$0" -m segq put "$1" && "$0" -m segq get "$1" --max 300000 | tail -1'
    from cli_command import SEGQ, environment

    ended = subprocess.run(
        ["sh", "-c", script, SEGQ[0], str(queue)], capture_output=True, check=True, env=environment(), timeout=PATIENCE
    )
    assert ended.stdout == b"300000\n"
    assert held(queue) == []


def test_put_and_get_at_once_lose_nothing(queue: Path) -> None:
    library.Queue(queue).close()
    with started("get", queue, "--max", 50_000, "--timeout", PATIENCE) as getting:
        lines = b"".join(b"%d\n" % n for n in range(50_000))
        assert segq("put", queue, stdin=lines).returncode == 0
        out, _ = getting.communicate(timeout=PATIENCE)
    assert out == lines


# --- out, into a command ---


def test_an_item_is_acknowledged_after_the_command_succeeded(queue: Path) -> None:
    segq("put", queue, "a", "b")
    ended = segq("get", queue, "--ack-after", "--", "cat")
    assert (ended.returncode, ended.stdout) == (0, b"a\nb\n")
    assert held(queue) == []


def test_an_item_whose_command_failed_stays_in_the_queue(queue: Path) -> None:
    segq("put", queue, "good", "bad", "fine")
    ended = segq("get", queue, "--ack-after", "--", "grep", "-v", "bad")
    assert (ended.returncode, ended.stdout) == (1, b"good\nfine\n")
    assert b"failed (grep exited with 1)" in ended.stderr
    assert held(queue) == ["bad"]


def test_the_command_finds_the_number_of_deliveries_in_its_environment(queue: Path) -> None:
    segq("put", queue, "x")
    segq("get", queue, "--ack-after", "--", "false")
    shown = segq("get", queue, "--ack-after", "--", "sh", "-c", 'echo "$SEGQ_DELIVERIES $SEGQ_ID"').stdout.split()
    assert shown[0] == b"2"
    assert len(shown) == 2


def test_a_failed_item_is_tried_again_while_following(queue: Path, tmp_path: Path) -> None:
    segq("put", queue, "x")
    mark = tmp_path / "mark"
    script = f"test -e {mark} && exit 0; touch {mark}; exit 9"
    ended = segq("get", queue, "--timeout", 5, "--follow", "--max", 2, "--ack-after", "--", "sh", "-c", script)
    assert b"next attempt in 1 s" in ended.stderr
    assert held(queue) == []


def test_ack_after_without_a_command_is_wrong_usage(queue: Path) -> None:
    segq("put", queue, "x")
    assert segq("get", queue, "--ack-after").returncode == 2
    assert segq("get", queue, "--", "cat").returncode == 2
    assert held(queue) == ["x"]


def test_json_output_has_a_form_for_bytes(queue: Path) -> None:
    segq("put", queue, "--serializer", "raw", stdin=b"\xff")
    assert json.loads(segq("get", queue, "--json").stdout) == {"base64": "/w=="}
