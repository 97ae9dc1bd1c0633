"""The text of the demo: a line's identity is (file number, line number), the work on it one pure function."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import struct
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

IDENTITY = struct.Struct(">II")  # what an item of the demo starts with; the rest is the line
MEASURE = struct.Struct(">I16s")  # number of words, digest: the result of the work on a line


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file and how much of it takes part, decided once: what is appended to it later changes nothing."""

    number: int
    path: str
    lines: int
    size: int


def measured(line: bytes) -> bytes:
    """The work of the demo: hash a line and count its words."""
    return MEASURE.pack(len(line.split()), hashlib.blake2b(line, digest_size=16).digest())


def lines_of(path: str, size: int) -> Iterator[bytes]:
    """The lines in the first `size` bytes of a file, without their newlines."""
    left = size
    with open(path, "rb") as file:
        for line in file:
            if left <= 0:
                return
            yield line[:left].removesuffix(b"\n")
            left -= len(line)


def standard_library() -> list[str]:
    """The `.py` files that came with the running Python."""
    root = Path(sysconfig.get_path("stdlib"))
    installed = {"site-packages", "dist-packages"}
    found = sorted(str(path) for path in root.rglob("*.py") if not installed & set(path.relative_to(root).parts))
    if not found:
        raise click.ClickException(f"no .py files in {root}; name some files or directories to read")
    return found


def files_in(paths: Sequence[str]) -> list[str]:
    """The files named, and those in the directories named, each once."""
    found: dict[str, None] = {}
    for path in paths:
        if not os.path.isdir(path):
            found[os.path.realpath(path)] = None
        for directory, below, names in os.walk(path):
            below.sort()
            for name in sorted(names):
                whole = os.path.realpath(os.path.join(directory, name))
                if os.path.isfile(whole):
                    found[whole] = None
    return list(found)


def shares(sources: Sequence[Source], count: int) -> list[list[Source]]:
    """The sources dealt out to `count` producers, about the same number of bytes to each."""
    dealt: list[list[Source]] = [[] for _ in range(count)]
    weights = [0] * count
    for source in sorted(sources, key=lambda source: -source.size):
        lightest = weights.index(min(weights))
        dealt[lightest].append(source)
        weights[lightest] += source.size + 1
    return dealt
