"""`segq check`: is what lies on disk what it should be?"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

import segq
from segq.cli import exits

_WIDTH = 110  # of a reason in quarantine; RocksDB's are long, and the file beside the entry has all of it


@click.command("check")
@click.argument("queue", type=click.Path())
@click.option("--fix", is_flag=True, help="Repair what can be repaired; what cannot be read goes to quarantine.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(queue: str, *, fix: bool, as_json: bool) -> int:
    """Verify QUEUE on disk: names, ledgers, every item not done, counters, what the dead left.

    Processes may use it meanwhile. Without --fix nothing on the disk is changed. An error needs somebody to act; a
    note loses nothing, and heals when the queue is opened the next time. --fix never deletes an item that nobody has
    had: what cannot be read goes to QUEUE/quarantine (see `segq salvage`).

    The exit code is 0 if nothing is wrong, 1 if problems were found (with --fix: are left).

    \b
    --json prints {"queue", "ok", "errors", "notes", "fixed", "problems", "quarantine"}:
      problems    [{"kind", "severity": "error"|"note", "where", "what", "remedy", "fixed"}]
      quarantine  [{"name", "reason", "bytes"}]
    and, for what cannot be examined at all, one problem of kind "queue". docs/crash-safety.md lists the kinds.
    """
    try:
        report = segq.check(queue, fix=fix)
    except (segq.NotAQueueError, segq.FormatVersionError, segq.StorageError) as error:
        if not as_json:
            raise
        remedy = "see the message; `segq salvage` reads segments without queue.json"
        report = segq.Report(path=queue, problems=(segq.Problem(kind="queue", where="", what=str(error), remedy=remedy),))
    if as_json:
        click.echo(json.dumps({"queue": queue, **_document(report)}))
    else:
        _tell(report, fix=fix)
    return exits.FAILED if report.left else exits.OK


def _document(report: segq.Report) -> dict[str, Any]:
    left = report.left
    return {
        "ok": report.ok,
        "errors": sum(problem.severity == "error" for problem in left),
        "notes": sum(problem.severity == "note" for problem in left),
        "fixed": len(report.problems) - len(left),
        "problems": [dataclasses.asdict(problem) for problem in report.problems],
        "quarantine": [dataclasses.asdict(entry) for entry in report.quarantine],
    }


def _tell(report: segq.Report, *, fix: bool) -> None:
    for problem in sorted(report.problems, key=lambda problem: problem.severity):
        where = problem.where or "the queue"
        click.echo(f"{problem.severity}: {where}: {problem.what} [{problem.kind}]")
        if problem.fixed:
            click.echo(f"  fixed: {problem.remedy}")
        else:
            click.echo(f"  {'not fixed' if fix else 'remedy'}: {problem.remedy}")
    for entry in report.quarantine:
        reason = " ".join(entry.reason.split())
        shown = reason if len(reason) <= _WIDTH else f"{reason[: _WIDTH - 1]}…"
        click.echo(f"in quarantine: {entry.name} ({entry.bytes:,} bytes): {shown}")
    if report.quarantine:
        click.echo(f"  the queue works without; to see what can be read of it: segq salvage {report.path}/quarantine/… OUT")
    click.echo(_verdict(report, fix=fix))


def _verdict(report: segq.Report, *, fix: bool) -> str:
    left = report.left
    fixed = len(report.problems) - len(left)
    if not report.problems:
        return "no problems"
    if not left:
        return f"{fixed} fixed, none left"
    if fix:
        return f"{fixed} fixed, {len(left)} left"
    errors = sum(problem.severity == "error" for problem in left)
    notes = len(left) - errors
    counted = ", ".join(_counted(count, word) for count, word in ((errors, "error"), (notes, "note")) if count)
    healing = " (heals at the next open)" if notes and not errors else ""
    return f"{counted}{healing}; `segq check --fix` repairs what can be repaired"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
