"""Errors travel between processes, and those of the queue module are its own."""

from __future__ import annotations

import inspect
import pickle
import queue

import pytest

import segq
from segq._core.base import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.QueueError)]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_an_error_survives_pickling_with_all_it_carries(cls: type[errors.QueueError], protocol: int) -> None:
    error = cls("what happened", path="/q", segment="ready_1")
    if isinstance(error, errors.StorageError):
        error.errno = 28
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert str(again) == "what happened"
    assert (again.path, again.segment) == ("/q", "ready_1")
    assert getattr(again, "errno", None) == getattr(error, "errno", None)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_a_queue_error_and_is_exported(cls: type[errors.QueueError]) -> None:
    assert issubclass(cls, segq.QueueError)
    assert getattr(segq, cls.__name__) is cls
    assert cls.__name__ in segq.__all__


def test_code_written_for_the_queue_module_catches_ours() -> None:
    assert issubclass(segq.Empty, queue.Empty)
    assert issubclass(segq.Full, queue.Full)
    if hasattr(queue, "ShutDown"):
        assert issubclass(segq.ShutDown, queue.ShutDown)


def test_an_error_is_also_what_python_would_have_raised() -> None:
    assert issubclass(segq.StorageError, OSError)
    assert issubclass(segq.SettingsError, ValueError)
    assert issubclass(segq.ClosedError, ValueError)
    assert issubclass(segq.SerializationError, TypeError)
    assert issubclass(segq.UnsafeDirectoryError, PermissionError)


def test_the_disks_error_keeps_errno_path_and_message() -> None:
    error = segq.StorageError("no room", errno=28, path="/q")
    assert (error.errno, error.path, str(error)) == (28, "/q", "no room")
