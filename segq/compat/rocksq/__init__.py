"""RocksQ 0.3's API on segq: change the import, keep the code.

    from segq.compat import rocksq
    from segq.compat.rocksq import StartPosition, remove_queue
    from segq.compat.rocksq.blocking import PersistentQueueWithCapacity

What gets better and what differs: `docs/coming-from-rocksq.md`. RocksQ is insight-platform's, https://github.com/insight-platform/RocksQ;
this has its names, arguments, defaults and meaning, and none of its code.
"""

from segq.compat.rocksq import blocking, nonblocking
from segq.compat.rocksq.start import StartPosition
from segq.compat.rocksq.store import remove_mpmc_queue, remove_queue

rocksq_blocking, rocksq_nonblocking = blocking, nonblocking  # as RocksQ names them as well


def version() -> str:
    """The version of RocksQ whose API this is."""
    return "0.3.0"


__all__ = [
    "StartPosition", "remove_mpmc_queue", "remove_queue", "rocksq_blocking", "rocksq_nonblocking", "version",
]  # fmt: skip
