"""The two errors of persist-queue. They are segq's, and so the `queue` module's as well."""

from __future__ import annotations

from segq import Empty, Full

__all__ = ["Empty", "Full"]
