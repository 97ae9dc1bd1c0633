"""Puts and gets that return at once, for a program that must not wait and has no event loop.

Run it:

    python examples/non_blocking.py

You will see three gets that wait without a thread each, and four puts into a queue that has room for two: each is done as
soon as it can be.
"""

from __future__ import annotations

import os
import tempfile

from segq import futures


def main() -> None:
    """Begins what has to wait, and looks at it later."""
    with tempfile.TemporaryDirectory() as directory, futures.Queue(os.path.join(directory, "jobs"), capacity=2) as q:
        gets = [q.get() for _ in range(3)]
        print("three gets wait:", [get.done() for get in gets])
        gets[1].cancel()
        for name in "ab":
            q.put(name)
        print("two of them got", [get.result() for get in (gets[0], gets[2])])

        puts = [q.put(n) for n in range(4)]
        print("puts that are stored:", [put.done() for put in puts])
        print("got", [q.get().result() for _ in range(4)])
        print("all are stored:", [put.result() for put in puts])


if __name__ == "__main__":
    main()
