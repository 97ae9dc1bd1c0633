"""The account of a run: every item put was taken, once, whole, and in order where order is promised."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from benchmarks.payload import Payload

Harvest = Mapping[int, "array[int]"]
"""What one consumer took: for each producer the sequence numbers, as they came."""


class AccountError(Exception):
    """Items were lost, doubled, invented or disordered: the repetition counts for nothing."""


def harvest(payload: Payload, items: Iterable[Any]) -> dict[int, array[int]]:
    """Read the identity of every item taken; raises `ValueError` for one that is not as it was made."""
    taken: dict[int, array[int]] = {}
    for item in items:
        producer, sequence = payload.identify(item)
        if producer not in taken:
            taken[producer] = array("I")
        taken[producer].append(sequence)
    return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Counts of a settled run."""

    put: int
    got: int
    missing: int
    twice: int
    invented: int
    disordered: int

    @property
    def closes(self) -> bool:
        return not (self.missing or self.twice or self.invented or self.disordered) and self.put == self.got

    def demand(self) -> Account:
        """This account if it closes; raises `AccountError` with the counts if not."""
        if not self.closes:
            raise AccountError(f"the account does not close: {asdict(self)}")
        return self


def settle(produced: Mapping[int, int], harvests: Sequence[Harvest], *, ordered: bool = True) -> Account:
    """Compare what the producers put (how many each) with what the consumers took.

    With a single consumer each producer's items must also have come in the order put, if the contestant promises one.
    """
    missing = twice = invented = disordered = got = 0
    for taken in harvests:
        got += sum(len(sequences) for sequences in taken.values())
        invented += sum(len(sequences) for producer, sequences in taken.items() if producer not in produced)
    for producer, count in produced.items():
        sequences = [sequence for taken in harvests for sequence in taken.get(producer, ())]
        distinct = set(sequences)
        known = sum(1 for sequence in distinct if sequence < count)
        missing += count - known
        invented += len(distinct) - known
        twice += len(sequences) - len(distinct)
        if ordered and len(harvests) == 1:
            disordered += sum(1 for before, after in pairwise(sequences) if after < before)
    return Account(
        put=sum(produced.values()),
        got=got,
        missing=missing,
        twice=twice,
        invented=invented,
        disordered=disordered,
    )
