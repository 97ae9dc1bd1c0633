"""What the library reports through `logging`, as the command's user sees it."""

from __future__ import annotations

import logging


def to_stderr(least: int = logging.WARNING) -> None:
    """What the library reports (a rescue, something in quarantine) appears like the command's own lines.

    The demo asks for errors only: there, rescues are the point and shown as numbers.
    """
    handler = logging.StreamHandler()
    handler.setLevel(least)
    handler.setFormatter(logging.Formatter("segq: %(message)s"))
    logging.getLogger("segq").handlers = [handler]
