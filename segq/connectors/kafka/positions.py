"""How far each partition of each topic is stored in a queue: what lets a source drop a repeat on the way in.

A file for each partition, in the directory of the queue it speaks of, so that it is removed, copied and kept with it::

    <queue>/connectors/kafka/<topic>/<topic id>/<partition>      {"stored": 41799, "storing": null}

The topic id is the cluster's (a topic that was deleted and made anew begins at offset 0 and is another one). `stored` is the
highest offset that is in the queue. Before a batch is put its highest offset is noted as `storing`, and after that as
`stored`; each note is one write of a few bytes, which no SIGKILL can halve. All of this, read, note, put, note, is done under
the file's lock: a process that was stopped, was taken for dead by the group and comes back with a batch finds its offsets
stored and drops them. The kernel lets go of the lock of who dies.

Dead between the two notes, a process leaves `storing`: its last batch is in the queue as a whole or not at all, and nobody can
say which, since it may have been consumed meanwhile. It is then put again, each record marked `doubtful`. The time in which
that repeats records is the one from the put's last store to the second note: some microseconds of every batch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import segq

DIRECTORY = os.path.join("connectors", "kafka")
NOTHING = -1  # no offset
_LENGTH = 96  # of a note, padded: two numbers of 19 digits have room

Partition = tuple[str, int]  # topic and number


class Position:
    """The file of one partition, open. Used by one thread; between `lock` and `unlock` nobody else changes it."""

    def __init__(self, path: str, *, durable: bool) -> None:
        self._path, self._durable = path, durable
        self.stored = self.storing = NOTHING
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def lock(self) -> bool:
        """False if another process is just storing records of this partition."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.stored, self.storing = _read(self._descriptor)
        return True

    def unlock(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def note(self, stored: int, storing: int) -> None:
        """Under the lock. With durability="power" it survives loss of power when this returns."""
        said = {"stored": stored if stored != NOTHING else None, "storing": storing if storing != NOTHING else None}
        os.pwrite(self._descriptor, json.dumps(said).encode().ljust(_LENGTH - 1) + b"\n", 0)
        if self._durable:
            os.fdatasync(self._descriptor)
        self.stored, self.storing = stored, storing

    def close(self) -> None:
        os.close(self._descriptor)


def _read(descriptor: int) -> tuple[int, int]:
    """Nothing stored, if there is no note that makes sense (new, or damaged): a repeat is better than a loss."""
    try:
        said = json.loads(os.pread(descriptor, _LENGTH, 0))
        return _offset(said["stored"]), _offset(said["storing"])
    except (ValueError, KeyError, TypeError):
        return NOTHING, NOTHING


def _offset(said: Any) -> int:
    if said is None:
        return NOTHING
    if isinstance(said, int) and not isinstance(said, bool) and said >= 0:
        return said
    raise ValueError(said)


class Positions:
    """The positions that one source has open."""

    def __init__(self, queue: str, *, durable: bool) -> None:
        self._place, self._durable = os.path.join(os.path.realpath(queue), DIRECTORY), durable
        self._open: dict[Partition, Position] = {}
        self._ids: dict[str, str] = {}

    def knows(self, topic: str) -> bool:
        return topic in self._ids

    def learn(self, topic: str, topic_id: str) -> None:
        """Which topic of that name it is; the positions of another one, gone now, are let go of."""
        self._ids[topic] = topic_id
        self.close([partition for partition in self._open if partition[0] == topic])

    def forget(self, topic: str) -> None:
        """Its id has to be looked up again."""
        self._ids.pop(topic, None)

    @contextlib.contextmanager
    def held(self, partitions: Iterable[Partition]) -> Iterator[dict[Partition, Position] | None]:
        """The positions of these partitions, locked; None if somebody else has one of them locked."""
        locked: dict[Partition, Position] = {}
        try:
            for partition in sorted(partitions):
                position = self._open.get(partition) or self._opened(partition)
                if not position.lock():
                    yield None
                    return
                locked[partition] = position
            yield locked
        finally:
            for position in locked.values():
                position.unlock()

    def _opened(self, partition: Partition) -> Position:
        topic, number = partition
        path = os.path.join(self._place, topic, self._ids[topic], str(number))
        if os.path.realpath(path) != path:  # a link, or a topic's name that no broker would allow
            raise segq.StorageError(f"{path}: cannot note how far the topic is stored: it leads elsewhere", path=path)
        try:
            position = self._open[partition] = Position(path, durable=self._durable)
        except OSError as error:
            raise segq.StorageError(
                f"{path}: cannot note how far the topic is stored: {error.strerror}", errno=error.errno, path=path
            ) from error
        return position

    def close(self, partitions: Iterable[Partition] | None = None) -> None:
        for partition in list(self._open if partitions is None else partitions):
            position = self._open.pop(partition, None)
            if position is not None:
                position.close()
