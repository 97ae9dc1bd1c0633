"""The full-screen view: what must be seen is seen at any size, and nothing leaves the screen or obeys what it shows."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from segq.watch import Event, Flow, LabelView, ProcessView, Snapshot, figures
from segq.watch.history import History
from segq.watch.screen import Screen

SIZES = [(12, 3), (40, 15), (80, 24), (250, 60)]
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e rm -rf\nline two"


def process(pid: int, **more: object) -> ProcessView:
    facts: dict[str, object] = {
        "pid": pid, "command": f"/usr/bin/python worker.py --number {pid}", "started": float(pid), "alive": True, "handles": 1,
        "producing": pid % 2 == 0, "consuming": pid % 2 == 1, "holds": 0, "puts": 0, "gets": 0, "put_rate": 0.0,
        "get_rate": 0.0, "cpu": 0.25, "memory": 40 << 20,
    }  # fmt: skip
    return ProcessView(**(facts | more))  # type: ignore[arg-type]


def label(name: str, lag: int) -> LabelView:
    return LabelView(
        label=name, lag=lag, lag_seconds=lag / 10, waiting=lag, claimed=0, acknowledged=123_456_789, missed=3, ack_rate=12.5
    )


def snapshot(**more: object) -> Snapshot:
    facts: dict[str, object] = {
        "path": "/var/lib/app/orders", "time": time.time(), "state": "open", "kind": "queue", "capacity": 1000, "items": 970,
        "waiting": 900, "claimed": 70, "oldest_age": 75.0, "segments": {"loading": 2, "ready": 5, "chosen": 1},
        "interval": 1.0, "rates": Flow(put=123_456.0, get=98_765.0, ack=98_000.0),
        "processes": tuple(process(pid) for pid in range(4001, 4005)),
    }  # fmt: skip
    return Snapshot(**(facts | more))  # type: ignore[arg-type]


def drawn(shown: Snapshot, width: int, height: int, *, looks: int = 20, encoding: str = "utf-8") -> list[str]:
    """The lines on a console of that size, after so many looks."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(file=file, width=width, height=height, highlight=False, force_terminal=True, color_system=None)
    history = History()
    for _ in range(looks):
        history.add(shown)
    console.print(Screen(console, 1.0).draw(history))
    file.flush()
    buffer = file.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(
    "shown",
    [
        snapshot(),
        snapshot(capacity=None, processes=()),
        snapshot(max_bytes=1 << 30, bytes=1 << 29, rescues=3, redelivered=7, quarantined=2, dead_letters=9, shutdown=True),
        snapshot(kind="topic", labels=tuple(label(f"label-{n}", n) for n in range(30))),
        snapshot(processes=tuple(process(pid, command=HOSTILE) for pid in range(4001, 4101)), path="/very/long" * 30),
        snapshot(events=tuple(Event(time=0.0, kind="died", text=HOSTILE) for _ in range(9)), labels=(label(HOSTILE, 1),)),
        Snapshot(path="/nowhere", time=0.0, state="missing"),
        Snapshot(path="/nowhere", time=0.0, state="refused", error=HOSTILE * 10),
    ],
    ids=["plain", "unlimited", "trouble", "topic", "crowd", "hostile", "missing", "refused"],
)
def test_nothing_leaves_the_screen(shown: Snapshot, width: int, height: int) -> None:
    lines = drawn(shown, width, height, looks=300 if width > 200 else 20)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert all(line.isprintable() for line in lines)


def test_eighty_columns_show_all_there_is_to_know() -> None:
    lines = drawn(snapshot(), 80, 24)
    text = "\n".join(lines)
    assert lines[0].startswith("/var/lib/app/orders")
    for piece in ("123,456/s", "98,765/s", "98,000/s", "970", "97% of 1,000", "oldest 75 s", "waiting 900", "in hand 70",
                  "loading 2", "ready 5", "chosen 1", "4001 get", "4002 put", "25%", "40.0M", "python worker.py --number 4003"):  # fmt: skip
        assert piece in text, piece


def test_what_is_wrong_stands_above_the_tables() -> None:
    lines = drawn(snapshot(rescues=3, redelivered=7, quarantined=2, dead_letters=9), 80, 24)
    (line,) = [line for line in lines if "in quarantine 2" in line]
    assert "rescues 3   delivered again 7   dead letters 9" in line
    assert lines.index(line) < next(i for i, line in enumerate(lines) if "4001" in line)


@pytest.mark.parametrize(("items", "shown"), [(0, "0%"), (1, "<1%"), (999, "99%"), (1000, "100%")])
def test_what_is_not_full_is_not_called_full(items: int, shown: str) -> None:
    assert any(f" {shown} of 1,000" in line for line in drawn(snapshot(items=items), 80, 24))


def test_the_last_events_are_always_seen() -> None:
    events = tuple(Event(time=0.0, kind="rescue", text=f"number {n}") for n in range(50))
    lines = drawn(snapshot(events=events, processes=tuple(process(pid) for pid in range(100))), 80, 24, looks=1)
    assert "number 49" in lines[-1]
    assert "number 48" in lines[-2]
    assert any("more" in line for line in lines)


def test_of_too_many_processes_the_dead_and_the_busy_are_shown() -> None:
    crowd = [process(pid) for pid in range(4001, 4101)]
    crowd[50] = process(5000, alive=False, holds=3)
    crowd[70] = process(6000, put_rate=1234.0)
    text = "\n".join(drawn(snapshot(processes=tuple(crowd)), 80, 24))
    assert "5000 dead" in text
    assert "1,234" in text
    assert "more" in text


def test_of_too_many_labels_those_furthest_behind_are_shown() -> None:
    text = "\n".join(drawn(snapshot(kind="topic", labels=tuple(label(f"label-{n}", n) for n in range(100))), 80, 24))
    assert "label-99" in text
    assert "label-1 " not in text
    assert "waiting" not in text


def test_a_terminal_without_unicode_gets_none() -> None:
    for line in drawn(
        snapshot(processes=tuple(process(pid, command="x" * 200) for pid in range(60))), 80, 24, encoding="ascii"
    ):
        assert line.isascii()


def test_a_high_terminal_gets_higher_curves() -> None:
    low, high = drawn(snapshot(), 80, 16), drawn(snapshot(), 80, 50)
    assert sum("█" in line for line in high) > sum("█" in line for line in low)


@pytest.mark.parametrize(
    ("number", "most", "text"),
    [(0, 9, "0"), (0.04, 9, "0.0"), (9.94, 9, "9.9"), (1234, 9, "1,234"), (1234567, 9, "1,234,567"), (1234567, 6, "1.23M"),
     (999_999, 6, "1.00M"), (123_456_789_012, 9, "123G"), (5e15, 9, "5000T"), (12_345, 5, "12.3k")],
)  # fmt: skip
def test_counts_fit(number: float, most: int, text: str) -> None:
    assert figures.count(number, most) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 ms"), (0.0004, "0 ms"), (0.25, "250 ms"), (1, "1.0 s"), (75, "75 s"), (121, "2 min"),
                          (7200, "2 h"), (200_000, "2 days")],
)  # fmt: skip
def test_spans_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert figures.span(seconds) == text


def test_a_chart_shows_what_is_not_zero() -> None:
    assert figures.chart([0, 1, 1000], 3) == ["▁▁█"]
    assert figures.chart([0, 500, 1000], 3, 2) == ["  █", "▁██"]
    assert figures.chart([1, 2, 3, 4], 2) == ["▆█"]
    assert figures.chart([], 5) == [""]
    assert figures.bar(0.0001, 10) == ("█", "░" * 9)
    assert figures.bar(2, 4) == ("████", "")
