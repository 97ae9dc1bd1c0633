"""`segq watch`: a live view of a queue on a terminal, as lines of JSON, or as a page in the browser."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import click

from segq.cli import exits
from segq.watch import RemoteWatcher, Snapshot, Watcher, watcher_of
from segq.watch.snapshot import OPEN


@click.command("watch")
@click.argument("queue", type=click.Path())
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.05, 3600), help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Look for one interval, print what was seen, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each look.")
@click.option("--web", is_flag=True, help="Serve the view as a web page (needs segq[web]).")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --web: the address to listen on.")
@click.option("--port", default=8420, show_default=True, type=click.IntRange(0, 65535), help="With --web; 0: any free one.")
def command(queue: str, *, interval: float, once: bool, as_json: bool, web: bool, host: str, port: int) -> int:
    """Watch QUEUE live: rates, backlog, processes, labels, and what happens to it. q or Ctrl-C ends.

    Looks only: nothing in the queue is changed, nobody has to wait. The queue need not be there yet. At an address its
    server is asked, which does not know of processes. Where the output is no terminal, a line is printed for each look.
    """
    watcher = watcher_of(queue)
    if once:
        return _once(watcher, interval, as_json=as_json)
    if web:
        from segq.watch.page import serve

        try:
            serve(watcher, interval=interval, host=host, port=port, say=lambda text: click.echo(text, err=True))
        except ImportError as error:
            raise click.ClickException(str(error)) from None
        return exits.OK
    if as_json:
        for snapshot in _looks(watcher, interval):
            click.echo(json.dumps(snapshot.as_dict()))
        return exits.OK
    from rich.console import Console

    from segq.watch.terminal import show

    console = Console(highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        show(watcher, console, interval)
        return exits.OK
    for snapshot in _looks(watcher, interval):
        click.echo(_line(snapshot))
    return exits.OK


def _looks(watcher: Watcher | RemoteWatcher, interval: float) -> Iterator[Snapshot]:
    """A look each interval, however long what is done with it takes."""
    due = time.monotonic()
    while True:
        yield watcher.look()
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def _once(watcher: Watcher | RemoteWatcher, interval: float, *, as_json: bool) -> int:
    watcher.look()  # rates are between two looks
    time.sleep(interval)
    snapshot = watcher.look()
    if as_json:
        click.echo(json.dumps(snapshot.as_dict()))
    elif snapshot.state == OPEN:
        from rich.console import Console

        from segq.watch.history import History
        from segq.watch.screen import Screen

        console, history = Console(highlight=False), History()
        history.add(snapshot)
        console.print(Screen(console, interval).draw(history, height=1000))
    else:
        click.echo(f"segq: {watcher.path}: {snapshot.error}", err=True)
    return exits.OK if snapshot.state == OPEN else exits.NOTHING


def _line(snapshot: Snapshot) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.time))
    if snapshot.state != OPEN:
        return f"{clock}  {snapshot.error}"
    rates = snapshot.rates
    segments = "  ".join(f"{state} {count}" for state, count in snapshot.segments.items())
    line = (
        f"{clock}  put {rates.put:,.0f}/s  get {rates.get:,.0f}/s  ack {rates.ack:,.0f}/s"
        f"  backlog {snapshot.items:,}  segments: {segments}  processes {len(snapshot.processes)}"
    )
    return "\n".join([line, *(f"{clock}  {event.kind}: {event.text}" for event in snapshot.events)])
