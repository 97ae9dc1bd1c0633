"""Everything on one machine: orders, the pipeline, an API that misbehaves; parts are killed, and then the account is closed.

    python examples/kafka_to_api/show.py                              without a broker: a generator puts into the queue
    python examples/kafka_to_api/show.py --brokers 127.0.0.1:9092     from Kafka (see README.md)

Exits with 0 if every order was accepted by the API or is a dead letter that says why not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

import psutil

import segq

HERE = Path(__file__).resolve().parent
PATIENCE = 240.0  # seconds without an order coming through


class Show:
    """A directory with a copy of the pipeline, the processes, and what came through."""

    def __init__(self, directory: Path, count: int, brokers: str | None) -> None:
        self.directory, self.count, self.brokers = directory, count, brokers
        self.log = directory / "accepted.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (directory / "run").mkdir()
        shutil.copy(HERE / "orders.py", directory)
        text = (HERE / ("pipeline.toml" if brokers is None else "pipeline_kafka.toml")).read_text()
        text = text.replace("127.0.0.1:8090", f"127.0.0.1:{self.port}").replace("5_000", str(count))
        if brokers is not None:
            self.topic = f"orders-{uuid.uuid4().hex[:8]}"
            text = text.replace("127.0.0.1:9092", brokers).replace('["orders"]', f'["{self.topic}"]')
            text = text.replace("orders-to-api", f"orders-to-api-{self.topic}")
        (directory / "pipeline.toml").write_text(text)
        self.api = self.start_api()
        self.pipeline = self.start_pipeline()

    def start_api(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(HERE / "api.py"), str(self.log), "--port", str(self.port)])

    def start_pipeline(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "segq", "run", str(self.directory / "pipeline.toml"), "--status", "2"]
        return subprocess.Popen(command if self.brokers else [*command, "--exit-when-done"])

    def produce(self) -> None:
        command = [sys.executable, str(HERE / "produce.py"), "--brokers", str(self.brokers), "--topic", self.topic]
        subprocess.run([*command, "--count", str(self.count)], check=True)

    def accepted(self) -> Counter[int]:
        with contextlib.suppress(FileNotFoundError):
            return Counter(int(line) for line in self.log.read_text().split("\n")[:-1])
        return Counter()

    def dead(self) -> dict[int, str]:
        """The reasons of the dead letters, by order."""
        found: dict[int, str] = {}
        for name in ("orders", "prepared"):
            with contextlib.suppress(segq.NotAQueueError), segq.Queue(self.directory / "run" / name, create=False) as queue:
                found |= {letter.value["number"]: letter.reason for letter in queue.dead}
        return found

    def until(self, share: float) -> None:
        """Until this share of the orders has come through."""
        seen, since = -1, time.monotonic()
        while (come := len(self.accepted())) < share * self.count:
            if come != seen:
                seen, since = come, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise SystemExit(f"stuck at {come} of {self.count}")
            time.sleep(0.05)

    def kill(self, stage: str) -> None:
        """SIGKILL to one of the processes of a stage."""
        for process in psutil.Process(self.pipeline.pid).children():
            if process.name() == stage:
                say(f"kill -9 {process.pid}, a process of {stage!r}")
                process.kill()
                return

    def kill_pipeline(self) -> None:
        say(f"kill -9 {self.pipeline.pid}, the supervisor")
        children = psutil.Process(self.pipeline.pid).children()
        self.pipeline.kill()
        self.pipeline.wait()
        psutil.wait_procs(children, timeout=60)
        say("its processes have ended by themselves; another one starts")
        self.pipeline = self.start_pipeline()

    def outage(self, seconds: float) -> None:
        say(f"kill -9 {self.api.pid}, the API; it is away for {seconds:g} s")
        self.api.kill()
        self.api.wait()
        time.sleep(seconds)
        self.api = self.start_api()

    def account(self) -> bool:
        """Prints it; whether it closes."""
        accepted, dead = self.accepted(), self.dead()
        every = set(range(self.count))
        missing, invented = every - accepted.keys() - dead.keys(), accepted.keys() - every
        reasons = Counter(reason.split(" in order")[0] for reason in dead.values())
        print(f"orders                    {self.count:6}")
        print(
            f"  accepted by the API     {len(accepted):6}   (of these more than once: {sum(n > 1 for n in accepted.values())})"
        )
        print(f"  dead letters            {len(dead.keys() - accepted.keys()):6}")
        for reason, number in reasons.items():
            print(f"                          {number:6}   {reason[:80]}")
        print(f"  lost                    {len(missing):6}")
        print(f"  invented                {len(invented):6}")
        return not missing and not invented

    def end(self) -> None:
        for process in (self.pipeline, self.api):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def say(text: str) -> None:
    print(f"=== {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Orders to an API, with kills and an account.")
    parser.add_argument("--orders", type=int, default=5_000)
    parser.add_argument("--brokers", help="Kafka brokers; default: a generator puts straight into the queue")
    parser.add_argument("--outage", type=float, default=5.0, help="seconds for which the API is away")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kafka-to-api-") as directory:
        show = Show(Path(directory), chosen.orders, chosen.brokers)
        try:
            if chosen.brokers:
                show.produce()
            show.until(0.02)
            show.kill("kafka" if chosen.brokers else "generator")
            show.until(0.1)
            show.kill("prepare")
            show.until(0.3)
            show.kill("api")
            show.until(0.4)
            show.outage(chosen.outage)
            show.until(0.6)
            show.kill_pipeline()
            show.until(0.8)
            show.kill("api")
            if not chosen.brokers:
                if show.pipeline.wait(PATIENCE):
                    raise SystemExit("the pipeline did not end well")
            else:
                refused = sum(number % 1000 == 999 for number in range(chosen.orders))
                show.until(1 - refused / chosen.orders)
                show.end()
            closes = show.account()
        finally:
            show.end()
    sys.exit(0 if closes else 1)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
