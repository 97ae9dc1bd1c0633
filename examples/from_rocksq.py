"""RocksQ's queue and its queue with labels, on segq: the imports changed, and a second process may join.

Run it:

    python examples/from_rocksq.py

You will see one process push and another pop from the same queue, which RocksQ does not allow, and two labels get everything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from segq.compat.rocksq import StartPosition
from segq.compat.rocksq.blocking import MpmcQueue, PersistentQueueWithCapacity


def other_process(path: str) -> None:
    """Pops what its parent, which has the queue open, pushed."""
    queue = PersistentQueueWithCapacity(path, 3)
    print("popped in another process:", queue.pop(max_elements=10))


def main() -> None:
    """Pushes until the queue is full, has the other process pop, and reads a queue with labels."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "queue")
        queue = PersistentQueueWithCapacity(path, 3)
        queue.push([b"a", b"b", b"c"])
        try:
            queue.push([b"d"])
        except RuntimeError as error:
            print(error)
        subprocess.run([sys.executable, __file__, path], check=True)
        print("left:", queue.len)

        news = MpmcQueue(os.path.join(directory, "news"), ttl=60)
        news.add([b"rain", b"sun"])
        for label in ("mail", "log"):
            items, expired = news.next(label, StartPosition.Oldest, max_elements=10)
            print(label, items, expired)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        other_process(sys.argv[1])
    else:
        main()
