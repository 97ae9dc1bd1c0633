"""Being told to end: SIGINT, SIGTERM and SIGHUP become exceptions, so that verbs give back what they hold.

An exception that strikes inside a finaliser is swallowed by Python; therefore the signal is remembered as well, and loops
call `leave_if_asked` once a round.
"""

from __future__ import annotations

import signal
from types import FrameType

_asked: list[int] = []


def prepare() -> None:
    """Installs the handlers, but not where a signal is ignored already: nohup and the shell's `&` want it so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
            signal.signal(number, _leave)


def leave_if_asked() -> None:
    """Raises what the signal raised when it came, if one has come."""
    if _asked:
        _raise(_asked[-1])


def _leave(number: int, _frame: FrameType | None) -> None:
    _asked.append(number)
    _raise(number)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
