"""`segq salvage`: what can still be read goes to a new queue, or to a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import click

import segq
from segq._core.base.serializers import codec
from segq._core.system import fs
from segq.cli import exits, items
from segq.doctor.salvage import Wreck


@click.command("salvage")
@click.argument("path", type=click.Path(exists=True))
@click.argument("out", type=click.Path(allow_dash=True))
@click.option("--all", "acknowledged", is_flag=True, help="Also what was acknowledged, expired or dropped, if still there.")
@click.option("--lines", is_flag=True, help="OUT is a file: a line for each item, as `segq get` prints them.")
@click.option("-0", "--null", is_flag=True, help="OUT is a file: a zero byte after each item instead (segq put -0).")
@click.option("--json", "as_json", is_flag=True, help="OUT is a file: every item as a line of JSON (segq put --json).")
@click.option("--serializer", metavar="NAME", help="How the items were stored, where no queue.json tells (msgpack, json, …).")
def command(path: str, out: str, *, acknowledged: bool, lines: bool, null: bool, as_json: bool, serializer: str | None) -> int:
    """Read what can be read of PATH into OUT; PATH is not changed.

    PATH is a segment's directory, an entry of a quarantine, a whole quarantine, or a queue or topic, whether or not it
    can be opened. OUT becomes a new queue with the settings of the old one (without its capacity), or with --lines,
    --null or --json a new file; - is standard output.

    Says how many items were read, were acknowledged before (and left out), and cannot be read. The exit code is 1 if
    some cannot be read.

    \b
      segq salvage jobs/quarantine/chosen_1763..._0a1b... rescued
      segq salvage broken new && segq get new
      segq salvage --json broken - | segq put --json elsewhere
    """
    if sum((lines, null, as_json)) > 1:
        raise click.UsageError("choose one of --lines, --null and --json")
    if lines or null or as_json:
        wreck = Wreck(path, acknowledged=acknowledged)
        written = _write(wreck, out, serializer, items.as_json if as_json else items.rendered, b"\0" if null else b"\n")
    elif out == "-":
        raise click.UsageError("a queue cannot go to standard output: choose one of --lines, --null and --json")
    else:
        written = segq.salvage(path, out, acknowledged=acknowledged, serializer=serializer)
    _tell(written, acknowledged=acknowledged, to_stderr=out == "-")
    return exits.FAILED if written.unreadable else exits.OK


def _write(wreck: Wreck, out: str, serializer: str | None, render: Callable[[Any], bytes], end: bytes) -> segq.Salvaged:
    name = wreck.settings(serializer).serializer
    if name == "pickle":
        fs.refuse_unsafe(wreck.path, code=True)
    loads = codec(name, None)[1] if not name.startswith("custom:") else bytes
    undecodable = 0
    with _opened(out) as file:
        for data, _ in wreck.read():
            try:
                value = loads(data)
            except Exception:  # whatever a deserializer raises
                value, undecodable = data, undecodable + 1
            file.write(render(value) + end)
    if undecodable:
        click.echo(f"segq: {undecodable} items cannot be decoded with {name}; they are written as stored", err=True)
    return wreck.report(out)


@contextlib.contextmanager
def _opened(out: str) -> Iterator[BinaryIO]:
    if out == "-":
        with os.fdopen(1, "wb", closefd=False) as file:
            yield file
        return
    try:
        with open(out, "xb") as file:
            yield file
    except FileExistsError:
        raise click.ClickException(f"{out} exists; salvage writes to a new file") from None


def _tell(written: segq.Salvaged, *, acknowledged: bool, to_stderr: bool) -> None:
    for note in written.notes:
        click.echo(f"note: {note}", err=to_stderr)
    where = "standard output" if written.out == "-" else written.out
    left = "gone" if acknowledged else "left out; --all takes what is left of them"
    skipped = f"{written.skipped} acknowledged or expired before ({left})" if written.skipped else "none acknowledged before"
    items_read = f"{written.read} item{'' if written.read == 1 else 's'} read to {where}"
    click.echo(f"{items_read}; {skipped}; {written.unreadable or 'none'} unreadable", err=to_stderr)
