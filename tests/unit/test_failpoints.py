"""Fault points: named, so that no test passes by naming one that is gone."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import segq
from segq._core.base import failpoints


def run(code: str, points: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SEGQ_FAILPOINTS": points}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("text", ["put.begn", "put.begun=explode", "put.begun=", "=kill", "seal.begun=raise,nonsense"])
def test_an_unknown_point_or_action_is_refused(text: str) -> None:
    if text == "put.begun=":  # no action means kill
        assert failpoints._parse(text) == {"put.begun": ("kill", 1)}
        return
    with pytest.raises(ValueError, match="SEGQ_FAILPOINTS"):
        failpoints._parse(text)


def test_an_unknown_point_is_refused_at_import() -> None:
    ended = run("import segq", "no.such.point=kill")
    assert ended.returncode != 0
    assert "no.such.point" in ended.stderr


def test_nothing_armed_does_nothing() -> None:
    assert not failpoints.ARMED
    assert not failpoints._armed
    failpoints.reach("put.begun")


def test_kill_kills_the_process_at_the_time_asked_for() -> None:
    code = "from segq._core.base.failpoints import reach\nreach('put.begun'); print('one', flush=True)\nreach('put.begun'); print('two')"
    ended = run(code, "put.begun=kill:2")
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == "one\n"


def test_raise_raises_the_error_of_a_full_disk_once() -> None:
    code = (
        "from segq._core.base.failpoints import reach\n"
        "try: reach('seal.begun')\n"
        "except OSError as error: print(error.errno)\n"
        "reach('seal.begun')\n"
    )
    ended = run(code, "seal.begun=raise")
    assert ended.stdout == f"{errno.ENOSPC}\n", ended.stderr
    assert ended.returncode == 0


def test_the_points_named_are_those_the_code_reaches() -> None:
    source = "".join(path.read_text() for path in Path(segq.__file__).parent.rglob("*.py") if path.name != "failpoints.py")
    assert set(re.findall(r'reach\("([^"]+)"\)', source)) == failpoints.POINTS
