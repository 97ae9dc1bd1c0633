"""The command's verbs, imported when asked for, and what becomes of their errors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

import segq
from segq._core.base.errors import QueueError
from segq.cli import exits, reports

VERBS = {
    "put": "Put lines, whole files or arguments.",
    "get": "Print items and take them off the queue.",
    "work": "Run a command or a function on every item, in a pool of processes.",
    "run": "Run a pipeline of sources, queues, workers and sinks from a file.",
    "stats": "Show what the queue holds and who uses it.",
    "watch": "Watch the queue live: rates, backlog, processes.",
    "metrics": "Serve queues' figures to Prometheus.",
    "labels": "Show a topic's labels and how far each is; remove one.",
    "peek": "Show the next items and leave them where they are.",
    "dead": "Show what was given up; put it back, or throw it away.",
    "purge": "Throw away everything that waits.",
    "bridge": "Forward everything from one address to another, whatever happens to either.",
    "check": "Verify the queue on disk; repair it with --fix.",
    "import": "Bring over a queue of another library.",
    "salvage": "Read what can be read of a damaged or quarantined segment, or queue.",
    "rm": "Remove the queue and everything in it.",
    "demo": "Watch many processes share a queue, and see that nothing is lost.",
}
_MODULES = {"import": "segq.cli.import_", "demo": "segq.cli.demo.command"}


class Verbs(click.Group):
    """A group whose help needs no verb's module, so that `segq --help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(_MODULES.get(cmd_name, f"segq.cli.{cmd_name}"))
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Runs the verb. click would answer a broken pipe and Ctrl-C with exit code 1."""
        try:
            returned = super().invoke(ctx)
            sys.stdout.flush()  # here, where a reader that went away is still understood
        except BrokenPipeError:
            _silence_stdout()
            return exits.BROKEN_PIPE
        except KeyboardInterrupt:
            _silence_stdout()
            return exits.INTERRUPTED
        return returned

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _print_version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:  # click's call
    if not asked:
        return
    click.echo(f"segq {segq.__version__}")
    ctx.exit()


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage; 3 nothing there, or no room, in the time given;"
    " 130 interrupted; 141 the reader of the output went away.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version.")
def program() -> None:
    """A queue that processes share through a directory.

    QUEUE is that directory in every verb, or an address (nats://host:4222/name) where an engine of others stores it; it may be
    a topic, of which each label gets every item. `segq VERB --help` explains a verb; `segq demo` shows it all at work.
    """


def run(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code; whatever is wrong has been said on stderr by then."""
    reports.to_stderr()
    try:
        returned = program.main(list(arguments), prog_name="segq", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("segq: nothing done", err=True)
        return exits.FAILED
    except (QueueError, OSError) as error:
        click.echo(f"segq: error: {error}", err=True)
        return exits.FAILED
    return returned if isinstance(returned, int) else exits.OK


def _silence_stdout() -> None:
    """The interpreter flushes stdout as it ends; with the reader gone that would print a complaint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
