"""What the library reports through `logging`, as the command's user sees it."""

from __future__ import annotations

import logging


def to_stderr() -> None:
    """Warnings of the library (a rescue, something in quarantine) appear like the command's own lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("segq: %(message)s"))
    logging.getLogger("segq").handlers = [handler]


def to_nowhere() -> None:
    """For the demo, where rescues are the point and shown as numbers."""
    logging.getLogger("segq").handlers = [logging.NullHandler()]
