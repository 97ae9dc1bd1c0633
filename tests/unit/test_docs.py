"""The documentation says what the code does."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from types import ModuleType

import pytest

import segq.queue
import segq.topic
from segq import format as fmt
from segq.catalog import LIFE

ROOT = Path(segq.queue.__file__).parent.parent
FORMAT = (ROOT / "docs" / "format.md").read_text()


@pytest.mark.parametrize("module", [segq.queue, segq.topic])
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


def test_the_readme_has_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "$ pip install . && segq demo\n" in readme
    assert "$ pip install -e '.[test]' && pytest\n" in readme
