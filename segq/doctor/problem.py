"""What `check` can find, in words: a problem, and what lies in quarantine."""

from __future__ import annotations

import dataclasses

ERROR, NOTE = "error", "note"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: its `kind`, `where`, `what` in words, the `remedy`, and whether it was `fixed` now.

    `severity`: "error" needs somebody to act; a "note" loses nothing, and heals when the queue is opened the next time (or by
    the processes that have it open), or stays and harms nobody.
    """

    kind: str
    where: str
    what: str
    remedy: str
    fixed: bool = False
    severity: str = ERROR


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """What was set aside because it could not be read: a segment, an item, or a file; `reason` says why."""

    name: str
    reason: str
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `check` found. `ok` if nothing is wrong (any more); what is in quarantine does not count against it."""

    path: str
    problems: tuple[Problem, ...]
    quarantine: tuple[Quarantined, ...] = ()

    @property
    def ok(self) -> bool:
        return all(problem.fixed for problem in self.problems)

    @property
    def left(self) -> tuple[Problem, ...]:
        """What was not fixed."""
        return tuple(problem for problem in self.problems if not problem.fixed)
