"""Create, recognise, refuse and remove the directory of a queue or a topic."""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import Any

from segq._core.base.errors import DamagedError, NotAQueueError, QueueError, SettingsError
from segq._core.base.settings import Settings, reconciled
from segq._core.directory import owners
from segq._core.format import format as fmt
from segq._core.system import fs
from segq._core.system.locks import StructureLock


def absolute(path: str | os.PathLike[str]) -> str:
    absolute = os.path.abspath(os.fspath(path))
    try:
        absolute.encode()
    except (UnicodeEncodeError, AttributeError):
        raise SettingsError(f"path must be text that UTF-8 can hold (RocksDB takes no other), not {path!r}") from None
    return absolute


def settle(path: str, kind: str, given: dict[str, Any], *, create: bool, allow_network_fs: bool) -> Settings:
    """The settings of the queue or topic (`kind`) at `path`; creates it if necessary."""
    file = os.path.join(path, fmt.QUEUE_FILE)
    fs.refuse_non_directory(path)
    if not allow_network_fs:
        fs.refuse_network(path)
    if not os.path.lexists(file):
        if not create:
            raise NotAQueueError(f"there is no {kind} at {path}; create it, or look for a mistyped path", path=path)
        _create(path, kind, Settings(**given))
    try:
        _, found, stored = fmt.decode_queue_file(fs.read_file(file), path)
    except DamagedError as error:
        raise NotAQueueError(f"{error}; nothing was touched", path=path) from error
    if found != kind:
        raise NotAQueueError(f"{path} is a {found}, not a {kind}; open it with segq.{found.capitalize()}", path=path)
    settings = reconciled(stored, given, path)
    fs.refuse_unsafe(path, code=settings.serializer == "pickle")
    fs.refuse_other_than_directories(path, fmt.DIRECTORIES)
    fs.refuse_other_than_file(path, fmt.LOCK_FILE)
    return settings


def _create(path: str, kind: str, settings: Settings) -> None:
    """Survives power loss at any durability: without `queue.json` no process could open the items."""
    fs.make_queue_directory(path)
    fs.refuse_unsafe(path, code=settings.serializer == "pickle")
    begun = (fmt.LOCK_FILE, fmt.OWNERS_DIR)  # left by a creation that died half-way
    foreign = [name for name in fs.listing(path) if name not in begun and not name.startswith(fmt.QUEUE_FILE)]
    if foreign and not os.path.lexists(os.path.join(path, fmt.QUEUE_FILE)):
        raise NotAQueueError(
            f"{path} is not empty and holds no queue ({', '.join(sorted(foreign)[:3])}); choose a new directory", path=path
        )
    with StructureLock(path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(path, fmt.OWNERS_DIR), 0o700)
        if not os.path.lexists(os.path.join(path, fmt.QUEUE_FILE)):  # the last step: from here on it is a queue
            for name in fs.listing(path):
                if name.startswith(fmt.QUEUE_FILE):  # left by a creation that did not finish
                    fs.unlink(os.path.join(path, name))
            document = fmt.encode_queue_file(str(uuid.uuid4()), kind, settings)
            fs.write_file(os.path.join(path, fmt.QUEUE_FILE), document, durable=True)


def kind_of(path: str | os.PathLike[str]) -> str:
    """ "queue" or "topic". Raises NotAQueueError or FormatVersionError if there is neither at `path`."""
    path = os.path.abspath(os.fspath(path))
    fs.refuse_non_directory(path)
    try:
        return fmt.decode_queue_file(fs.read_file(os.path.join(path, fmt.QUEUE_FILE)), path)[1]
    except FileNotFoundError:
        raise NotAQueueError(f"there is no queue at {path}", path=path) from None


def remove(path: str | os.PathLike[str]) -> None:
    """Deletes the queue or topic at `path` with all its items.

    Raises NotAQueueError for anything else, QueueError if it is in use.
    """
    path = os.path.abspath(os.fspath(path))
    fs.refuse_non_directory(path)
    try:
        fmt.decode_queue_file(fs.read_file(os.path.join(path, fmt.QUEUE_FILE)), path)
    except FileNotFoundError:
        raise NotAQueueError(f"there is no queue at {path}; nothing was removed", path=path) from None
    dead = os.path.join(path, fmt.DEAD_DIR)
    with contextlib.ExitStack() as locked:
        for each in filter(os.path.isdir, (path, dead)):
            locked.enter_context(StructureLock(each))
            _refuse_in_use(each)
        fs.remove_tree(path)


def _refuse_in_use(path: str) -> None:
    in_use = [slot for slot in owners.slots(path) if owners.is_alive(path, slot)]
    if in_use:
        record = owners.record(path, in_use[0])
        raise QueueError(
            f"{path} is open in {len(in_use)} handle(s), one of process {record.pid if record else '?'}; close them first",
            path=path,
        )
