"""The documentation says what the code does."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

import segq.handles.queue
import segq.handles.topic
from segq._core.base.failpoints import POINTS
from segq._core.directory.catalog import LIFE
from segq._core.format import format as fmt

ROOT = Path(segq.handles.queue.__file__).parent.parent.parent
FORMAT = (ROOT / "docs" / "format.md").read_text()


CONNECT, BRIDGE = (importlib.import_module(f"segq.engines.{name}") for name in ("connect", "bridge"))


@pytest.mark.parametrize("module", [segq.handles.queue, segq.handles.topic, CONNECT, BRIDGE])
def test_the_examples_in_the_docstrings_run(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed


def test_the_drawn_life_of_a_segment_is_the_table_in_code() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+):", FORMAT, re.MULTILINE))
    assert drawn == {(source.value, target.value) for source, target in LIFE}


def test_the_format_page_names_the_version_and_the_words_of_the_ledger() -> None:
    assert f"Format version {fmt.VERSION}." in FORMAT
    rows = re.findall(r"^\| ([\d, ]+) \| (\w+(?:, \w+)*) \|", FORMAT, re.MULTILINE)
    numbers = {int(number) for row, _ in rows for number in row.split(",")}
    assert numbers == {int(word) for word in fmt.LedgerWord}


def test_the_crash_safety_page_has_every_fault_point_and_every_kind_of_problem() -> None:
    page = (ROOT / "docs" / "crash-safety.md").read_text()
    assert set(re.findall(r"`([a-z]+\.[a-z_]+)`", page)) & POINTS == POINTS
    listed = {(kind, severity) for kind, severity in re.findall(r"^\| `(\w+)` \| (error|note) \|", page, re.MULTILINE)}
    modules = [
        ast.parse((ROOT / "segq" / "doctor" / name).read_text()) for name in ("examination.py", "segment_examination.py")
    ]
    added = set()
    for node in (node for module in modules for node in ast.walk(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_add":
            kinds = [
                each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant) and isinstance(each.value, str)
            ]
            noted = any(keyword.arg == "severity" for keyword in node.keywords)
            added |= {(kind, "note" if noted else "error") for kind in kinds}
    assert listed == added | {("queue", "error")}


def test_the_readme_has_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "$ pip install . && segq demo\n" in readme
    assert "$ pip install -e '.[test]' && pytest\n" in readme
