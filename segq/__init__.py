"""segq: a queue that processes share through a directory."""

from segq.bridge import Bridge, BridgeStats
from segq.check import check
from segq.connect import connect, kind_of, remove
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
    UnreachableError,
    UnsafeDirectoryError,
    UnsupportedError,
)
from segq.letter import DeadLetter
from segq.message import Message
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
    "Bridge", "BridgeStats", "ClosedError", "DamagedError", "DeadLetter", "DeadLetters", "Empty", "FormatVersionError", "Full",
    "ItemTooLarge", "LabelRemoved", "LabelStats", "Lag", "Message", "NetworkFileSystemError", "NotAQueueError", "OwnerStats",
    "Problem", "Quarantined", "Queue", "QueueError", "ReceiptError", "Report", "Salvaged", "SerializationError", "Serializer",
    "Settings", "SettingsConflict", "SettingsError", "ShutDown", "Stats", "StorageError", "Subscription", "TooManyHandles",
    "Topic", "UnreachableError", "UnsafeDirectoryError", "UnsupportedError", "check", "connect", "kind_of", "remove", "salvage",
]  # fmt: skip
