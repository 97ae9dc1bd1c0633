"""``python -m benchmarks.engines``: the local engine beside NATS, and segq's layer on NATS beside plain nats-py doing the same.

The same means: the same bytes, message ids, batches stored as one atomic write, every write confirmed, batches fetched and
their acknowledgement confirmed. The two are timed in turns, batch by batch, on the same server, so that whatever else the
machine does hits both; the cost of the layer is the median of the pairs' ratios. One server, and a cluster of three with
three replicas, on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import segq
from benchmarks.sample import percentile

BATCH = 1000
PAYLOAD = bytes(range(100))
TARGET = 1.10
"""What the layer may cost on batches: a tenth."""


class Plain:
    """nats-py by hand: a work queue, one consumer, no segq."""

    def __init__(self, url: str, replicas: int) -> None:
        import nats

        self._runner = asyncio.Runner()
        self.name = f"plain-{uuid.uuid4().hex[:8]}"

        async def prepare() -> None:
            self.client = await nats.connect([_with_scheme(each) for each in url.split(",")])
            self.stream = self.client.jetstream()
            await self.stream.add_stream(
                name=self.name, subjects=[self.name], retention="workqueue", num_replicas=replicas, allow_atomic=True
            )
            self.pull = await self.stream.pull_subscribe(self.name, "workers", stream=self.name)

        self._runner.run(prepare())

    def put(self) -> None:
        self._runner.run(self.stream.publish(self.name, PAYLOAD, headers={"Nats-Msg-Id": uuid.uuid4().hex}))

    def get(self) -> None:
        async def one() -> None:
            await (await self.pull.fetch(1))[0].ack_sync()

        self._runner.run(one())

    def put_batch(self) -> None:
        """One atomic publish."""

        async def batch() -> None:
            identity = uuid.uuid4().hex
            for number in range(1, BATCH):
                headers = {"Nats-Msg-Id": f"{identity}-{number}", "Nats-Batch-Id": identity, "Nats-Batch-Sequence": str(number)}
                await self.client.publish(self.name, PAYLOAD, headers=headers)
            last = {"Nats-Msg-Id": f"{identity}-{BATCH}", "Nats-Batch-Id": identity, "Nats-Batch-Sequence": str(BATCH)}
            answer = await self.client.request(self.name, PAYLOAD, headers=last | {"Nats-Batch-Commit": "1"}, timeout=10)
            assert b"error" not in answer.data, answer.data

        self._runner.run(batch())

    def put_pipelined(self) -> None:
        """As nats-py's users do it: many in flight, each confirmed."""

        async def batch() -> None:
            identity = uuid.uuid4().hex
            waiting = [
                await self.stream.publish_async(self.name, PAYLOAD, headers={"Nats-Msg-Id": f"{identity}-{n}"})
                for n in range(BATCH)
            ]
            await asyncio.gather(*waiting)

        self._runner.run(batch())

    def get_batch(self) -> None:
        async def batch() -> None:
            left = BATCH
            while left:
                messages = await self.pull.fetch(left, timeout=10)
                for message in messages[:-1]:
                    await message.ack()
                await messages[-1].ack_sync(10)
                left -= len(messages)

        self._runner.run(batch())

    def close(self) -> None:
        self._runner.run(self.client.close())
        self._runner.close()


class Ours:
    """segq, on any engine."""

    def __init__(self, address: str, **settings: Any) -> None:
        self.queue: Any = segq.connect(address, serializer="raw", **settings)
        self._batch = [PAYLOAD] * BATCH
        self.other: Any = segq.connect(address)

    def put(self) -> None:
        self.queue.put(PAYLOAD)

    def get(self) -> None:
        self.queue.get()

    def put_batch(self) -> None:
        self.queue.put_many(self._batch)

    def get_batch(self) -> None:
        left = BATCH
        while left:
            left -= len(self.queue.get_many(left))

    def latencies(self, count: int) -> list[int]:
        """Nanoseconds from the beginning of a `put` to the return of a `get` that was waiting, in another thread."""
        found: list[int] = []
        got = threading.Event()

        def receive() -> None:
            for _ in range(count):
                begun = int.from_bytes(self.other.get(timeout=60), "little")
                found.append(time.perf_counter_ns() - begun)
                got.set()

        thread = threading.Thread(target=receive)
        thread.start()
        for _ in range(count):
            time.sleep(0.002)  # so that it waits again
            got.clear()
            self.queue.put(time.perf_counter_ns().to_bytes(8, "little"))
            got.wait(60)
        thread.join()
        return sorted(found)

    def close(self) -> None:
        self.queue.close()
        self.other.close()


def _with_scheme(host: str) -> str:
    return host if "://" in host else f"nats://{host}"


def timed(work: Callable[[], None], times: int = 1) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - begun


def pairs(rounds: int, one: Callable[[], None], other: Callable[[], None], times: int = 1) -> tuple[float, float, float]:
    """Median seconds of each, and the median of the ratios; they take turns at who is first."""
    ones, others = [], []
    one()
    other()  # both warm
    for turn in range(rounds):
        for mine in (True, False) if turn % 2 else (False, True):
            (ones if mine else others).append(timed(one if mine else other, times))
    ratio = statistics.median(a / b for a, b in zip(ones, others, strict=True))
    return statistics.median(ones), statistics.median(others), ratio


@contextlib.contextmanager
def servers() -> Iterator[dict[str, tuple[str, int]]]:
    """Addresses of one server and of three, with the replicas to ask for; none where there is no nats-server."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from nats_server import Cluster, Server, binary

    if binary() is None:
        yield {}
        return
    with Server() as server, Cluster() as cluster:
        yield {"NATS, one server": (server.url, 1), "NATS, three replicas": (cluster.url, 3)}


def main() -> int:
    """Prints the table; 1 if the layer costs more on batches than it may."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="pairs of batches (default: 21)")
    options = parser.parse_args()
    console = Console(width=120) if not sys.stdout.isatty() else Console()
    speeds = Table("engine", "put /s", "get /s", f"put_many({BATCH}) /s", f"get_many({BATCH}) /s", "put to get, p50 / p99 µs")
    layers = Table("engine", "work", "segq /s", "plain nats-py /s", "cost of the layer", "")
    missed = False
    with tempfile.TemporaryDirectory() as directory, servers() as known:
        local = Ours(f"{directory}/local")
        _speeds(speeds, "local", local, options.rounds)
        local.close()
        if not known:
            console.print("There is no nats-server here: .ci/nats-server installs one.")
        for name, (url, replicas) in known.items():
            ours, plain = Ours(f"{url}/bench", replicas=replicas, connect_timeout=20), Plain(url, replicas)
            _speeds(speeds, name, ours, options.rounds)
            for work, a, b, times, items in (
                ("put, each confirmed", ours.put, plain.put, 50, 50),
                ("get, each confirmed", ours.get, plain.get, 50, 50),
                ("put_many, one atomic write", ours.put_batch, plain.put_batch, 1, BATCH),
                ("put_many, beside publish_async", ours.put_batch, plain.put_pipelined, 1, BATCH),
                ("get_many, confirmed", ours.get_batch, plain.get_batch, 1, BATCH),
            ):
                mine, theirs, ratio = pairs(options.rounds, a, b, times)
                judged = work.endswith(("write", "confirmed")) and "many" in work
                missed |= judged and ratio > TARGET
                verdict = "" if not judged else "met" if ratio <= TARGET else f"missed: at most {TARGET - 1:.0%}"
                layers.add_row(name, work, f"{items / mine:,.0f}", f"{items / theirs:,.0f}", f"{ratio - 1:+.0%}", verdict)
            ours.close()
            plain.close()
    console.print(speeds)
    console.print(layers)
    return int(missed)


def _speeds(table: Table, name: str, ours: Ours, rounds: int) -> None:
    put = statistics.median(timed(ours.put, 50) for _ in range(rounds)) / 50
    get = statistics.median(timed(ours.get, 50) for _ in range(rounds)) / 50
    put_many, get_many = [], []
    for _ in range(rounds):
        put_many.append(timed(ours.put_batch))
        get_many.append(timed(ours.get_batch))
    taken = ours.latencies(rounds * 10)
    table.add_row(
        name,
        f"{1 / put:,.0f}",
        f"{1 / get:,.0f}",
        f"{BATCH / statistics.median(put_many):,.0f}",
        f"{BATCH / statistics.median(get_many):,.0f}",
        f"{percentile(taken, 0.5) / 1000:,.0f} / {percentile(taken, 0.99) / 1000:,.0f}",
    )


if __name__ == "__main__":
    sys.exit(main())
