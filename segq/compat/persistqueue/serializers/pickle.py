"""Any Python object, by the standard library's pickle."""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO

from segq.compat.persistqueue.serializers import in_order

protocol = 4


def dump(value: Any, fp: BinaryIO, sort_keys: bool = False) -> None:
    pickle.dump(in_order(value, sort_keys), fp, protocol)


def dumps(value: Any, sort_keys: bool = False) -> bytes:
    return pickle.dumps(in_order(value, sort_keys), protocol)


def load(fp: BinaryIO) -> Any:
    return pickle.load(fp)  # noqa: S301  # the user's choice, as in persist-queue


def loads(bytes_value: bytes) -> Any:
    return pickle.loads(bytes_value)  # noqa: S301
