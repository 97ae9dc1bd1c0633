"""A kill between any two system calls: `python every_call.py PLACE WORK DURABILITY COUNT SEED`.

A process that is killed leaves the files as they are at that moment, mapped pages included, and lets go of its locks. So a work
(see `works.py`) is recorded once, with all that its calls, of any of its threads, change (see `power.py`), and the directory is
made anew as it was after each of them: COUNT moments spread over the whole, or, with 0, every one. For each, a process that had
nothing to do with it closes the account. `syscalls.py` does with a real kill, one run for each, what this does for all of them.

Prints the moments that were not survived, and last the figures.
"""

from __future__ import annotations

import collections
import json
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

from power import Disk, Loss, Moment, Recorder, sample
from syscalls import Attempt, in_child
from works import close_accounts

AS_IT_WAS = Loss("new", "new")
UNREAD = frozenset({"LOG"})  # what RocksDB tells people: half of all writes
MOST_FAILURES = 20


class Recorded:
    """A work, all of it, and the moments it can be killed at."""

    def __init__(self, place: Path, kind: str, durability: str) -> None:
        self.place, self.kind, self.settings = place, kind, {"durability": durability}
        attempt = Attempt(place / "recorded", kind, self.settings)
        (attempt.place / "disk").mkdir()
        attempt.prepare()
        self.reports = attempt.place
        self.recorder = Recorder(attempt.place / "disk", attempt.place, unread=UNREAD)
        code = self.recorder.run(attempt.work_unwatched)
        assert code == 0, f"the work ended with {code}:\n{attempt.said()}"
        assert not attempt.troubled(), f"the work said:\n{attempt.said()}"
        attempt.close()

    def killed_after(self, moment: Moment) -> str:
        """What is wrong with the account; empty if nothing is."""
        place = self.place / str(moment.number)
        place.mkdir()
        Disk(moment, AS_IT_WAS, "").make(place / "disk")
        for name, size in moment.said.items():
            (place / name).write_bytes((self.reports / name).read_bytes()[:size])
        judging = place / "judge"
        code = in_child(lambda: close_accounts(place, self.kind, self.settings), judging)
        if code:
            return f"{place}: ended with {code}\n{judging.read_text(errors='replace')[-3000:]}"
        shutil.rmtree(place)
        return ""


def main(place: str, kind: str, durability: str, count: str, seed: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    begun = time.monotonic()
    recorded = Recorded(Path(place), kind, durability)
    moments = recorded.recorder.moments
    chosen = sample(moments, int(count), int(seed))
    wrong = 0
    for moment in chosen:
        if said := recorded.killed_after(moment):
            wrong += 1
            print(f"--- killed after {moment.number} ({moment.call}): {said}", flush=True)
            if wrong == MOST_FAILURES:
                break
    calls = dict(collections.Counter(moment.call for moment in chosen))
    facts = {"moments": len(moments), "tried": len(chosen), "calls": calls, "wrong": wrong}
    print(json.dumps(facts | {"seconds": round(time.monotonic() - begun, 1)}), flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
