"""What children do; importable by name, as spawn and forkserver need it."""

from __future__ import annotations

import segq

HANDLE: list[segq.Queue | None] = [None]


def set_handle(q: segq.Queue | None) -> None:
    HANDLE[0] = q


def passed_child(q: segq.Queue, count: int) -> None:
    for n in range(count):
        q.put(["child", n])


def inherited_child(count: int) -> None:
    assert HANDLE[0] is not None
    passed_child(HANDLE[0], count)


def worker(tasks: segq.Queue, results: segq.Queue) -> None:
    while (task := tasks.get(timeout=60)) is not None:
        results.put(task * task)
        tasks.task_done()
    tasks.task_done()


class Doubling:
    """A serializer of the user's."""

    def dumps(self, item: str) -> bytes:
        return 2 * item.encode()

    def loads(self, data: bytes) -> str:
        return data.decode()
