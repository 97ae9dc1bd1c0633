"""Does it add up? What one process computes of the text, against what came out of the queue, line by line."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from array import array
from collections.abc import Iterable, Sequence

from segq.cli.demo import trails
from segq.cli.demo.corpus import MEASURE, Source, lines_of, measured


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A sum over lines, in the order of files and lines; equal totals mean equal results for every line."""

    lines: int
    words: int
    digest: str


@dataclasses.dataclass(slots=True)
class Reference:
    """The truth: each source, and what is measured of each of its lines when no queue is involved."""

    sources: list[Source] = dataclasses.field(default_factory=list)
    measures: list[bytes] = dataclasses.field(default_factory=list)
    unreadable: int = 0

    @classmethod
    def of(cls, paths: Sequence[str], limit: int | None = None) -> Reference:
        """Reads the files, up to `limit` lines in all; those that cannot be read are left out and counted."""
        reference = cls()
        left = limit
        for path in paths:
            if left == 0:
                break
            try:
                size = os.stat(path).st_size
                measures = [measured(line) for line, _ in zip(lines_of(path, size), _up_to(left), strict=False)]
            except OSError:
                reference.unreadable += 1
                continue
            if left is not None:
                left -= len(measures)
            source = Source(number=len(reference.sources), path=path, lines=len(measures), size=size)
            reference.sources.append(source)
            reference.measures.append(b"".join(measures))
        return reference

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return sum(source.lines for source in self.sources)

    def total(self) -> Total:
        """What the queue's results have to come to."""
        return _total(self.measures)

    def until(self, positions: Iterable[tuple[Sequence[Source], trails.Position]]) -> Reference:
        """Only what producers with these shares put before they came to these positions."""
        kept = {source.number: 0 for source in self.sources}
        for share, position in positions:
            for here, source in enumerate(share[: position.place + 1]):
                kept[source.number] = position.line if here == position.place else source.lines
        sources = [dataclasses.replace(source, lines=kept[source.number]) for source in self.sources]
        measures = [self.measures[source.number][: source.lines * MEASURE.size] for source in sources]
        return Reference(sources, measures, self.unreadable)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The comparison. `again` counts results beyond the first for a line, `allowed` how many the kills explain."""

    expected: Total
    found: Total
    lost: int
    wrong: int
    invented: int
    again: int
    allowed: int

    @property
    def closes(self) -> bool:
        """Every line there, every result right, nothing twice that no kill explains."""
        return self.expected == self.found and not (self.lost or self.wrong or self.invented) and self.again <= self.allowed

    @classmethod
    def of(cls, reference: Reference, directory: str, allowed: int) -> Account:
        """Compares the results that lie in `directory` with the reference, by identity."""
        width = MEASURE.size
        seen = [array("I", bytes(4 * source.lines)) for source in reference.sources]
        found = [bytearray(len(measures)) for measures in reference.measures]
        wrong = invented = 0
        for file, line, measure in trails.results(directory):
            if file >= len(seen) or line >= len(seen[file]):
                invented += 1
                continue
            seen[file][line] += 1
            start = line * width
            if reference.measures[file][start : start + width] != measure:
                wrong += 1
            found[file][start : start + width] = measure
        results = sum(sum(counts) for counts in seen)
        distinct = sum(len(counts) - counts.count(0) for counts in seen)
        return cls(
            expected=reference.total(),
            found=dataclasses.replace(_total(found), lines=distinct),
            lost=reference.lines - distinct,
            wrong=wrong,
            invented=invented,
            again=results - distinct,
            allowed=allowed,
        )


def _up_to(limit: int | None) -> range:
    return range(1 << 62 if limit is None else limit)


def _total(measures: Sequence[bytes | bytearray]) -> Total:
    digest = hashlib.blake2b(digest_size=8)
    words = 0
    for data in measures:
        digest.update(data)
        words += sum(count for count, _ in MEASURE.iter_unpack(data))
    return Total(lines=sum(map(len, measures)) // MEASURE.size, words=words, digest=digest.hexdigest())
