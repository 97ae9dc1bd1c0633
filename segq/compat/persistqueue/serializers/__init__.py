"""How items become bytes: `pickle` (the default), `json`, `msgpack`, `cbor2`; or any object with `dump` and `load`.

Each module has `dump(value, fp)` and `load(fp)` for several values in one file, and `dumps` and `loads` for one value.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


def optional(name: str) -> Any:
    """The package of a serializer, which segq itself does not need."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this serializer needs the package {name}: pip install 'segq[persistqueue]'") from error


def in_order(value: Any, sort_keys: bool) -> Any:
    """`value`, a dict with its keys in order if that is asked for: equal ones are equal bytes then."""
    return {key: value[key] for key in sorted(value)} if sort_keys and isinstance(value, dict) else value


def portable(serializer: Any) -> Any:
    """What can be pickled in the place of `serializer`: modules cannot, their names can."""
    return f"module:{serializer.__name__}" if isinstance(serializer, ModuleType) else serializer


def arrived(serializer: Any) -> Any:
    """What `portable` made, turned back."""
    if isinstance(serializer, str) and serializer.startswith("module:"):
        return importlib.import_module(serializer.removeprefix("module:"))
    return serializer
