"""Plots of the decision benchmark as plain SVG."""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.benchmarks.decisions.runs import METHODS, OURS, landscape, spec_of
from tests.benchmarks.decisions.verdicts import NAMES, ROWS, Results, place_name

COLOURS = {OURS: "#d1495b", "a": "#00798c", "b": "#edae49", "c": "#6b7280", "d": "#7b4ea3"}
WIDTH, HEIGHT, LEFT, TOP = 260, 180, 54, 34
POINTS = 80


def incumbents(results: Results) -> str:
    """Median worth of each search's pick (filtered by the bound) over the tokens it has used."""
    columns = list(dict.fromkeys(slots for _, slots in results.places))
    rows = list(results.best)
    parts = []
    for place in results.places:
        corner = (columns.index(place[1]), rows.index(place[0]))
        best = results.best[place[0]]
        total = spec_of(place[0]).stop.tokens or 1
        lines = {m: _median_path(results, place, m, total) for m in METHODS}
        values = [value for line in lines.values() for value in line if value is not None]
        low, high = min([best.start, *values]), max([best.value, *values])
        margin = 0.06 * (high - low) or 0.1
        parts.append(_panel(corner, place_name(place), low - margin, high + margin))
        parts.append(_line(corner, [best.value] * 2, low - margin, high + margin, "#9ca3af", "4 3"))
        parts += [
            _line(corner, line, low - margin, high + margin, COLOURS[m])
            for m, line in reversed(lines.items())
        ]
        handed = best.value - statistics.median(results.regrets(place, OURS))
        x, y = _left(corner) + WIDTH, _y(corner, handed, low - margin, high + margin)
        parts.append(f'<circle cx="{x}" cy="{y:.1f}" r="4.5" fill="{COLOURS[OURS]}"/>')
    title = (
        "True value of the search's pick by tokens used, median of the seeds; outside the bound it "
        "counts as the start. Dashed: the best feasible. Dot: what our finals hand over"
    )
    return _figure(title, len(columns), len(rows), parts, {NAMES[m]: COLOURS[m] for m in METHODS})


def regrets(results: Results) -> str:
    """Every run's regret, a column of dots a method."""
    columns = list(dict.fromkeys(slots for _, slots in results.places))
    rows = list(results.best)
    parts = []
    shown = ["ours", "a", "a'", "b'", "c'", "d'"]
    for place in results.places:
        corner = (columns.index(place[1]), rows.index(place[0]))
        found = {row: results.regrets(place, row) for row in shown}
        high = 1.08 * max(max(values) for values in found.values()) or 0.1
        parts.append(_panel(corner, place_name(place), 0.0, high))
        for index, (row, values) in enumerate(found.items()):
            colour = COLOURS[ROWS[row][0]]
            x = _left(corner) + WIDTH * (index + 0.5) / len(shown)
            for k, value in enumerate(sorted(values)):
                y = _y(corner, value, 0.0, high)
                shift = 4 * ((k % 3) - 1)
                parts.append(
                    f'<circle cx="{x + shift:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}" '
                    'fill-opacity="0.55"/>'
                )
            y = _y(corner, statistics.median(values), 0.0, high)
            parts.append(
                f'<line x1="{x - 14:.1f}" x2="{x + 14:.1f}" y1="{y:.1f}" y2="{y:.1f}" '
                f'stroke="{colour}" stroke-width="2.5"/>'
            )
            parts.append(_text(x, _top(corner) + HEIGHT + 14, row, "middle"))
    title = "Regret of the checkpoint handed over: one dot a run, a line at the median"
    return _figure(title, len(columns), len(rows), parts, {})


def _median_path(
    results: Results, place: tuple[str, int], method: str, total: int
) -> list[float | None]:
    """Median over seeds at evenly spaced tokens; None before half of the seeds have a pick."""
    start = landscape(place[0]).start()
    runs = results.at(place, method)
    line: list[float | None] = []
    for index in range(POINTS + 1):
        tokens = total * index / POINTS
        values = []
        for run in runs:
            at = bisect.bisect_right([used for used, _ in run.path], tokens)
            values.append(run.path[at - 1][1] if at else start)
        line.append(statistics.median(values) if values else None)
    return line


def _left(corner: tuple[int, int]) -> float:
    return LEFT + corner[0] * (WIDTH + 62)


def _top(corner: tuple[int, int]) -> float:
    return 60 + TOP + corner[1] * (HEIGHT + 62)


def _y(corner: tuple[int, int], value: float, low: float, high: float) -> float:
    return _top(corner) + HEIGHT * (1 - (value - low) / (high - low))


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="#374151">{escape(text)}</text>'
    )


def _panel(corner: tuple[int, int], title: str, low: float, high: float) -> str:
    left, top = _left(corner), _top(corner)
    parts = [
        f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" '
        'stroke="#d1d5db"/>',
        _text(left, top - 7, title, size=12),
    ]
    for tick in range(5):
        value = low + (high - low) * tick / 4
        y = _y(corner, value, low, high)
        parts.append(
            f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#f3f4f6"/>'
        )
        parts.append(_text(left - 5, y + 4, f"{value:.2f}", "end", 10))
    return "\n".join(parts)


def _line(
    corner: tuple[int, int], values: Sequence[float | None], low: float, high: float, colour: str,
    dash: str = "",
) -> str:  # fmt: skip
    left = _left(corner)
    points = " ".join(
        f"{left + WIDTH * index / (len(values) - 1):.1f},{_y(corner, value, low, high):.1f}"
        for index, value in enumerate(values)
        if value is not None
    )
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"{dashed}/>'


def _figure(
    title: str, columns: int, rows: int, parts: Sequence[str], legend: dict[str, str]
) -> str:
    width, height = LEFT + columns * (WIDTH + 62), 60 + TOP + rows * (HEIGHT + 62)
    entries = [_text(12, 22, title, size=13)]
    x = 12.0
    for name, colour in legend.items():
        entries.append(f'<rect x="{x}" y="36" width="14" height="4" fill="{colour}"/>')
        entries.append(_text(x + 19, 43, name))
        x += 40 + 6.4 * len(name)
    body = "\n".join([*entries, *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
