"""The full-screen view of a queue, laid out for whatever size the terminal has.

What matters most stands at the top and is never cut; tables lose columns before they lose rows, and rows before the events go.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from segq.watch import figures
from segq.watch.history import History
from segq.watch.snapshot import MISSING, OPEN, Event, LabelView, ProcessView, Snapshot

_COLOURS = {"put": "green", "get": "cyan", "ack": "magenta", "items": "yellow"}
_EVENT_COLOURS = {"rescue": "yellow", "died": "red", "quarantine": "bold red", "redelivery": "yellow", "shutdown": "red"}
_FEWEST_EVENTS = 3  # lines kept for what happened, on a screen that is high enough
_NARROW, _WIDE = 60, 110  # columns
_CURVES = 4
_ALMOST_FULL = 0.95

_Column = tuple[str, str, Callable[[ProcessView], str | Text]]


class Screen:
    """Draws a history on a console of any size."""

    def __init__(self, console: Console, interval: float) -> None:
        self._console, self._interval = console, interval
        self._plain = not console.encoding.lower().startswith("utf")

    def draw(self, history: History, height: int | None = None) -> RenderableType:
        """The whole picture, as large as the console at most; with `height`, of that many lines, its curves of one each."""
        flat, width, height = height is not None, self._console.width, height or self._console.height
        now = history.last
        if now is None:
            return Text("")
        lines: list[RenderableType] = [self._title(now, width)]
        if now.state != OPEN:
            lines += self._absent(now, width)
            lines += self._events(list(history.events), height - len(lines), width)
            return self._cut(lines, width, height)
        rows = 1 if flat else self._chart_rows(now, history, height)
        lines += self._flow(history, width, rows)
        lines += self._stored(now, history, width, rows)
        left = height - len(lines)
        if now.labels:
            table = self._labels(now.labels, max(2, min(len(now.labels) + 2, (left - _FEWEST_EVENTS) // 2)), width)
            lines += table
            left -= len(table)
        keep = min(_FEWEST_EVENTS + 1, left // 4) if history.events else 0
        table = self._people(now.processes, left - keep, width, here=bool(now.segments))
        lines += table
        left -= len(table)
        lines += self._events(list(history.events), left, width)
        return self._cut(lines, width, height)

    def _cut(self, lines: list[RenderableType], width: int, height: int) -> RenderableType:
        """Whatever happens, the lines that there are, and none longer than it may be."""
        return Group(*(_line(line, width, self._ellipsis) if isinstance(line, Text) else line for line in lines[:height]))

    # --- the top ---

    def _title(self, now: Snapshot, width: int) -> Text:
        clock = time.strftime("%H:%M:%S", time.localtime(now.time))
        right = (
            f"{now.kind or 'segq'}  {clock}"
            if width < _NARROW
            else f"{now.kind or 'segq'}  every {self._interval:g} s  {clock}"
        )
        room = width - len(right) - 2
        path = printable(now.path)
        path = path if len(path) <= room else f"{self._ellipsis}{path[len(path) - room + len(self._ellipsis) :]}"
        title = Text(path, style="bold", no_wrap=True)
        if now.shutdown and len(path) + 12 <= room:
            title.append("  shut down", style="bold red")
        title.append(" " * max(1, width - len(title.plain) - len(right)))
        title.append(right, style="dim")
        return _line(title, width)

    def _absent(self, now: Snapshot, width: int) -> list[Text]:
        missing = now.state == MISSING
        text = "there is no queue here; it will show as soon as there is one" if missing else printable(now.error)
        return [Text(""), *(Text(line, style="yellow" if missing else "red") for line in textwrap.wrap(text, width))]

    def _chart_rows(self, now: Snapshot, history: History, height: int) -> int:
        """Lines for each curve: more where there is place left over."""
        tables = len(now.processes) + 2 + (len(now.labels) + 2 if now.labels else 0)
        left = height - 7 - tables - min(len(history.events), 2 * _FEWEST_EVENTS)
        return 1 + min(2, max(0, left // _CURVES))

    def _flow(self, history: History, width: int, rows: int) -> list[Text]:
        now = history.last
        assert now is not None
        lines = []
        for name in ("put", "get", "ack"):
            rate = getattr(now.rates, name)
            start = Text(f"{name:<4}")
            start.append(f"{figures.count(rate):>10}", style=f"bold {_COLOURS[name]}" if rate else "dim")
            start.append("/s ", style="dim")
            lines += self._curve(start, history, name, width, rows)
        return lines

    def _curve(self, start: Text, history: History, name: str, width: int, rows: int) -> list[Text]:
        """A curve of `rows` lines behind the number that it leads to, and how high it goes."""
        end = 8 if width >= _NARROW else 0
        room = max(8, width - start.cell_len - end)
        values = history.series(name, room)
        drawn = figures.chart(values, room, rows, plain=self._plain)
        lines = [Text(" " * start.cell_len) for _ in drawn[1:]] + [start]
        for line, curve in zip(lines, drawn, strict=True):
            line.append(curve, style=_COLOURS[name])
        if end and max(values, default=0.0) > 0:
            lines[0].append(" " * (room - len(drawn[0])))
            lines[0].append(f"{figures.count(max(values), 7):>{end}}", style="dim")
        return [_line(line, width) for line in lines]

    def _stored(self, now: Snapshot, history: History, width: int, rows: int) -> list[Text]:
        start = Text("backlog")
        start.append(f"{figures.count(now.items, 8):>9} ", style="bold yellow" if now.items else "dim")
        lines = []
        if now.capacity or now.max_bytes:
            part, limit = _fullness(now)
            of = f" {_percent(part)} of {limit}" if width >= _NARROW else f" {_percent(part)}"
            room = max(4, width - start.cell_len - len(of))
            filled, empty = figures.bar(part, room, plain=self._plain)
            line = start.copy()
            line.append(filled, style="red" if part > _ALMOST_FULL else "yellow").append(empty, style="dim")
            line.append(of, style="bold red" if part > _ALMOST_FULL else "dim")
            lines.append(_line(line, width))
            start = Text(" " * start.cell_len)
        if rows > 1 or not lines:
            lines += self._curve(start, history, "items", width, rows)
        age = "-" if now.oldest_age is None else figures.span(now.oldest_age)
        facts = [("oldest", age)]
        if now.kind != "topic":
            facts += [("waiting", figures.count(now.waiting)), ("in hand", figures.count(now.claimed))]
        if now.bytes is not None:
            facts.append(("payload", figures.size(now.bytes)))
        facts += [(f"{state} segments" if width >= _WIDE else state, str(n)) for state, n in now.segments.items()]
        lines += _facts(facts, width)
        odd = [("rescues", now.rescues, "yellow"), ("delivered again", now.redelivered, "yellow")]
        odd += [("expired", now.expired, "yellow"), ("dead letters", now.dead_letters or 0, "bold red")]
        odd += [("in quarantine", now.quarantined, "bold red")]
        marked = [(name, Text(figures.count(number), style=style)) for name, number, style in odd if number]
        if marked:
            lines += _facts(marked, width)
        return lines

    # --- tables ---

    def _people(self, processes: Sequence[ProcessView], room: int, width: int, *, here: bool) -> list[RenderableType]:
        if room < 3 or not processes:
            who = "nobody has the queue open" if here else "its server does not say who uses it"
            nobody: list[RenderableType] = [Text(""), Text(who, style="dim")]
            return nobody if room > 1 and not processes else []
        most = 6 if width < 100 else 9
        columns: list[_Column] = [("pid", "right", lambda p: str(p.pid)), ("", "left", _role)]
        columns += [
            ("put/s", "right", lambda p: _rate(p.put_rate, most)),
            ("get/s", "right", lambda p: _rate(p.get_rate, most)),
        ]
        columns += [("holds", "right", lambda p: figures.count(p.holds, most) if p.holds else _dim("-"))]
        if width >= 50:
            columns += [("cpu", "right", lambda p: _dim("-") if p.cpu is None else f"{p.cpu:.0%}")]
        if width >= _NARROW:
            columns += [("mem", "right", lambda p: _dim("-") if p.memory is None else figures.size(p.memory))]
        shown, rest = _most_busy(processes, room - 2)
        table = _table(columns, width)
        table.add_column("command", no_wrap=True, overflow="crop" if self._plain else "ellipsis", ratio=1)
        for each in shown:
            table.add_row(*(cell(each) for _, _, cell in columns), _command(each))
        lines: list[RenderableType] = [Text(""), *_rows(table, width, self._console)]
        if rest:
            lines.append(Text(f"{self._ellipsis} and {rest} more", style="dim"))
        return lines

    def _labels(self, labels: Sequence[LabelView], room: int, width: int) -> list[RenderableType]:
        ordered = sorted(labels, key=lambda label: -label.lag)
        shown = ordered if len(ordered) <= room - 2 else ordered[: max(1, room - 3)]
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True, padding=(0, 1))
        table.add_column("label", no_wrap=True, overflow="crop" if self._plain else "ellipsis", ratio=1)
        names = ["lag", "behind", "ack/s"] + (["in hand", "missed"] if width >= _NARROW else [])
        names += ["acknowledged"] if width >= 80 else []
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for label in shown:
            cells: list[str | Text] = [figures.count(label.lag), figures.span(label.lag_seconds) if label.lag else _dim("-")]
            cells += [_rate(label.ack_rate, 9)]
            if width >= _NARROW:
                missed = Text(figures.count(label.missed), style="yellow") if label.missed else _dim("-")
                cells += [figures.count(label.claimed) if label.claimed else _dim("-"), missed]
            cells += [figures.count(label.acknowledged, 12)] if width >= 80 else []
            table.add_row(Text(printable(label.label) or '""', style="bold"), *cells)
        lines: list[RenderableType] = [Text(""), *_rows(table, width, self._console)]
        if len(shown) < len(ordered):
            lines.append(Text(f"{self._ellipsis} and {len(ordered) - len(shown)} more", style="dim"))
        return lines

    # --- what happened ---

    def _events(self, events: list[Event], room: int, width: int) -> list[RenderableType]:
        if room < 2 or not events:
            return []
        lines: list[RenderableType] = [Text("")]
        for event in events[-(room - 1) :]:
            line = Text(time.strftime("%H:%M:%S ", time.localtime(event.time)), style="dim", no_wrap=True)
            line.append(printable(event.text), style=_EVENT_COLOURS.get(event.kind, "default"))
            lines.append(_line(line, width, self._ellipsis))
        return lines

    @property
    def _ellipsis(self) -> str:
        return "..." if self._plain else "…"


def _line(text: Text, width: int, ellipsis: str = "") -> Text:
    """Cut to the width, so that it takes one line whatever it holds."""
    text.no_wrap = True
    if text.cell_len > width:
        text.truncate(width - len(ellipsis))
        text.append(ellipsis)
    return text


def _facts(facts: Sequence[tuple[str, str | Text]], width: int) -> list[Text]:
    """Names and values side by side, on as many lines as they take."""
    lines = [Text()]
    for name, value in facts:
        piece = Text.assemble((f"{name} ", "dim"), value)
        gap = "   " if lines[-1].plain else ""
        if lines[-1].cell_len + len(gap) + piece.cell_len > width and lines[-1].plain:
            lines.append(Text())
            gap = ""
        lines[-1].append(gap).append_text(piece)
    return [_line(line, width) for line in lines]


def _table(columns: Sequence[_Column], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True, padding=(0, 2 if width >= 100 else 1, 0, 0))
    for name, justify, _ in columns:
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    return table


def _rows(table: Table, width: int, console: Console) -> list[RenderableType]:
    """A table as lines, so that it is known how many it takes."""
    options = console.options.update(width=width, height=None)
    return [
        Text.assemble(*((part.text, part.style or "") for part in line))
        for line in console.render_lines(table, options, pad=False)
    ]


def _fullness(now: Snapshot) -> tuple[float, str]:
    """How full it is by the limit that is nearer, and that limit."""
    by_items = (now.items / now.capacity, figures.count(now.capacity, 12)) if now.capacity else (-1.0, "")
    by_bytes = ((now.bytes or 0) / now.max_bytes, figures.size(now.max_bytes)) if now.max_bytes else (-1.0, "")
    return max(by_items, by_bytes)


def _role(process: ProcessView) -> Text:
    if not process.alive:
        return Text("dead", style="bold red")
    if process.producing and process.consuming:
        return Text("both", style="blue")
    if process.producing:
        return Text("put", style=_COLOURS["put"])
    return Text("get", style=_COLOURS["get"]) if process.consuming else Text("idle", style="dim")


def _command(process: ProcessView) -> Text:
    """Without the directory of the program, which fills the line and says little."""
    program, _, rest = process.command.partition(" ")
    words = f"{os.path.basename(program) or program} {rest}"
    many = f"({process.handles} handles) " if process.handles > 1 else ""
    return Text(many + printable(words))


def printable(text: str) -> str:
    """What a process or a file is called may hold anything, also what a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def _percent(part: float) -> str:
    """Nothing is called empty that is not, nor full."""
    return "<1%" if 0 < part < 0.005 else "99%" if 0.99 < part < 1 else f"{part:.0%}"


def _rate(rate: float, most: int) -> str | Text:
    return figures.count(rate, most) if rate else _dim("-")


def _dim(text: str) -> Text:
    return Text(text, style="dim")


def _most_busy(processes: Sequence[ProcessView], room: int) -> tuple[list[ProcessView], int]:
    """Those that fit, in the order they began, and how many do not: the dead and the busy come first."""
    if len(processes) <= room:
        return list(processes), 0
    ranked = sorted(processes, key=lambda p: (p.alive, -(p.put_rate + p.get_rate), -p.holds))
    kept = {(p.pid, p.started) for p in ranked[: max(1, room - 1)]}
    return [p for p in processes if (p.pid, p.started) in kept], len(processes) - len(kept)
