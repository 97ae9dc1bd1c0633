"""`segq bridge`: a supervised process that forwards from one address to another."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from typing import Any

import click

import segq
from segq.cli import place


@click.command("bridge")
@click.argument("source", metavar="FROM", type=click.Path())
@click.argument("target", metavar="TO", type=click.Path())
@place.label_options
@click.option("--topic", is_flag=True, help="If there is nothing at TO yet, create a topic there, not a queue.")
@click.option(
    "--batch", type=click.IntRange(1, 10_000), default=1000, show_default=True, metavar="N", help="Forward at most N at once."
)
@click.option(
    "--journal", type=click.Path(dir_okay=False), help="Where to note what was forwarded (default: beside the local side)."
)
@click.option("--exit-when-empty", is_flag=True, help="End when nothing waits any more.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=10.0, show_default=True, metavar="SECONDS", help="Report so often."
)
@click.option("--json", "as_json", is_flag=True, help="Report on stdout, a line of JSON each time.")
@click.option("--quiet", is_flag=True, help="Do not report.")
def command(source: str, target: str, **options: Any) -> int:
    """Forward what is put at FROM to TO, which are paths or addresses: a local queue as the spool of a remote one, or back.

    An item is off FROM once TO has confirmed it. Either side may be away for hours: what is put stays at FROM meanwhile. The
    process that forwards is replaced when it dies; SIGTERM and Ctrl-C end it between two batches.

    \b
      segq bridge /var/spool/jobs nats://broker:4222/jobs
      segq bridge nats://broker:4222/news --label here /var/lib/news
    """
    from segq.cli.pool import Pool

    job = BridgeJob(source=place.absolute(source), target=place.absolute(target), **options)
    return Pool(job, 1, main=main, quiet=job.quiet).run()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BridgeJob:
    """What the process that forwards needs to know."""

    source: str
    target: str
    label: str | None
    start: str
    topic: bool
    batch: int
    journal: str | None
    exit_when_empty: bool
    interval: float
    as_json: bool
    quiet: bool


def main(job: BridgeJob) -> None:
    """The whole life of that process."""
    from segq.cli import reports, worker

    stop = worker.Stop()
    reports.to_stderr()
    over = threading.Event()
    try:
        with segq.Bridge(
            job.source, job.target, label=job.label, start=job.start, topic=job.topic, batch=job.batch, journal=job.journal
        ) as bridge:
            tending = threading.Thread(target=_tend, args=(bridge, job, stop, over), daemon=True)
            tending.start()
            try:
                bridge.run(until_empty=job.exit_when_empty)
            finally:
                over.set()
                tending.join()
            _report(bridge.stats(), job, 0.0)
    except (segq.NotAQueueError, segq.SettingsError, segq.UnsupportedError) as error:
        click.echo(f"segq: error: {error}", err=True)
        sys.exit(worker.UNUSABLE)
    sys.exit(worker.DONE)


def _tend(bridge: segq.Bridge, job: BridgeJob, stop: object, over: threading.Event) -> None:
    """Looks whether it is time to end, and reports."""
    due, before = time.monotonic() + job.interval, 0
    while not over.wait(0.1):
        if stop:
            bridge.stop()
        if time.monotonic() >= due:
            due = time.monotonic() + job.interval
            stats = bridge.stats()
            _report(stats, job, (stats.forwarded - before) / job.interval)
            before = stats.forwarded


def _report(stats: segq.BridgeStats, job: BridgeJob, rate: float) -> None:
    if job.as_json:
        line = json.dumps({"time": time.time(), "rate": rate, **dataclasses.asdict(stats)})
        os.write(1, line.encode() + b"\n")
        return
    if job.quiet:
        return
    text = f"{stats.forwarded:,} forwarded ({rate:,.0f}/s), {'?' if stats.lag is None else format(stats.lag, ',')} behind"
    text += f", {stats.lag_seconds:.0f} s" if stats.in_hand else ""
    text += f", {stats.duplicates:,} dropped as forwarded before" if stats.duplicates else ""
    text += f", {stats.rejected:,} rejected" if stats.rejected else ""
    if stats.down_since is not None:
        text += f"; waiting for {time.time() - stats.down_since:.0f} s: {stats.trouble}"
    click.echo(f"segq: {text}", err=True)
