"""Numbers as people read them, in few columns."""

from __future__ import annotations

_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS = " ._-=+*%#"


def count(number: float, most: int = 9) -> str:
    """A count, in full where it fits into `most` columns, else 12.3k, 4.56M, …"""
    text = f"{number:,.0f}" if number >= 9.95 or number == int(number) else f"{number:.1f}"
    return text if len(text) <= most else _scaled(number, 1000, ("", "k", "M", "G", "T"))


def size(number: float) -> str:
    """Bytes, in binary units."""
    return _scaled(number, 1024, ("B", "K", "M", "G", "T"))


def _scaled(number: float, step: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if number < step * 0.9995 or (number < step and unit == units[0]):
            break
        number /= step
    else:
        unit = units[-1]
    if unit == units[0] and number == int(number):
        return f"{number:.0f}{unit}"
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}{unit}"


def span(seconds: float) -> str:
    """A length of time in its largest sensible unit."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def chart(values: list[float], width: int, rows: int = 1, *, plain: bool = False) -> list[str]:
    """The last `width` values as columns, lines from the top down, the highest value filling them; what is not zero shows."""
    bars = _PLAIN_BARS if plain else _BARS
    steps, shown = len(bars) - 1, values[-width:]
    highest = max(shown, default=0.0)
    heights = [max(1, round(value / highest * steps * rows)) if highest > 0 else 1 for value in shown]
    return ["".join(bars[max(0, min(steps, height - steps * row))] for height in heights) for row in reversed(range(rows))]


def bar(part: float, width: int, *, plain: bool = False) -> tuple[str, str]:
    """(what is filled, what is not) of a bar of `width` columns; anything above nothing shows."""
    filled = min(width, max(1 if part > 0 else 0, round(part * width)))
    return ("#" if plain else "█") * filled, ("." if plain else "░") * (width - filled)
