"""What a verb's QUEUE is: the path or the address of a queue, or of a topic, of which a consumer reads one label."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

import segq
from segq.engines.address import is_address
from segq.engines.connect import exists, subscription
from segq.engines.interface import QueueLike, SubscriptionLike, TopicLike

Source = QueueLike | SubscriptionLike
Target = QueueLike | TopicLike


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


def open_source(path: str, label: str | None, start: str = "oldest", max_deliveries: int | None = None) -> Source:
    """The queue at `path`, or the label of the topic there. Raises click.UsageError if it is not said which."""
    given: dict[str, Any] = {} if max_deliveries is None else {"max_deliveries": max_deliveries}
    if segq.kind_of(path) == "topic":
        if label is None:
            known = segq_labels(path)
            raise click.UsageError(f"{path} is a topic: say which --label ({', '.join(known) or 'there is none yet'})")
        return subscription(path, label, start, **given)
    if label is not None:
        raise click.UsageError(f"{path} is a queue; only topics have labels")
    return segq.connect(path, "queue", create=False, **given)


def open_existing(path: str) -> Target:
    """Whatever is at `path`."""
    return segq.connect(path, segq.kind_of(path), create=False)


def open_target(path: str, settings: dict[str, Any], *, topic: bool) -> Target:
    """Where to put: what is at `path`, or a new queue (or `topic`) with these settings."""
    kind = "topic" if topic or (exists(path) and segq.kind_of(path) == "topic") else "queue"
    if is_address(path) and not path.startswith("segq://"):
        settings = {"atomic": False, **settings}  # what is read at once need not be stored as one write
    return segq.connect(path, kind, **settings)


def absolute(path: str) -> str:
    """What means the same in a process that stands elsewhere."""
    return path if is_address(path) else os.path.abspath(path)


def segq_labels(path: str) -> list[str]:
    with segq.connect(path, "topic", create=False) as topic:
        return topic.labels()
