"""One topic, two labels in unrelated processes: each gets every headline, at its own pace.

Run it:

    python examples/topic.py

You will see a mailer and an archive get the same five headlines. The archive's process is a second program that knows
nothing but the path; it subscribes late, and has missed nothing, because its label existed from the beginning.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import segq

HEADLINES = ["rain", "sun", "wind", "fog", "snow"]


def read(path: str, label: str) -> None:
    """What each of the two programs does."""
    with segq.Subscription(path, label) as subscription:
        for message in subscription.messages(timeout=0):
            print(f"{label}: {message.value}")
        print(f"{label}: missed {subscription.missed}, behind {subscription.lag.items}")


def main() -> None:
    """Publishes, and starts the two programs one after the other."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "weather")
        with segq.Topic(path) as topic:
            for label in ("mailer", "archive"):
                topic.subscribe(label, start="next").close()
            topic.put_many(HEADLINES)
            for label in ("mailer", "archive"):
                subprocess.run([sys.executable, __file__, path, label], check=True)
            print(f"stored now: {topic.qsize()}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        read(sys.argv[1], sys.argv[2])
    else:
        main()
