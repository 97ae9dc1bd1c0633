"""Makes `tests` importable (`accounts`, `cli_command`) from the directories below it, and ends each queue's test with `check`."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["SEGQ_CHECK_LOCK_ORDER"] = "1"  # here and in child processes: a lock taken out of order fails the test

import segq

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Which cluster the Kafka tests ran against, where some did."""
    factory = getattr(config, "_tmp_path_factory", None)
    said = factory.getbasetemp() / "kafka" / "ran-against" if factory is not None else None
    if said is not None and said.exists():
        terminalreporter.write_line(f"The Kafka tests ran against {said.read_text()}.")


def pytest_configure(config: pytest.Config) -> None:
    """Tests start processes by the thousand: each would compile segq anew where bytecode is not to be written to the tree."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None) and "PYTHONPYCACHEPREFIX" not in os.environ:
        place = tempfile.mkdtemp(prefix="segq-bytecode-")
        os.environ["PYTHONPYCACHEPREFIX"] = place
        config.add_cleanup(lambda: shutil.rmtree(place, ignore_errors=True))


@pytest.fixture
def queue_path(tmp_path: Path) -> Iterator[str]:
    """Where a test may create a queue. If there is one when the test is over, nothing may be wrong with it."""
    path = str(tmp_path / "queue")
    yield path
    if os.path.lexists(os.path.join(path, "queue.json")):
        report = segq.check(path)
        assert report.ok, report.problems


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A place in memory if there is room: for what does not ask what a real disk would do, since fsync takes its time there."""
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30 else tmp_path
    with tempfile.TemporaryDirectory(prefix="segq-test-", dir=parent) as made:
        yield Path(made, "place")
