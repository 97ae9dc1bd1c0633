"""What a pipeline's file says, checked before anything is started."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from typing import Any

import segq
from segq.pipeline.registry import known

GROUPS = {"source": "sources", "worker": "workers", "sink": "sinks"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlan:
    """A queue, or a topic, of the pipeline."""

    name: str
    path: str
    is_topic: bool
    settings: Mapping[str, Any]

    def open(self) -> segq.Queue | segq.Topic:
        """Opens it; it is made if it is missing. Raises the queue's errors."""
        return segq.Topic(self.path, **self.settings) if self.is_topic else segq.Queue(self.path, **self.settings)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """A source, a worker or a sink, of which `processes` run at the same time. Picklable: it is sent to them."""

    name: str
    role: str
    kind: str
    processes: int
    taken_from: QueuePlan | None
    label: str | None
    put_to: QueuePlan | None
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A pipeline. `directory` is where its file lies: what is relative in it is so to there, also for its functions."""

    name: str
    directory: str
    drain: float
    grace: float
    queues: tuple[QueuePlan, ...]
    stages: tuple[StagePlan, ...]


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The pipeline in this file. Raises SettingsError, which says where in it, and OSError."""
    place = os.path.abspath(os.fspath(path))
    with open(place, "rb") as file:
        try:
            document = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise segq.SettingsError(f"{place} is not TOML: {error}") from error
    return _Reading(place).plan(document)


class _Reading:
    """One file being read. Errors say in which table."""

    def __init__(self, path: str) -> None:
        self._path, self._directory = path, os.path.dirname(path)
        self._queues: dict[str, QueuePlan] = {}

    def plan(self, document: dict[str, Any]) -> Plan:
        top = _Table(self._path, "", document)
        about = top.table("pipeline")
        name = about.text("name", os.path.basename(self._path).removesuffix(".toml"))
        base = os.path.join(self._directory, about.text("directory", ""))
        drain, grace = about.seconds("drain", 10.0), about.seconds("grace", 30.0)
        about.end()
        for key, table in top.tables("queues"):
            self._queues[key] = self._queue(key, table, base)
        stages = [self._stage(role, key, table) for role, group in GROUPS.items() for key, table in top.tables(group)]
        top.end()
        names = [stage.name for stage in stages]
        for twice in {name for name in names if names.count(name) > 1}:
            raise segq.SettingsError(f"{self._path}: two stages are called {twice!r}")
        if not stages:
            raise segq.SettingsError(f"{self._path} declares nothing to run: no [sources.…], [workers.…] or [sinks.…]")
        return Plan(
            name=name, directory=self._directory, drain=drain, grace=grace,
            queues=tuple(self._queues.values()), stages=tuple(stages),
        )  # fmt: skip

    def _queue(self, name: str, table: _Table, base: str) -> QueuePlan:
        text = table.text("path", name)
        if "://" in text:
            raise table.error(
                f"path = {text!r}: a pipeline's queues are directories; `segq bridge` takes items to other engines"
            )
        path = os.path.normpath(os.path.join(base, text))
        topic = table.flag("topic")
        return QueuePlan(name=name, path=path, is_topic=topic, settings=table.rest())

    def _stage(self, role: str, name: str, table: _Table) -> StagePlan:
        kind = table.text("kind", "function" if role == "worker" else None)
        if kind not in known(role) and ":" not in kind:
            raise table.error(f"there is no {role} of kind {kind!r}: {', '.join(sorted(known(role)))}, or package.module:Class")
        processes = table.count("processes", 1)
        taken_from = self._of(table, "from") if role != "source" else None
        put_to = self._of(table, "to") if role != "sink" else None
        label = table.text("label", "") or None
        if label is None and taken_from is not None and taken_from.is_topic:
            raise table.error(f"{taken_from.name} is a topic: say of which label, label = {name!r} for one of its own")
        if label is not None and (taken_from is None or not taken_from.is_topic):
            raise table.error("only topics have labels")
        return StagePlan(
            name=name, role=role, kind=kind, processes=processes, taken_from=taken_from, label=label, put_to=put_to,
            settings=table.rest(),
        )  # fmt: skip

    def _of(self, table: _Table, key: str) -> QueuePlan:
        name = table.text(key, None)
        if name not in self._queues:
            raise table.error(f"{key} = {name!r}: there is no [queues.{name}]")
        return self._queues[name]


class _Table:
    """A table of the file, of which what was asked for is known, so that what nobody asks for can be named."""

    def __init__(self, path: str, name: str, entries: object) -> None:
        self._path, self._name = path, name
        if not isinstance(entries, dict):
            raise self.error("must be a table")
        self._left: dict[str, Any] = dict(entries)

    def error(self, what: str) -> segq.SettingsError:
        """An error of this table."""
        return segq.SettingsError(f"{self._path}{f', [{self._name}]' if self._name else ''}: {what}")

    def table(self, key: str) -> _Table:
        return _Table(self._path, key, self._left.pop(key, {}))

    def tables(self, key: str) -> list[tuple[str, _Table]]:
        entries = self._left.pop(key, {})
        if not isinstance(entries, dict):
            raise self.error(f"{key} must be tables, [{key}.NAME]")
        return [(name, _Table(self._path, f"{key}.{name}", entry)) for name, entry in entries.items()]

    def text(self, key: str, default: str | None) -> str:
        value = self._left.pop(key, default)
        if value is None:
            raise self.error(f"{key} is missing")
        if not isinstance(value, str):
            raise self.error(f"{key} must be text, not {value!r}")
        return value

    def flag(self, key: str) -> bool:
        value = self._left.pop(key, False)
        if not isinstance(value, bool):
            raise self.error(f"{key} must be true or false, not {value!r}")
        return value

    def seconds(self, key: str, default: float) -> float:
        value = self._left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise self.error(f"{key} must be a number of seconds, not {value!r}")
        return float(value)

    def count(self, key: str, default: int) -> int:
        """A number of processes; 0, or "cores": one a core."""
        value = self._left.pop(key, default)
        if value in (0, "cores") and not isinstance(value, bool):
            return os.cpu_count() or 1
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 1000:
            raise self.error(f'{key} must be a number of processes, or "cores", not {value!r}')
        return value

    def rest(self) -> dict[str, Any]:
        """All that was not asked for: somebody else's settings."""
        rest, self._left = self._left, {}
        return rest

    def end(self) -> None:
        """Raises SettingsError if there is more."""
        for key in self._left:
            raise self.error(f"{key!r} is not known here")
