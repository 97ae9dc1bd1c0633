"""`segq check`: is what lies on disk what it should be?"""

from __future__ import annotations

import dataclasses
import json

import click

import segq
from segq.cli import exits


@click.command("check")
@click.argument("queue", type=click.Path())
@click.option("--fix", is_flag=True, help="Repair what can be repaired; what cannot be read goes to quarantine.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(queue: str, *, fix: bool, as_json: bool) -> int:
    """Verify QUEUE on disk. The exit code is 1 when problems remain."""
    report = segq.check(queue, fix=fix)
    remaining = [problem for problem in report.problems if not problem.fixed]
    if as_json:
        problems = [dataclasses.asdict(problem) for problem in report.problems]
        click.echo(json.dumps({"queue": queue, "ok": not remaining, "problems": problems}))
    else:
        _tell(report.problems, remaining, fix=fix)
    return exits.FAILED if remaining else exits.OK


def _tell(problems: tuple[segq.Problem, ...], remaining: list[segq.Problem], *, fix: bool) -> None:
    for problem in problems:
        click.echo(f"{problem.kind}: {problem.where}: {problem.what}")
        click.echo(f"  {'fixed' if problem.fixed else problem.remedy}")
    if not problems:
        click.echo("no problems")
    elif not remaining:
        click.echo(f"{len(problems)} fixed, none left")
    elif fix:
        click.echo(f"{len(problems) - len(remaining)} fixed, {len(remaining)} left")
    else:
        click.echo(f"{len(remaining)} problems; `segq check --fix` repairs what can be repaired")
