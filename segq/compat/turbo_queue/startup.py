"""`Startup`: what turbo-queue wants done before the work begins."""

from __future__ import annotations

import os

from segq.compat.turbo_queue.properties import Properties


class Startup(Properties):
    """Kept so that programs written for turbo-queue run: there is nothing left to clean up here."""

    def on_start_cleanup(self) -> None:
        """Puts right what dead processes left, as every opening does.

        Unlike turbo-queue's it may be called while others work: what they hold stays theirs.
        """
        if os.path.isdir(self.path):
            self.queue()
            self.close()

    def migrate_queue(self) -> None:
        """A place kept free by turbo-queue, which does nothing there either. A closed queue's directory may be renamed."""
