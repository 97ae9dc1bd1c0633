"""`segq metrics`: what Prometheus wants to know of queues, over HTTP."""

from __future__ import annotations

import signal
import threading

import click

from segq.cli import exits


@click.command("metrics")
@click.argument("queues", metavar="QUEUE...", type=click.Path(), nargs=-1, required=True)
@click.option("--port", default=9846, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.05, 3600), help="Seconds between two looks."
)
def command(queues: tuple[str, ...], *, port: int, host: str, interval: float) -> int:
    """Serve figures of QUEUE… to Prometheus, at http://HOST:PORT/metrics, until Ctrl-C. Needs segq[metrics].

    Looks only. A queue need not be there yet: segq_up is 0 until it is.
    """
    try:
        from segq.metrics import Collector, serving
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    collector = Collector(*queues)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with serving(collector, host=host, port=port) as address:
        click.echo(
            f"segq: metrics of {len(queues)} {'queue' if len(queues) == 1 else 'queues'} at {address} (Ctrl-C ends)", err=True
        )
        while not stopped.wait(interval):
            collector.look()
    return exits.OK
