"""Kills a process at line after line of segq: `python any_line.py PLACE SCENARIO RECOVERY FIRST STEP`.

Fault points are where somebody thought of a death; this is everywhere else. A child of fork runs the scenario under a trace
function that counts the lines of segq executed and sends SIGKILL at line FIRST, the next child at FIRST + STEP, and so on
until one comes to its end. After each the account has to close. Prints the place of each death that it does not survive.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from accounts import Ledger, Report, close_account
from victim import Victim

import segq

PACKAGE = os.path.dirname(os.path.abspath(segq.__file__))
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"segment_items": 12},
    "limited": {"segment_items": 12, "capacity": 500, "max_bytes": 1 << 24, "lease": 60.0},
}


# --- what the child does ----------------------------------------------------------------------------------------------


def producing(victim: Victim) -> None:
    """Puts of all kinds, through several segments and two handles."""
    victim.put(3)
    victim.put_many(3)
    victim.put_many(4, 70_000)
    victim.put(2)
    victim.put_many(14, 20_000)
    victim.queue.close()
    victim.open()
    victim.put(2)
    victim.put(1, 50_000)
    victim.put_many(8)
    victim.put_many(14)


def consuming(victim: Victim) -> None:
    """Takes, gives back and acknowledges items of sealed segments and of its own live one."""
    victim.put(4)
    victim.report.get(victim.queue, timeout=5)
    victim.report.get(victim.queue, 7, timeout=5)
    for message in victim.report.receive(victim.queue, 5, timeout=5):
        victim.report.nack(message)
    victim.queue.peek(3)
    for message in victim.report.receive(victim.queue, 20, timeout=5):
        victim.report.ack(message)
    message = victim.report.receive(victim.queue, timeout=5)[0]
    victim.report.ack(message)
    message = victim.report.receive(victim.queue, timeout=5)[0]
    victim.report.nack(message)


def failing(victim: Victim) -> None:
    """Puts items off for a moment, and gives items up, of a sealed segment and of its own live one."""
    victim.put(3)
    for message in victim.report.receive(victim.queue, 4, timeout=5):
        victim.report.nack(message, delay=0.002)
    for message in victim.report.receive(victim.queue, 3, timeout=5):
        victim.report.reject(message)
    for message in victim.report.receive(victim.queue, 30, timeout=5):
        victim.report.ack(message)


def rescuing(victim: Victim) -> None:
    """Has found a dead process's segment and claims on opening; takes a few of its items."""
    for message in victim.report.receive(victim.queue, 3, timeout=5):
        victim.report.ack(message)
    victim.put(2)


SCENARIOS: dict[str, Callable[[Victim], None]] = {f.__name__: f for f in (producing, consuming, failing, rescuing)}


def before(scenario: str, victim: Victim) -> None:
    """What a process that came before did, in the same directory."""
    if scenario in ("consuming", "failing"):
        victim.put(9)
        victim.put_many(9)
        victim.put(9)
        victim.queue.close()
    elif scenario == "rescuing":
        victim.put(5)
        victim.put_many(4, 70_000)
        victim.put(4)
        victim.report.receive(victim.queue, 3, timeout=5)
        os.kill(os.getpid(), signal.SIGKILL)


# --- dying at a line --------------------------------------------------------------------------------------------------


class Death:
    """Counts the lines of segq that are executed, and kills at one of them."""

    def __init__(self, at: int, note: Path) -> None:
        self.left = at
        self.note = note

    def trace(self, frame: FrameType, _event: str, _argument: object) -> Any:
        return self.line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def line(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            self.left -= 1
            if not self.left:
                self.note.write_text(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}")
                os.kill(os.getpid(), signal.SIGKILL)
        return self.line


def in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a child of fork; returns how it ended, as `os.waitstatus_to_exitcode` does."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- one death, and what comes after ----------------------------------------------------------------------------------


class Attempt:
    """A directory of its own for one death."""

    def __init__(self, place: Path, scenario: str, settings: dict[str, Any], live: bool) -> None:
        self.place, self.scenario, self.settings, self.live = place, scenario, settings, live
        self.path, self.note = place / "queue", place / "note"
        self.reports = [place / "before.report", place / "victim.report"]

    def run(self, at: int) -> bool:
        """False if the scenario came to its end before line `at`. Fails if the account does not close."""
        in_child(self._before)
        queue = segq.Queue(self.path, **self.settings) if self.live else None
        code = in_child(lambda: self._victim(at))
        assert code in (0, -signal.SIGKILL), f"the scenario ended with {code}"
        if queue is not None:
            self._recover(queue)
        close_account(self.path, self.reports, queue=queue)
        return code != 0

    def _before(self) -> None:
        victim = Victim(str(self.path), str(self.reports[0]), self.settings)
        before(self.scenario, victim)
        victim.queue.close()
        victim.report.end()

    def _victim(self, at: int) -> None:
        sys.settrace(Death(at, self.note).trace)
        victim = Victim(str(self.path), str(self.reports[1]), self.settings)
        SCENARIOS[self.scenario](victim)
        victim.queue.close()
        sys.settrace(None)
        victim.report.end()

    def _recover(self, queue: segq.Queue) -> None:
        """The queue was open here all along: what is there comes without anything being opened anew."""
        report = Report(self.place / "live.report")
        self.reports.append(self.place / "live.report")
        deadline = time.monotonic() + 10
        while True:
            try:
                for message in report.receive(queue, 100, timeout=0.1):
                    report.ack(message)
            except segq.Empty:
                ledger = Ledger(self.reports)
                if len(ledger.missing()) <= ledger.taken_unseen and segq.check(self.path).ok:
                    break
            assert time.monotonic() < deadline, (
                f"not within 10 s: {sorted(Ledger(self.reports).missing())} {segq.check(self.path)}"
            )
        report.end()


def deaths(place: Path, scenario: str, settings: dict[str, Any], live: bool, first: int, step: int) -> Iterator[str]:
    """The places of the deaths that were not survived, with what was wrong."""
    at = first
    while True:
        attempt = Attempt(place / str(at), scenario, settings, live)
        attempt.place.mkdir(parents=True)
        try:
            if not attempt.run(at):
                return
        except BaseException:
            where = attempt.note.read_text() if attempt.note.exists() else "?"
            yield f"killed at line {at}, {where}:\n{traceback.format_exc()}"
        else:
            shutil.rmtree(attempt.place)
        at += step


def main(place: str, scenario: str, settings: str, recovery: str, first: str, step: str) -> None:
    found = 0
    for text in deaths(Path(place), scenario, SETTINGS[settings], recovery == "live", int(first), int(step)):
        found += 1
        print(text, flush=True)
        if found >= 200:
            break
    sys.exit(f"{found} deaths were not survived" if found else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
