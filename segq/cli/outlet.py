"""Standard output that knows how much of what was written its reader has really taken.

Writing into a pipe succeeds as long as its buffer has room, whether or not anybody ever reads it: `get q | head -1`
would lose what lay in the buffer when `head` went away. On Linux the buffer can be asked how much is unread, so an
item counts as delivered once it has left the pipe. Elsewhere, and for files and terminals, written is taken.
"""

from __future__ import annotations

import array
import os
import select
import stat
import sys
import time

PATIENCE = 2.0  # seconds: a reader that takes nothing for so long, yet stays, will be trusted to read it one day


class Outlet:
    """An open file descriptor to write to, with the count of bytes taken out at its other end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode) and sys.platform == "linux"
        self._trusted = 0
        self.written = 0

    def write(self, data: bytes) -> None:
        """Writes all of it; `written` is right even when the reader goes away in the middle (BrokenPipeError)."""
        rest = memoryview(data)
        while rest:
            done = os.write(self._descriptor, rest)
            self.written += done
            rest = rest[done:]

    def taken(self) -> int:
        """How many of the bytes written have left for good."""
        if not self._is_pipe:
            return self.written
        return max(self._trusted, self.written - self._unread())

    def wait_until_taken(self) -> None:
        """Returns when everything written is taken. Raises BrokenPipeError if the reader goes away before that.

        A reader may well wait for us to exit before it reads, so one that takes nothing for PATIENCE is trusted.
        """
        seen, since, pause = self.taken(), time.monotonic(), 0.0005
        while seen < self.written:
            self.demand_reader()
            time.sleep(pause)  # nothing wakes a writer when a pipe has become empty
            pause = min(pause * 2, 0.02)
            now = self.taken()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                self._trusted = self.written
                return

    def demand_reader(self) -> None:
        """Raises BrokenPipeError if nobody can read any more what is written from now on."""
        if not self._is_pipe:
            return
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if any(events & select.POLLERR for _, events in poll.poll(0)):
            raise BrokenPipeError

    def _unread(self) -> int:
        import fcntl
        import termios

        answer = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, answer)
        return min(answer[0], self.written)
