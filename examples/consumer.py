"""The other half of the pair: see `producer.py` for how to run them and what you will see.

It ends when the producer's last word has come, or when nothing has come for ten seconds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

import segq

PATIENCE = 10.0  # seconds

DEFAULT_PATH = os.path.join(tempfile.gettempdir(), f"segq-example-{os.getuid()}")


def main() -> None:
    """Prints every reading and how long it was under way."""
    path = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_PATH
    taken = 0
    with segq.Queue(path) as queue:
        while True:
            try:
                reading = queue.get(timeout=PATIENCE)
            except segq.Empty:
                print(f"nothing came for {PATIENCE:g} seconds; {taken} readings taken")
                return
            if "total" in reading:
                print(f"that was all: {taken} of {reading['total']} readings taken")
                return
            taken += 1
            delay = (time.time() - reading["sent"]) * 1000
            print(f"got reading {reading['number']}: {reading['celsius']} degrees, {delay:.2f} ms after it was read")


if __name__ == "__main__":
    main()
