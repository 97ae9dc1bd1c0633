"""segq: a queue that processes share through a directory."""

from segq.check import check
from segq.dead import DeadLetters
from segq.errors import (
    ClosedError,
    DamagedError,
    Empty,
    FormatVersionError,
    Full,
    ItemTooLarge,
    LabelRemoved,
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
from segq.letter import DeadLetter
from segq.message import Message
from segq.place import kind_of, remove
from segq.problem import Problem, Quarantined, Report
from segq.queue import Queue
from segq.salvage import Salvaged, salvage
from segq.serializers import Serializer
from segq.settings import Settings
from segq.stats import LabelStats, OwnerStats, Stats
from segq.subscription import Lag, Subscription
from segq.topic import Topic

__version__ = "0.1.0"

__all__ = [
    "DeadLetter", "DeadLetters",
    "ClosedError", "DamagedError", "Empty", "FormatVersionError", "Full", "ItemTooLarge", "LabelRemoved", "LabelStats", "Lag",
    "Message", "NetworkFileSystemError", "NotAQueueError", "OwnerStats", "Problem", "Quarantined", "Queue", "QueueError",
    "ReceiptError", "Report", "Salvaged", "SerializationError", "Serializer", "Settings", "SettingsConflict", "SettingsError",
    "ShutDown", "Stats", "StorageError", "Subscription", "TooManyHandles", "Topic", "UnsafeDirectoryError", "check",
    "kind_of", "remove", "salvage",
]  # fmt: skip
