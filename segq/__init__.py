"""segq: a queue that processes share through a directory."""

from segq.check import Problem, Report, check
from segq.errors import (
    ClosedError,
    DamagedError,
    Empty,
    FormatVersionError,
    Full,
    ItemTooLarge,
    NetworkFileSystemError,
    NotAQueueError,
    QueueError,
    ReceiptError,
    SerializationError,
    SettingsConflict,
    SettingsError,
    ShutDown,
    StorageError,
    TooManyHandles,
    UnsafeDirectoryError,
)
from segq.message import Message
from segq.queue import Queue, remove
from segq.serializers import Serializer
from segq.settings import Settings
from segq.stats import OwnerStats, Stats

__version__ = "0.1.0"

__all__ = [
    "ClosedError", "DamagedError", "Empty", "FormatVersionError", "Full", "ItemTooLarge", "Message", "NetworkFileSystemError",
    "NotAQueueError", "OwnerStats", "Problem", "Queue", "QueueError", "ReceiptError", "Report", "SerializationError",
    "Serializer", "Settings", "SettingsConflict", "SettingsError", "ShutDown", "Stats", "StorageError", "TooManyHandles",
    "UnsafeDirectoryError", "check", "remove",
]  # fmt: skip
