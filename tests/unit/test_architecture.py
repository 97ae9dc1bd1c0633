"""The page about the architecture names files, steps and packages that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import segq
from segq._core.directory.catalog import LIFE

ROOT = Path(segq.__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FILES = sorted(set(re.findall(r"`((?:segq|tests)/[\w/.]+)`", PAGE + (ROOT / "CONTRIBUTING.md").read_text())))


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_the_page_names_is_there(file: str) -> None:
    assert (ROOT / file).exists()


def test_the_life_of_a_segment_is_the_table_in_code() -> None:
    rows = re.findall(r"^\| (ready|loading|chosen) \| (\w+) \|", PAGE, re.MULTILINE)
    assert rows == [(source.value, target.value) for source, target in LIFE]


def test_the_picture_shows_every_package_of_the_engine() -> None:
    picture = PAGE.split("```")[1]
    packages = {path.parent.name for path in (ROOT / "segq" / "_core").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"\w+", picture))
