"""`python -m benchmarks plot RUN.json`: pictures of a run, for a light page as well as a dark one.

Bars with the range of the repetitions, coloured by what remains of the items when the processes are killed; latency as
curves from p50 to the maximum; and all targets on one axis. The ground is transparent, and the grey of the text is as far from
white as from black.
"""

from __future__ import annotations

import textwrap
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.metric import METRICS

PERCENTILES = ("p50", "p95", "p99", "max")
KINDS = ("svg", "png")
INK = "#737b87"
TARGETS, LATENCIES = "targets", "latency-by-rate"
"""Names of the pictures that are of more than one workload."""
WIDTH = 8.0
LINE = 105
"""Inches, and the letters of a title that are as long."""
LINES = ("#2f81f7", "#d9822b", "#8957e5", "#57a05a", "#c2588a")


@dataclass(frozen=True, slots=True)
class Promise:
    """What a contestant keeps when it is killed, as a colour."""

    text: str
    colour: str
    hatch: str = ""


OURS = Promise("segq: keeps every item", "#2f81f7")
KEEPS = Promise("keeps items on a kill", "#57a05a")
LOSES = Promise("loses items on a kill", "#d9822b", "////")
NO_QUEUE = Promise("not a queue", "#9aa4b0")


def promise(label: str, survives: str) -> Promise:
    """By the words that the contestants use in `Adapter.survives`."""
    if label.startswith("segq"):
        return OURS
    if "not a queue" in survives:
        return NO_QUEUE
    return LOSES if survives.startswith(("nothing", "batches", "what was committed")) else KEEPS


def draw(
    record: dict[str, Any], directory: Path, kinds: Sequence[str] = ("svg",), only: Container[str] | None = None
) -> list[Path]:
    """One file of each kind for each workload, then those of several; returns their paths.

    `only`: the names of those that are wanted. Raises ImportError without matplotlib.
    """
    import matplotlib as mpl

    settings: Any = {
        "svg.hashsalt": "segq",  # the same figures, the same file
        "svg.fonttype": "none",
        "font.size": 9,
        "hatch.linewidth": 0.6,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    }
    mpl.use("agg")
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    with mpl.rc_context(settings):
        for name, figure in _figures(record):
            if only is not None and name not in only:
                continue
            for kind in kinds:
                path = directory / f"{name}.{kind}"
                figure.savefig(path, transparent=True, dpi=144, metadata={"Date": None} if kind == "svg" else None)
                drawn.append(path)
    return drawn


def _figures(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    timed = {}
    for name, workload in record["workloads"].items():
        entrants = {label: each for label, each in workload["entrants"].items() if each["summary"]}
        if not entrants:
            continue
        if all("p50" in each["summary"] for each in entrants.values()):
            timed[name] = workload["title"], entrants
            yield name, _curves({name: timed[name]})
        else:
            yield name, _bars(name, workload, entrants)
    if len(timed) > 1:
        yield LATENCIES, _curves(timed)
    targets = [(name, each) for name, workload in record["workloads"].items() for each in workload.get("targets", ())]
    judged = [(name, each) for name, each in targets if each["value"] is not None]
    if judged:
        yield TARGETS, _verdicts(judged)


def _figure(height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _bars(name: str, workload: Mapping[str, Any], entrants: Mapping[str, Any]) -> Any:
    decisive = _decisive(workload, entrants)
    metric = METRICS[decisive]
    shown = {label: each for label, each in entrants.items() if decisive in each["summary"]}
    summaries = [each["summary"][decisive] for each in shown.values()]
    medians = [each["median"] for each in summaries]
    spread = [[each["median"] - each["low"] for each in summaries], [each["high"] - each["median"] for each in summaries]]
    promises = [promise(label, each.get("survives") or "") for label, each in shown.items()]
    figure = _figure(1.3 + 0.34 * len(shown))
    axes = figure.subplots()
    bars = axes.barh(
        range(len(shown)), medians, xerr=spread, color=[each.colour for each in promises], height=0.72, ecolor=INK, capsize=2
    )
    for bar, each in zip(bars, promises, strict=True):
        bar.set(hatch=each.hatch, edgecolor="#ffffff80", linewidth=0)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric.named} ({'less' if metric.less_is_better else 'more'} is better)")
    if min(medians) > 0 and max(medians) > 30 * min(medians):
        axes.set_xscale("log")
    for place, each in enumerate(summaries):
        axes.annotate(metric.show(each["median"]), (each["high"], place), (5, 0), textcoords="offset points", va="center")
    axes.margins(x=0.16)
    _finish(axes)
    figure.suptitle(textwrap.fill(f"{name}: {workload['title']}", LINE), x=0.01, ha="left", fontsize=9)
    kinds = list(dict.fromkeys(promises))
    if len(kinds) > 1:
        from matplotlib.patches import Patch

        patches = [Patch(facecolor=each.colour, hatch=each.hatch, edgecolor="#ffffff80", label=each.text) for each in kinds]
        figure.legend(handles=patches, loc="outside lower left", ncols=len(kinds), frameon=False, fontsize=8)
    return figure


def _decisive(workload: Mapping[str, Any], entrants: Mapping[str, Any]) -> str:
    """The first of the workload's columns that anyone could measure."""
    candidates = [*workload.get("columns", ()), *METRICS]
    measured = {name for each in entrants.values() for name in each["summary"]}
    return str(next(name for name in candidates if name in METRICS and name in measured))


def _curves(timed: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Any:
    """A panel for each workload: p50 to the maximum, the range of the repetitions as a band."""
    figure = _figure(3.6)
    panels = figure.subplots(1, len(timed), sharey=True, squeeze=False)[0]
    colours = dict(zip(dict.fromkeys(label for _, entrants in timed.values() for label in entrants), LINES * 3, strict=False))
    for axes, (name, (title, entrants)) in zip(panels, timed.items(), strict=True):
        for label, entrant in entrants.items():
            each = [entrant["summary"][percentile] for percentile in PERCENTILES]
            ours = label.startswith("segq")
            style: dict[str, Any] = {"color": colours[label], "marker": "o", "markersize": 4, "linewidth": 2.2 if ours else 1.3}
            axes.plot(PERCENTILES, [point["median"] for point in each], label=label, zorder=3 if ours else 2, **style)
            low, high = [point["low"] for point in each], [point["high"] for point in each]
            axes.fill_between(PERCENTILES, low, high, color=colours[label], alpha=0.15, linewidth=0)
        axes.set_yscale("log")
        axes.grid(axis="y", color=INK, alpha=0.2, linewidth=0.6)
        _finish(axes, f"{name}: {title}" if len(timed) == 1 else title.removeprefix("from put to a waiting get, "))
    panels[0].set_ylabel("µs from put to a waiting get (less is better)")
    handles, labels = max((axes.get_legend_handles_labels() for axes in panels), key=lambda each: len(each[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _verdicts(judged: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    """Every target on one axis, in units of its bound: to the right of 1 it is met."""
    figure = _figure(1.0 + 0.24 * len(judged))
    axes = figure.subplots()
    marks = [_times_better(each) for _, each in judged]
    axes.hlines(range(len(judged)), 1, marks, color=INK, linewidth=1, alpha=0.6)
    axes.scatter(marks, range(len(judged)), c=["#57a05a" if each["met"] else "#d1434b" for _, each in judged], s=34, zorder=3)
    axes.axvline(1, color=INK, linewidth=1.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks(range(len(judged)), [f"{name}: {what_of(each)}" for name, each in judged], fontsize=8)
    axes.set_ylim(len(judged) - 0.4, -0.6)
    axes.set_xlabel("times better than its target asks (left of 1: missed)")
    _finish(axes, "Targets")
    return figure


def what_of(target: Mapping[str, Any]) -> str:
    """A target in words."""
    against = f" against {target['against']}" if target["against"] else ""
    return f"{METRICS[target['metric']].title} of {target['of']}{against}"


def _times_better(target: Mapping[str, Any]) -> float:
    """Within 1/100 and 100, so that no target squeezes the others together."""
    value = max(float(target["value"]), 1e-9)
    times: float = value / target["at_least"] if target["at_least"] is not None else target["at_most"] / value
    return min(max(times, 0.01), 100)


def _finish(axes: Any, title: str = "") -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
