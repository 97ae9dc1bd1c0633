"""`with queue.receive()` and a crash: the item that a killed process had in hand comes back by itself.

Run it:

    python examples/crash_safe_receive.py

You will see a child process take an order and be killed with SIGKILL in the middle of its work, without a chance to
clean up. The parent, which does nothing but wait for an item, has the same order about a second later, marked as its
second delivery. Its exception shows the other way back: an order whose work fails is given back as well.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from multiprocessing.connection import Connection

import segq


def doomed(path: str, report: Connection) -> None:
    """Takes an order and never comes to the end of it."""
    with segq.Queue(path) as queue, queue.receive() as message:
        report.send((message.value, message.deliveries))
        time.sleep(3600)


def main() -> None:
    """One order, three attempts."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "orders")
        with segq.Queue(path) as queue:
            queue.put("order 4711")

            report, end = multiprocessing.Pipe()
            child = multiprocessing.get_context("spawn").Process(target=doomed, args=(path, end))
            child.start()
            order, deliveries = report.recv()
            print(f"the child works on {order!r}, delivery {deliveries}")

            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            killed = time.monotonic()
            print("the child was killed")

            try:
                with queue.receive(timeout=30) as message:
                    waited = time.monotonic() - killed
                    print(f"{message.value!r} came back after {waited:.1f} s, delivery {message.deliveries}")
                    raise RuntimeError("out of paper")
            except RuntimeError as error:
                print(f"the work failed ({error}), so the order was given back")

            with queue.receive(timeout=30) as message:
                print(f"{message.value!r} is done now, delivery {message.deliveries}")
            print(f"orders left: {queue.qsize()}")


if __name__ == "__main__":
    main()
