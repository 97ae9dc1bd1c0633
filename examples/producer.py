"""One half of a pair of unrelated scripts that share nothing but a path; `consumer.py` is the other.

Run both, in any order, in two terminals or in one:

    python examples/producer.py & python examples/consumer.py

You will see every reading leave here and arrive there at once. Run the producer alone first, and the readings wait on
disk for the consumer, for as long as it takes. Both take another path as their argument.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time

import segq

READINGS = 20
PAUSE = 0.1  # seconds between two readings

DEFAULT_PATH = os.path.join(tempfile.gettempdir(), f"segq-example-{os.getuid()}")


def main() -> None:
    """Puts some readings of a thermometer, then a last word."""
    path = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_PATH
    with segq.Queue(path) as queue:
        for number in range(1, READINGS + 1):
            reading = {"number": number, "celsius": round(random.gauss(20, 2), 1), "sent": time.time()}
            queue.put(reading)  # when this returns, the reading survives the death of this process
            print(f"put reading {number}: {reading['celsius']} degrees")
            time.sleep(PAUSE)
        queue.put({"number": 0, "total": READINGS})


if __name__ == "__main__":
    main()
