"""A pytest plugin for a process that runs another library's own tests against our stand-in: the alias, and coroutine tests.

``SEGQ_STAND_IN=persistqueue`` makes `segq.compat.persistqueue`, with all modules in it, answer to the name `persistqueue`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import pkgutil
import sys
from types import ModuleType

import pytest

NAME = os.environ["SEGQ_STAND_IN"]


def install(package: ModuleType, alias: str) -> None:
    sys.modules[alias] = package
    for module in pkgutil.iter_modules(package.__path__):
        found = importlib.import_module(f"{package.__name__}.{module.name}")
        sys.modules[f"{alias}.{module.name}"] = found
        if module.ispkg:
            install(found, f"{alias}.{module.name}")


install(importlib.import_module(f"segq.compat.{NAME}"), NAME)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "asyncio: a coroutine")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**wanted))
    return True
