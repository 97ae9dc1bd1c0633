"""What a verb's QUEUE is: a queue, or a topic, of which a consumer reads one label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

import segq

Source = segq.Queue | segq.Subscription
Target = segq.Queue | segq.Topic


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--label and --start, for the verbs that take items."""
    start = click.option(
        "--start",
        type=click.Choice(["oldest", "newest", "next"]),
        default="oldest",
        show_default=True,
        help="Topic: where a new label begins: with the oldest item stored, the newest, or the next to come.",
    )
    return click.option("--label", metavar="LABEL", help="Topic: whose items to take; a new label is created.")(start(command))


def open_source(path: str, label: str | None, start: str = "oldest") -> Source:
    """The queue at `path`, or the label of the topic there. Raises click.UsageError if it is not said which."""
    if segq.kind_of(path) == "topic":
        if label is None:
            known = segq_labels(path)
            raise click.UsageError(f"{path} is a topic: say which --label ({', '.join(known) or 'there is none yet'})")
        return segq.Subscription(path, label, start)
    if label is not None:
        raise click.UsageError(f"{path} is a queue; only topics have labels")
    return segq.Queue(path, create=False)


def open_existing(path: str) -> Target:
    """Whatever is at `path`."""
    return segq.Topic(path, create=False) if segq.kind_of(path) == "topic" else segq.Queue(path, create=False)


def directory(path: str) -> str:
    """`path`, if it is one: what looks at files cannot look at a server."""
    if "://" in path:
        raise click.UsageError(f"{path} is an address; this verb looks at the files of a queue on this machine")
    return path


def segq_labels(path: str) -> list[str]:
    with segq.Topic(path, create=False) as topic:
        return topic.labels()
