"""How a crash test starts the processes that are to die, and sees them dead."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from accounts import ROOT, Ledger, Report, close_account, events, identity_of, item_id, letters, until

import segq

VICTIM = Path(__file__).with_name("victim.py")
PATIENCE = 60.0  # seconds; far more than anything takes, so that a busy machine does not fail a test

RESCUED_WITHIN = 10.0  # about one second is promised; a busy machine gets more, and test_rescue_latency looks closer


@dataclasses.dataclass(slots=True)
class Actor:
    """A process that works on the queue, and its report."""

    process: subprocess.Popen[bytes]
    report: Path
    output: Path

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def must_die(self) -> None:
        """Waits until the process was killed at its fault point; fails if it ended in another way."""
        code = self.process.wait(PATIENCE)
        assert code == -signal.SIGKILL, f"not killed, but ended with {code}: it did not reach its fault point\n{self.said()}"

    def must_end_well(self) -> None:
        code = self.process.wait(PATIENCE)
        assert code == 0, f"ended with {code}\n{self.said()}"

    def until_ready(self) -> None:
        until(self._is_ready, PATIENCE, "the process says that it is ready")

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"ended with {self.process.returncode}\n{self.said()}"
        return any(event.what == "ready" for event in events(self.report))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


class Scene:
    """A queue, the processes that work on it, and their reports."""

    def __init__(self, place: Path, **settings: Any) -> None:
        self.place, self.settings = place, settings
        self.path = place / "queue"
        self.actors: list[Actor] = []
        self.reports: list[Path] = []

    def report(self, name: str) -> Report:
        """One for this process."""
        path = self.place / f"{name}.report"
        self.reports.append(path)
        return Report(path)

    def start(self, workload: str, *, faults: str = "") -> Actor:
        name = f"{workload}{len(self.actors)}"
        report, output = self.place / f"{name}.report", self.place / f"{name}.out"
        command = [sys.executable, str(VICTIM), workload, str(self.path), str(report), json.dumps(self.settings)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "SEGQ_FAILPOINTS": faults, "PYTHONFAULTHANDLER": "1"}
        with output.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        actor = Actor(process, report, output)
        self.actors.append(actor)
        self.reports.append(report)
        return actor

    def open(self) -> segq.Queue:
        return segq.Queue(self.path, **self.settings)

    def fill(self, queue: segq.Queue, count: int = 90) -> None:
        """Puts items from this process, through a report that ends well."""
        report = self.report(f"fill{len(self.reports)}")
        name = Path(report.path).stem
        for number in range(0, count - 2, 3):
            report.put(queue, item_id(name, number))
            report.put(queue, item_id(name, number + 1, 30), item_id(name, number + 2), many=True)
        report.end()

    def recover_live(self, queue: segq.Queue) -> float:
        """This process has been there all along: it gets everything without opening anything anew. Returns the seconds."""
        report = self.report("live")

        def nothing_is_missing() -> bool:
            try:
                messages = report.receive(queue, 100, timeout=0.1)
            except segq.Empty:
                ledger = Ledger(self.reports, letters(queue))
                return len(ledger.missing()) <= ledger.taken_unseen and segq.check(self.path).ok
            for message in messages:
                report.ack(message)
            return False

        try:
            return until(nothing_is_missing, RESCUED_WITHIN, "a live consumer has everything")
        except AssertionError as error:
            error.add_note(
                f"missing: {sorted(Ledger(self.reports, letters(queue)).missing())}; {segq.check(self.path)}\n{self.said()}"
            )
            raise
        finally:
            report.end()

    def close_account(self, queue: segq.Queue | None = None) -> Ledger:
        try:
            return close_account(self.path, self.reports, queue=queue)
        except BaseException as error:
            error.add_note(self.said())
            raise

    def said(self) -> str:
        """What all processes printed, for the message of a test that fails."""
        return "\n".join(f"--- {actor.output.stem} ({actor.process.args[2]}) printed:\n{actor.said()}" for actor in self.actors)

    def end(self) -> None:
        for actor in self.actors:
            if actor.process.poll() is None:
                actor.kill()


__all__ = ["PATIENCE", "RESCUED_WITHIN", "Actor", "Scene", "identity_of"]
