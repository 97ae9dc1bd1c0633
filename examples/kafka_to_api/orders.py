"""The parts of the pipeline that are its own: where orders come from, what is done with them, how they are sent."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from typing import Any, Self

import segq
from segq.connectors.http import Request

BATCH = 20


def order(number: int) -> dict[str, Any]:
    """What a shop might send."""
    return {"number": number, "customer": f"customer {number % 97}", "cents": 100 + number * 37 % 10_000}


class Generator:
    """A source without a broker: puts `count` orders, and remembers in a file how many were put.

    In this order, so that one that is killed in between repeats a batch, and loses none.
    """

    def __init__(self, queue: segq.Queue, count: int, position: str, seconds: float) -> None:
        self._queue, self._count, self._position, self._seconds = queue, count, position, seconds

    @classmethod
    def from_settings(cls, queue: segq.Queue, *, count: int, position: str = "position", seconds: float = 0.0) -> Self:
        """`seconds`: to take between two batches."""
        return cls(queue, count, position, seconds)

    def run(self, stop: threading.Event) -> None:
        """Until all are put, or `stop` is set."""
        number = self._put_before()
        while number < self._count and not stop.wait(self._seconds):
            end = min(self._count, number + BATCH)
            self._queue.put_many([order(n) for n in range(number, end)])
            with open(f"{self._position}.new", "w") as file:
                file.write(str(end))
            os.replace(f"{self._position}.new", self._position)
            number = end

    def _put_before(self) -> int:
        try:
            with open(self._position) as file:
                return int(file.read())
        except FileNotFoundError:
            return 0


def from_kafka(record: Any) -> dict[str, Any]:
    """A record's value is an order in JSON; where it lay travels with it."""
    return {**json.loads(record.value), "from": f"{record.topic}/{record.partition}/{record.offset}"}


def prepare(value: dict[str, Any]) -> dict[str, Any]:
    """Some work for a processor: what the API wants to have signed."""
    seal = json.dumps(value, sort_keys=True).encode()
    for _ in range(2000):
        seal = hashlib.sha256(seal).digest()
    return {**value, "seal": seal.hex()}


def request(value: dict[str, Any]) -> Request:
    """PUT says what the API does: twice is the same as once."""
    return Request(
        method="PUT",
        url=f"orders/{value['number']}",
        headers={"Content-Type": "application/json"},
        body=json.dumps(value).encode(),
    )
