"""The life of one process of a pipeline: makes its stage, runs it until it is asked to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from typing import Any

import segq
from segq.pipeline.plan import StagePlan
from segq.pipeline.registry import made

log = logging.getLogger("segq.pipeline")

# Exit codes between a stage and its supervisor.
DONE = 0
FAILED = 1  # worth another start
UNUSABLE = 91  # no start can help: a setting that cannot work, a function or package that is not there

_LOOK_SECONDS = 0.5  # how soon the death of the supervisor is seen


def main(stage: StagePlan, directory: str, supervisor: int) -> None:
    """`supervisor`: its process id."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    signal.signal(signal.SIGINT, lambda _number, _frame: None)  # a terminal sends it to all; what it means is the supervisor's
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {stage.name}[%(process)d] %(levelname)s %(message)s")
    threading.Thread(target=_stop_with, args=(supervisor, stop), daemon=True).start()
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:  # what `ps` and `top` call it, on Linux
        name.write(stage.name[:15])
    os.chdir(directory)
    sys.path.insert(0, directory)
    sys.exit(_run(stage, stop))


def _stop_with(supervisor: int, stop: threading.Event) -> None:
    """Nobody would ever end the stage of a supervisor that is gone, and the next one starts its own."""
    while not stop.wait(_LOOK_SECONDS):
        if os.getppid() != supervisor:
            stop.set()


def _run(stage: StagePlan, stop: threading.Event) -> int:
    with contextlib.ExitStack() as opened:
        try:
            settings: dict[str, Any] = dict(stage.settings)
            if stage.put_to is not None:
                settings["to"] = opened.enter_context(stage.put_to.open())
            queue = opened.enter_context(_taken_from(stage)) if stage.taken_from is not None else settings.pop("to")
            runner = made(stage.role, stage.kind, queue, **settings)
        except (segq.SettingsError, segq.NotAQueueError, segq.FormatVersionError, ImportError) as error:
            log.error("cannot be started: %s", error)
            return UNUSABLE
        except Exception:
            log.exception("cannot be started")
            return FAILED
        try:
            runner.run(stop)
        except segq.SettingsError as error:
            log.error("cannot go on: %s", error)
            return UNUSABLE
        except Exception:
            log.exception("ended by an error")
            return FAILED
    return DONE


def _taken_from(stage: StagePlan) -> segq.Queue | segq.Subscription:
    assert stage.taken_from is not None
    opened = stage.taken_from.open()
    if isinstance(opened, segq.Queue):
        return opened
    assert stage.label is not None
    with opened as topic:
        return topic.subscribe(stage.label)
