"""segq: a queue that processes share through a directory."""

import segq._moved  # noqa: F401  # for what it registers
from segq._core.base.errors import (
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
from segq._core.base.letter import DeadLetter
from segq._core.base.message import Message
from segq._core.base.serializers import Serializer
from segq._core.base.settings import Settings
from segq._core.directory.tally import LabelStats, OwnerStats, Stats
from segq.doctor.check import check
from segq.doctor.problem import Problem, Quarantined, Report
from segq.doctor.salvage import Salvaged, salvage
from segq.engines.bridge import Bridge, BridgeStats
from segq.engines.connect import connect, kind_of, remove
from segq.handles.dead import DeadLetters
from segq.handles.queue import Queue
from segq.handles.subscription import Lag, Subscription
from segq.handles.topic import Topic

__version__ = "0.1.0"

__all__ = [
    "Bridge", "BridgeStats", "ClosedError", "DamagedError", "DeadLetter", "DeadLetters", "Empty", "FormatVersionError", "Full",
    "ItemTooLarge", "LabelRemoved", "LabelStats", "Lag", "Message", "NetworkFileSystemError", "NotAQueueError", "OwnerStats",
    "Problem", "Quarantined", "Queue", "QueueError", "ReceiptError", "Report", "Salvaged", "SerializationError", "Serializer",
    "Settings", "SettingsConflict", "SettingsError", "ShutDown", "Stats", "StorageError", "Subscription", "TooManyHandles",
    "Topic", "UnreachableError", "UnsafeDirectoryError", "UnsupportedError", "check", "connect", "kind_of", "remove", "salvage",
]  # fmt: skip
