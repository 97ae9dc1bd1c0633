"""The few figures at the front: the table in the README, between two marks, made of a run as the page is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.metric import METRICS

BEGIN, END = "<!-- figures: made by `python -m benchmarks document --readme` -->", "<!-- end of figures -->"
OURS, THEIRS = "segq", "multiprocessing.Queue"
ROWS = (
    ("single `put` to single `get`, 1 x 1", "single", ("rate",)),
    ("the same, 4 producers, 4 consumers", "single-4x4", ("rate",)),
    ("`put_many(1000)` to `get_many(1000)`, against single items", "batch", ("rate",)),
    ("single `put` to `receive` and `ack` of each", "acked", ("rate",)),
    ("small dicts, default serializers", "dicts", ("rate",)),
    ("1 MiB items", "large", ("bandwidth",)),
    ("`put` to a waiting `get`, 1,000 a second, p50 and p99", "latency", ("p50", "p99")),
)
"""What is said of a workload, and which of its metrics say it."""


def rewritten(text: str, record: Mapping[str, Any]) -> str:
    """The text with the table between the marks made anew. Raises ValueError if it has no such place."""
    before, begin, rest = text.partition(BEGIN)
    _old, end, behind = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no place for the figures: a line {BEGIN!r} and, below it, a line {END!r}")
    return "".join((before, BEGIN, "\n", "\n".join(table(record)), "\n", END, behind))


def table(record: Mapping[str, Any]) -> Iterator[str]:
    yield f"| workload | {OURS} | `{THEIRS}` | ratio |"
    yield "|---|---|---|---|"
    for text, workload, names in ROWS:
        entrants = record["workloads"].get(workload, {"entrants": {}})["entrants"]
        sides = [entrants.get(label, {"summary": {}})["summary"] for label in (OURS, THEIRS)]
        if not all(name in side for side in sides for name in names):
            continue
        figures = [[side[name]["median"] for name in names] for side in sides]
        unit = METRICS[names[0]].unit.replace("items/s", "/s")
        shown = [f"{' and '.join(_rounded(value) for value in side)} {unit}" for side in figures]
        ratios = " and ".join(f"{own / other:.2f}" for own, other in zip(*figures, strict=True))
        yield f"| {text} | {shown[0]} | {shown[1]} | {ratios} |"
    yield "| what remains when all processes are killed | every item | nothing | |"


def _rounded(value: float) -> str:
    """Three digits: more would be noise."""
    digits = len(str(int(value)))
    return f"{round(value, 3 - digits):,.0f}" if digits >= 3 else f"{value:.3g}"
