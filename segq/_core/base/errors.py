"""Every error segq raises, grouped by whose fault it is.

* The queue's state, nobody's fault: `Empty`, `Full`, `ShutDown`. They are the `queue` module's own as well, so code
  written for `queue.Queue` catches them unchanged.
* The caller's: `ClosedError`, `LabelRemoved`, `SettingsError`, `SettingsConflict`, `SerializationError`, `ItemTooLarge`,
  `ReceiptError`.
* The place's: `NotAQueueError`, `FormatVersionError`, `UnsafeDirectoryError`, `NetworkFileSystemError`, `TooManyHandles`.
* The disk's: `StorageError` (also an `OSError`, with its errno), `DamagedError`.
* Another engine's: `UnsupportedError` (it cannot do that), `UnreachableError` (its server does not answer).

Each carries what is known of `path` and `segment`, survives pickling (a worker's error travels to its parent) and says
in its message what to do next.
"""

from __future__ import annotations

import queue
from typing import Any


class QueueError(Exception):
    """Base of all errors of segq. `path` is the queue's directory, `segment` a segment's name; either may be None."""

    def __init__(self, message: str = "", *, path: str | None = None, segment: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.segment = segment

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(kind: type[QueueError], args: tuple[Any, ...], state: dict[str, Any]) -> QueueError:
    error = kind.__new__(kind, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class Empty(QueueError, queue.Empty):
    """Nothing to hand out (in time)."""


class LabelRemoved(QueueError):
    """The label that is being read was removed from its topic, by this process or another."""


class Full(QueueError, queue.Full):
    """No room (in time): the capacity is taken by items that are not acknowledged yet."""


_StdlibShutDown: type[Exception] = getattr(queue, "ShutDown", Exception)


class ShutDown(QueueError, _StdlibShutDown):  # type: ignore[misc,valid-type]  # the base exists since Python 3.13
    """The queue was shut down: no puts any more, and no gets once it is empty (at once, if `immediate`)."""


class ClosedError(QueueError, ValueError):
    """The handle was closed; open the queue again to go on."""


class SettingsError(QueueError, ValueError):
    """A setting or an argument has a value that cannot work."""


class SettingsConflict(SettingsError):
    """The queue exists and was created with another value of the setting named in the message."""


class SerializationError(QueueError, TypeError):
    """The serializer cannot turn this item into bytes; nothing was stored."""


class ItemTooLarge(QueueError, ValueError):
    """The item, or the batch, could never fit, however empty the queue; nothing was stored."""


class ReceiptError(QueueError):
    """The message is no longer yours: its lease ran out, it was settled before, or its handle was closed.

    The item may be with another consumer by now; what you did with it may be done again.
    """


class NotAQueueError(QueueError):
    """There is no queue at this path (or something else lies there); it was left untouched."""


class FormatVersionError(QueueError):
    """The directory was written by a version of segq that this one cannot read; it was left untouched."""


class UnsafeDirectoryError(QueueError, PermissionError):
    """Other users could plant files here; refused where that would let them run code or redirect writes."""


class NetworkFileSystemError(QueueError):
    """The path lies on a network file system, where mapped files and kernel locks do not hold between hosts."""


class TooManyHandles(QueueError):
    """All handle slots of the queue are taken."""


class StorageError(QueueError, OSError):
    """The disk refused (full, I/O error, no permission); nothing was stored, `errno` says why."""

    def __init__(
        self, message: str = "", *, errno: int | None = None, path: str | None = None, segment: str | None = None
    ) -> None:
        super().__init__(message, path=path, segment=segment)
        self.errno = errno

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, {**self.__dict__, "errno": self.errno}))


class DamagedError(QueueError):
    """A segment or a block cannot be read. The consumer quarantines it and goes on with the rest."""


class UnsupportedError(QueueError, NotImplementedError):
    """The engine behind this address cannot do what was asked, and nothing like it was done instead; see docs/engines.md."""


class UnreachableError(QueueError, ConnectionError):
    """The engine's server did not answer in time. What was asked may have been done or not; the message says if it matters."""


__all__ = [name for name, value in list(vars().items()) if isinstance(value, type) and issubclass(value, QueueError)]
for _name in __all__:
    globals()[_name].__module__ = "segq"  # what a traceback and a pickle say: the public name
_rebuild.__module__ = "segq.errors"  # pickles name it; it is to be found there by every version
