"""`check`: is the directory in order, and if not, what is wrong, how bad is it, and what would mend it.

Looks at names, `queue.json`, owners, ledgers against RocksDB and blobs, labels, counters, half-done deletions and what is in
quarantine. Without `fix` nothing on the disk changes; `fix` mends what can be mended without deleting anything unread. The
queue may be in use meanwhile: what the living are doing is not a problem.
"""

from __future__ import annotations

import dataclasses
import os

from segq._core.base.errors import FormatVersionError, NotAQueueError
from segq._core.base.settings import Settings
from segq._core.format import format as fmt
from segq._core.system import fs
from segq.doctor.examination import Examination
from segq.doctor.problem import Problem, Report
from segq.doctor.repair import Repair

_ROUNDS = 4  # what one round mends may show what was behind it: a segment that is sealed now, and cannot be read


def check(path: str | os.PathLike[str], fix: bool = False) -> Report:
    """Examines the queue or topic at `path` and its dead letters; with `fix`, mends what it can and examines it again.

    Raises NotAQueueError or FormatVersionError if there is none that can be examined (`salvage` needs no `queue.json`),
    StorageError if the disk refuses, QueueError if a process that is stopped holds `queue.lock`.
    """
    path = os.path.abspath(os.fspath(path))
    report = _checked(path, fix)
    dead = os.path.join(path, fmt.DEAD_DIR)
    if not os.path.lexists(os.path.join(dead, fmt.QUEUE_FILE)):  # else it was not made, or its making was interrupted
        return report
    try:
        of_dead = _checked(dead, fix)
    except (NotAQueueError, FormatVersionError) as error:
        what = f"the dead letters cannot be opened: {error}"
        problem = Problem(
            kind="queue", where=fmt.DEAD_DIR, what=what, remedy="see the message; `segq salvage` reads its segments"
        )
        return dataclasses.replace(report, problems=(*report.problems, problem))
    there = [dataclasses.replace(problem, where=os.path.join(fmt.DEAD_DIR, problem.where)) for problem in of_dead.problems]
    aside = [dataclasses.replace(entry, name=os.path.join(fmt.DEAD_DIR, entry.name)) for entry in of_dead.quarantine]
    return dataclasses.replace(report, problems=(*report.problems, *there), quarantine=(*report.quarantine, *aside))


def _checked(path: str, fix: bool) -> Report:
    fs.refuse_non_directory(path)
    try:
        _, kind, settings = fmt.decode_queue_file(fs.read_file(os.path.join(path, fmt.QUEUE_FILE)), path)
    except FileNotFoundError:
        raise NotAQueueError(_nothing(path), path=path) from None
    fs.refuse_other_than_directories(path, fmt.DIRECTORIES)
    fs.refuse_other_than_file(path, fmt.LOCK_FILE)
    seen = _look(path, kind, settings)
    found, left = {_key(problem): problem for problem in seen.problems}, seen.problems
    for _round in range(_ROUNDS if fix else 0):
        if not left:
            break
        before = {_key(problem) for problem in left}
        Repair(path, kind, settings).run(left)
        seen = _look(path, kind, settings)
        left = seen.problems
        found |= {_key(problem): problem for problem in left}
        if {_key(problem) for problem in left} == before:
            break
    remaining = {_key(problem) for problem in left}
    problems = (dataclasses.replace(problem, fixed=key not in remaining) for key, problem in found.items())
    return Report(path=path, problems=tuple(problems), quarantine=tuple(seen.quarantine))


def _nothing(path: str) -> str:
    if os.path.isdir(path) and any(fmt.parse_segment(entry) for entry in fs.listing(path)):
        return (
            f"{path} holds segments and has lost its {fmt.QUEUE_FILE}; restore that file from a queue with the same settings,"
            " or read what is there with `segq salvage`; nothing was touched"
        )
    return f"there is no queue at {path}"


def _look(path: str, kind: str, settings: Settings) -> Examination:
    examination = Examination(path, kind, settings)
    examination.run()
    return examination


def _key(problem: Problem) -> tuple[str, str]:
    """The same problem in the next round, by which time its segment may have another name."""
    name = fmt.parse_segment(problem.where.partition(os.sep)[0])
    return problem.kind, problem.where.partition("_")[2] if name is not None else problem.where
