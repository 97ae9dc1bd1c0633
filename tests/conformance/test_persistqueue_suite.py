"""The tests that ship in persist-queue's wheel, against our stand-in under its name."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from cli_command import environment

pytestmark = pytest.mark.external

CHUNK_FILES = "writes garbage into a chunk file, whose name it asks a private method for; there are none here"
REASONS = {
    "test_queue.TestPersist.test_del": "looks whether the open chunk files `headf` and `tailf` were closed; there are none here",
    "test_async_queue.TestAsyncQueue.test_file_operations_error_handling": CHUNK_FILES,
    "test_async_edge_cases.TestAsyncQueueEdgeCases.test_pickle_error_handling": CHUNK_FILES,
    "test_async_edge_cases.TestAsyncQueueEdgeCases.test_eof_error_handling": CHUNK_FILES,
    "test_async_edge_cases.TestAsyncQueueEdgeCases.test_permission_error_handling": (
        "replaces `aiofiles.os.replace` inside of persist-queue's module; nothing is renamed here"
    ),
    "test_async_queue.TestAsyncQueue.test_async_serializer": (
        "counts two calls of `dump` for one put, the second for persist-queue's own notes; and its dump, a coroutine, is refused"
    ),
}
SOMETIMES = {  # what the failure has to say, of tests that depend on which thread is faster; persist-queue's own queue fails them too
    # looks without waiting for an item that its other thread may be about to put
    "test_queue.TestPersist.test_put_block_and_wait": "Empty",
}
FILES = {  # and how many tests each has
    "test_queue.py": 94,
    "test_sqlqueue.py": 62,
    "test_sqlackqueue.py": 94,
    "test_pdict.py": 5,
    "test_priorityqueue.py": 4,
    "test_async_queue.py": 30,
    "test_async_edge_cases.py": 28,
}
# test_mysqlqueue.py is left out: there is no MySQLQueue here


def failures(cases: list[ET.Element]) -> set[str]:
    """The tests that failed, by their names without parameters; but for those that failed as they may sometimes."""
    failed = set()
    for case in cases:
        name = f"{case.get('classname')}.{(case.get('name') or '').partition('[')[0]}"
        for child in case:
            if child.tag in ("failure", "error") and SOMETIMES.get(name, "\0") not in child.get("message", ""):
                failed.add(name)
    return failed


def test_persist_queues_own_tests_pass_but_for_those_that_look_inside(tmp_path: Path) -> None:
    pytest.importorskip("persistqueue", reason="persist-queue is not installed: pip install 'segq[external]'")
    for needed in ("msgpack", "cbor2"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: pip install 'segq[external]'")
    assert importlib.metadata.version("persist-queue") == "1.1.0"
    theirs = Path(str(importlib.metadata.distribution("persist-queue").locate_file("persistqueue/tests")))
    for name in FILES:
        shutil.copy(theirs / name, tmp_path / name)
    in_memory = "/dev/shm"  # their queues are synced at each put: minutes on a slow disk
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "stand_in",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--junitxml=report.xml",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(
            SEGQ_STAND_IN="persistqueue",
            TMPDIR=in_memory if os.access(in_memory, os.W_OK) else str(scratch),
            PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), environment()["PYTHONPATH"]]),
        ),
    )
    cases = list(ET.parse(tmp_path / "report.xml").getroot().iter("testcase"))
    failed = failures(cases)
    assert failed == set(REASONS), f"{sorted(failed ^ set(REASONS))}\n{ended.stdout[:20_000]}"
    assert len(cases) == sum(FILES.values()) == 259 + 58  # synchronous ones and coroutines
