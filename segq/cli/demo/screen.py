"""What is seen of the demo: a live picture on a terminal, a line a second elsewhere, a table at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from segq.cli.demo.account import Account
from segq.cli.demo.run import Progress

PLAIN_EVERY = 1.0  # seconds between two lines where there is no terminal
RATE_OVER = 1.0  # seconds over which a rate is taken
BAR_WIDTH = 60


class Screen:
    """Writes to a console, in colours and in place if that can."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._recent: deque[Progress] = deque()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Shows on a terminal that something takes a while."""
        return self._console.status(text)

    def follow(self, progresses: Iterable[Progress]) -> Progress:
        """Shows the run as it goes; returns its last moment."""
        with self._picture() as show:
            for now in progresses:
                self._recent.append(now)
                while now.elapsed - self._recent[0].elapsed > RATE_OVER and len(self._recent) > 2:
                    self._recent.popleft()
                show.update(now)
            return show.finish(self._recent[-1])

    @contextmanager
    def _picture(self) -> Iterator[_Live | _Lines]:
        if not self._console.is_terminal:
            yield _Lines(self)
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield _Live(self, live)

    def rates(self) -> tuple[float, float]:
        """Lines put and lines done a second, of late."""
        first, last = self._recent[0], self._recent[-1]
        span = last.elapsed - first.elapsed
        return ((last.put - first.put) / span, (last.done - first.done) / span) if span > 0 else (0.0, 0.0)

    def close(self, account: Account, last: Progress, alone: float) -> None:
        """The table at the end: one process beside the queue."""
        expected, found = account.expected, account.found
        self._console.print()
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        for name in ("one process", "through the queue", ""):
            table.add_column(name, justify="right")
        for name in ("lines", "words"):
            one, many = getattr(expected, name), getattr(found, name)
            table.add_row(name, f"{one:,}", f"{many:,}", _mark(one == many))
        table.add_row("digest", expected.digest, found.digest, _mark(expected.digest == found.digest))
        table.add_row("seconds", f"{alone:.2f}", f"{last.elapsed:.2f}", "")
        table.add_row("lines/s", f"{expected.lines / alone:,.0f}", f"{expected.lines / last.elapsed:,.0f}", "")
        self._console.print(table)
        facts = Table(box=None, pad_edge=False, show_header=False)
        facts.add_column()
        facts.add_column(justify="right", min_width=9)
        facts.add_column("", overflow="fold")
        facts.add_row("lost", f"{account.lost:,}", _mark(not account.lost))
        facts.add_row("wrong", f"{account.wrong:,}", _mark(not account.wrong))
        facts.add_row("invented", f"{account.invented:,}", _mark(not account.invented))
        why = f"  {last.killed} kills explain up to {account.allowed:,}" if last.killed else ""
        facts.add_row("repeated", f"{account.again:,}", _mark(account.again <= account.allowed) + why)
        self._console.print()
        self._console.print(facts, highlight=False)


class _Live:
    """A picture that is drawn over the one before."""

    def __init__(self, screen: Screen, live: Live) -> None:
        self._screen = screen
        self._live = live

    def update(self, now: Progress) -> None:
        put, done = self._screen.rates()
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim", width=8)
        table.add_column(justify="right", width=11)
        table.add_column(justify="right", width=13)
        table.add_column(style="dim")
        table.add_row("put", f"{now.put:,}", f"{put:,.0f}/s", f"  {now.producers} producers")
        table.add_row("done", f"{now.done:,}", f"{done:,.0f}/s", f"  {now.workers} workers, {now.killed} killed so far")
        table.add_row("backlog", f"{now.backlog:,}", "", f"  segments: {_segments(now)}")
        done_part = min(now.done, now.lines) / max(1, now.lines)
        head = Table.grid(padding=(0, 2))
        head.add_row(ProgressBar(completed=100 * done_part, width=BAR_WIDTH), f"{done_part:4.0%}", f"{now.elapsed:.1f} s")
        self._live.update(Group(head, table), refresh=True)

    def finish(self, last: Progress) -> Progress:
        return last  # the last picture stays


class _Lines:
    """A line now and then, for logs and pipes."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._next = 0.0

    def update(self, now: Progress) -> None:
        if now.elapsed >= self._next:
            self._next = now.elapsed + PLAIN_EVERY
            self._print(now)

    def finish(self, last: Progress) -> Progress:
        self._print(last)
        return last

    def _print(self, now: Progress) -> None:
        put, done = self._screen.rates()
        self._screen.say(
            f"{now.elapsed:5.1f} s  put {now.put:,} ({put:,.0f}/s)  done {now.done:,} ({done:,.0f}/s)"
            f"  backlog {now.backlog:,}  killed {now.killed}  segments: {_segments(now)}"
        )


def _segments(now: Progress) -> str:
    return "  ".join(f"{state} {count}" for state, count in now.segments.items())


def _mark(right: bool) -> str:
    return "[green]ok[/green]" if right else "[bold red]WRONG[/bold red]"
