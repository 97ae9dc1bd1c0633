"""Writes a small queue with items in all states and packs it: `python tests/golden/make.py tests/golden/v1.tar.xz`.

Later versions must open it and deliver exactly what `EXPECTED` says. It is made once for each format version and then kept; the
processes that wrote it were killed, so it also shows what a dead producer and a dead consumer leave behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from typing import Any

LARGE = "large " * 10_000  # more than the open batch takes in: kept apart

READY = [["ready", n] for n in range(8)]
CHOSEN = [["chosen", n] for n in range(8)]
LOADING = [["loading", n] for n in range(6)]
DONE = [CHOSEN[0], CHOSEN[3]]
HANDED = CHOSEN[1]  # handed out by a handle that was closed, then by a process that was killed
DELIVERIES = {str(HANDED): 3, str(CHOSEN[2]): 2}  # the number of the delivery that is to come, where it is not the first
EXPECTED: list[Any] = [item for item in CHOSEN if item not in DONE] + READY + [["large", LARGE]] + LOADING

CHOSEN_CODE = f"""
import segq, sys, os
q = segq.Queue(sys.argv[1], capacity=1000, segment_items=8)
for item in {CHOSEN!r}: q.put(item)
q.close()
q = segq.Queue(sys.argv[1], prefetch=8)
messages = q.receive_many(4)
messages[0].ack(); messages[3].ack(); messages[2].nack()
q.close()
q = segq.Queue(sys.argv[1], prefetch=1)
assert q.receive().value == {HANDED!r}
print("holds it", flush=True)
sys.stdin.read()
"""
READY_CODE = f"""
import segq, sys
q = segq.Queue(sys.argv[1])
for item in {READY!r}: q.put(item)
q.close()
"""
LARGE_CODE = f"""
import segq, sys
q = segq.Queue(sys.argv[1])
q.put_many([["large", {LARGE!r}]])
q.close()
"""
LOADING_CODE = f"""
import segq, sys, os
q = segq.Queue(sys.argv[1])
q.put_many({LOADING[:2]!r})
for item in {LOADING[2:]!r}: q.put(item)
os.kill(os.getpid(), 9)
"""


def run(code: str, path: str, *, killed: bool = False) -> None:
    ended = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert ended.returncode == (-signal.SIGKILL if killed else 0), ended


def make(path: str) -> None:
    """A queue at `path` as the processes above leave it."""
    command = [sys.executable, "-c", CHOSEN_CODE, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as consumer:
        assert consumer.stdout is not None
        assert consumer.stdout.readline() == b"holds it\n"
        run(READY_CODE, path)
        run(LARGE_CODE, path)
        run(LOADING_CODE, path, killed=True)
        consumer.kill()


def main(target: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "queue")
        make(path)
        with tarfile.open(target, "w:xz") as archive:
            archive.add(path, "queue")


if __name__ == "__main__":
    main(sys.argv[1])
