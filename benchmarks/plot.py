"""`python -m benchmarks plot RUN.json`: a picture of each workload, bars with the range of the repetitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.metric import METRICS

PERCENTILES = ("p50", "p95", "p99", "max")
OURS, THEIRS = "#2b6cb0", "#a0aec0"


def draw(record: dict[str, Any], directory: Path, kind: str = "svg") -> list[Path]:
    """One file for each workload; returns their paths. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "segq"  # the same figures, the same file
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, workload in record["workloads"].items():
        summaries = {label: each["summary"] for label, each in workload["entrants"].items() if each["summary"]}
        if summaries:
            path = directory / f"{name}.{kind}"
            _draw(name, workload["title"], summaries, path)
            drawn.append(path)
    return drawn


def _draw(name: str, title: str, summaries: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    latencies = all("p50" in summary for summary in summaries.values())
    figure = Figure(figsize=(7, 3.5 if latencies else 0.9 + 0.38 * len(summaries)), layout="constrained")
    axes = figure.subplots()
    if latencies:
        for label, summary in summaries.items():
            medians = [summary[each]["median"] for each in PERCENTILES]
            axes.plot(PERCENTILES, medians, marker="o", label=label, color=_colour(label))
        axes.set_yscale("log")
        axes.set_ylabel("µs")
        axes.legend(frameon=False)
    else:
        decisive = next(each for each in METRICS if all(each in summary for summary in summaries.values()))
        _bars(axes, decisive, summaries)
    axes.set_title(f"{name}: {title}", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _bars(axes: Any, name: str, summaries: dict[str, Any]) -> None:
    metric = METRICS[name]
    labels = list(summaries)
    medians = [summaries[label][name]["median"] for label in labels]
    below = [median - summaries[label][name]["low"] for label, median in zip(labels, medians, strict=True)]
    above = [summaries[label][name]["high"] - median for label, median in zip(labels, medians, strict=True)]
    places = range(len(labels))
    axes.barh(places, medians, xerr=[below, above], color=[_colour(label) for label in labels], height=0.7, capsize=2)
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlabel(metric.unit or metric.title)
    if min(medians) > 0 and max(medians) > 30 * min(medians):
        axes.set_xscale("log")
    for place, median, more in zip(places, medians, above, strict=True):
        axes.annotate(metric.show(median), (median + more, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.margins(x=0.15)


def _colour(label: str) -> str:
    return OURS if label.startswith("segq") else THEIRS
