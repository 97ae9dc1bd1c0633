"""Which class a `kind` is. Whoever has another names it as "package.module:Class".

A class has `from_settings(cls, queue, **settings)` and `run(stop: threading.Event) -> None`; a worker's `from_settings` is
given `to`, the queue for its results, as well.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import segq

_STAGES = "segq.pipeline.stages"
_OWN = {"command": f"{_STAGES}:CommandWorker", "function": f"{_STAGES}:FunctionWorker"}
_KINDS: dict[str, dict[str, str]] = {
    "source": {
        "kafka": "segq.connectors.kafka:KafkaSource",
        "command": f"{_STAGES}:CommandSource",
        "function": f"{_STAGES}:FunctionSource",
    },
    "worker": _OWN,
    "sink": {"kafka": "segq.connectors.kafka:KafkaSink", "http": "segq.connectors.http:HttpSink", **_OWN},
}


class Runner(Protocol):
    """A source, worker or sink that is ready to run."""

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set, then finishes what is in hand. Returning before that means: there is nothing more."""


def known(role: str) -> Mapping[str, str]:
    """The kinds that need no import by name."""
    return _KINDS[role]


def made(role: str, kind: str, queue: Any, **settings: Any) -> Runner:
    """Raises SettingsError for what cannot be found or made; ModuleNotFoundError where an extra is missing."""
    target = known(role).get(kind, kind)
    found = named(target, f"kind = {kind!r}")
    if not hasattr(found, "from_settings"):
        raise segq.SettingsError(f"kind = {kind!r}: {target} has no from_settings")
    runner: Runner = found.from_settings(queue, **settings)
    return runner


def named(target: object, what: str) -> Any:
    """What "package.module:name" names. Raises SettingsError, which begins with `what`."""
    module, colon, name = str(target).partition(":")
    if not (module and colon and name):
        raise segq.SettingsError(f"{what}: {target!r} is not of the form package.module:name")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise segq.SettingsError(f"{what}: {error}") from error
    return found
