"""Items that a version pickled before the engine moved into packages are still read."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import segq
from segq._moved import MOVED

SETTINGS = (
    b"ccopy_reg\n_reconstructor\n(csegq.settings\nSettings\nc__builtin__\nobject\nNtR"
    b"(lI3\naNaVmsgpack\naVprocess\naNaI65536\naI16777216\naNaVblock\naVuntil-acked\naNab"
)
WRITTEN = {  # by commit 79e6c9b, protocol 0
    "an error": b"csegq.errors\n_rebuild\n(csegq.errors\nFull\n(Vno room\nt(dVpath\nV/p\nsVsegment\nNstR.",
    "settings": SETTINGS + b".",
    "a letter": b"ccopy_reg\n_reconstructor\n(csegq.letter\nDeadLetter\nc__builtin__\nobject\nNtR"
    b"(lVi\naI1\naVr\naI1\naF0.0\naF1.0\naNac__builtin__\nbytes\n(tRab.",
    "a queue": b"csegq.queue\ndescribed\n(V/p\n" + SETTINGS + b"NNI00\nI00\ntR.",
    "a topic": b"csegq.topic\n_described_topic\n(V/p\n" + SETTINGS + b"NI00\ntR.",
    "a subscription": b"csegq.subscription\n_described_subscription\n(V/p\n" + SETTINGS + b"(Va\nVoldest\nNNI00\nI00\nttR.",
}
KINDS = [segq.Full, segq.Settings, segq.DeadLetter, segq.Queue, segq.Topic, segq.Subscription]


@pytest.mark.parametrize(("stored", "kind"), list(zip(WRITTEN.values(), KINDS, strict=True)), ids=WRITTEN)
def test_an_item_that_an_earlier_version_pickled_comes_out_of_a_queue(stored: bytes, kind: type, queue_path: str) -> None:
    with segq.Queue(queue_path, serializer="raw") as q:
        q.put(stored)
        assert type(pickle.loads(q.get(timeout=5))) is kind


def test_every_old_home_of_a_public_class_leads_to_it() -> None:
    for name, module in MOVED.items():
        assert importlib.import_module(f"segq.{name}") is module
    assert callable(segq.salvage), "the function, not the module of that name"
    assert callable(segq.check)
    assert callable(segq.connect)


def test_an_old_home_is_there_in_a_process_that_imports_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "item"
    file.write_bytes(WRITTEN["a queue"])
    code = "import pickle, sys; print(type(pickle.load(open(sys.argv[1], 'rb'))).__name__)"
    ended = subprocess.run([sys.executable, "-W", "error", "-c", code, file], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "Queue", ended.stderr


def test_an_error_is_pickled_under_its_public_names() -> None:
    stored = pickle.dumps(segq.Full("no room", path="/p"), 0)
    assert b"segq._core" not in stored
    assert b"segq.errors\n_rebuild" in stored
