"""The grid of faults, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tests.benchmarks.faults.rows import ROWS
from tests.benchmarks.harness import table


class Cell(Protocol):
    """One run of one fault on one side."""

    row: int
    side: str
    seed: int
    passed: bool
    seen: str
    recovery_seconds: float | None


def console(seen: Sequence[Cell]) -> str:
    """A line a fault: passes of ours and Ray's, time to recovery; then what failed of ours."""
    body = []
    for row in ROWS:
        ours, rays = _of(seen, row.number, "ours"), _of(seen, row.number, "ray")
        if ours or rays:
            body.append(
                [f"{row.number:2} {row.fault}", _passes(ours), _recovery(ours), _passes(rays)]
            )
    grid = table(["fault", "ours", "seconds to recover", "Ray Tune"], body)
    failed = [one for one in seen if one.side == "ours" and not one.passed]
    return "\n".join([grid, *(f"FAIL row {f.row} seed {f.seed}: {_line(f.seen)}" for f in failed)])


def markdown(seen: Sequence[Cell]) -> str:
    """A table with what was expected, and what was seen on both sides."""
    lines = [
        "| # | fault | what must happen | seen | pass | seconds to recover "
        "| Ray Tune alone | pass |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        ours, rays = _of(seen, row.number, "ours"), _of(seen, row.number, "ray")
        if ours or rays:
            cells = [
                str(row.number), row.fault, row.expected, _seen(ours), _passes(ours),
                _recovery(ours), _seen(rays), _passes(rays),
            ]  # fmt: skip
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _of(seen: Sequence[Cell], row: int, side: str) -> list[Cell]:
    return [one for one in seen if one.row == row and one.side == side]


def _passes(cells: Sequence[Cell]) -> str:
    return f"{sum(cell.passed for cell in cells)} of {len(cells)}" if cells else "-"


def _recovery(cells: Sequence[Cell]) -> str:
    times = [cell.recovery_seconds for cell in cells if cell.recovery_seconds is not None]
    return ", ".join(f"{seconds:.1f}" for seconds in times) or "-"


def _seen(cells: Sequence[Cell]) -> str:
    return "<br>".join(dict.fromkeys(_line(cell.seen) for cell in cells)) or "-"


def _line(text: str) -> str:
    return " ".join(text.split())
