"""The ranked table of a sweep, fitted to the width of where it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.ranking import RankedTrial, find_default, finite_metric, improves, rank
from easyds_tune.results.states import state_text
from easyds_tune.results.text import (
    format_difference,
    format_measured,
    format_number,
    format_param,
    short_names,
)

_KL = "eval/kl"
_COLUMN_GAP = 2
_LONGEST_CELL = 24


@dataclass(frozen=True, slots=True)
class _Column:
    header: str
    cells: list[Text]
    justify: Literal["left", "right"] = "right"

    @property
    def width(self) -> int:
        widest = max([cell_len(self.header), *(cell_len(cell.plain) for cell in self.cells)])
        return widest + _COLUMN_GAP


@dataclass(frozen=True, slots=True)
class RankedTable:
    """A renderable: the best `top` trials and the default one, in as many columns as there is room
    for. Parameters that found no room are named below the table.
    """

    record: SweepRecord
    top: int = 10

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield ranked_table(self.record, self.top, width=options.max_width)


def ranked_table(record: SweepRecord, top: int = 10, width: int = 80) -> Table:
    """The best `top` trials, and trial 0 wherever it ranks, in at most `width` columns of text."""
    ranking = rank(record)
    default = find_default(ranking)
    rows = [
        (place, ranked)
        for place, ranked in enumerate(ranking, start=1)
        if place <= top or ranked is default
    ]
    shown = _fixed_columns(record, rows, default)
    room = width - sum(column.width for column in shown)
    left_out: list[str] = []
    for column in _optional_columns(record, rows):
        if column.width <= room:
            shown.append(column)
            room -= column.width
        else:
            left_out.append(column.header)

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, _COLUMN_GAP - 1, 0, 0),  # the box adds one blank between columns
        caption=_caption(ranking, rows, left_out),
        caption_justify="left",
    )
    for column in shown:
        table.add_column(column.header, justify=column.justify, no_wrap=True, overflow="ellipsis")
    for number in range(len(rows)):
        table.add_row(*(column.cells[number] for column in shown))
    return table


def _fixed_columns(
    record: SweepRecord, rows: list[tuple[int, RankedTrial]], default: RankedTrial | None
) -> list[_Column]:
    objective = record.objective
    ranked = [entry for _, entry in rows]
    arrow = "↑" if objective.mode == "max" else "↓"
    return [
        _Column("#", [Text(str(place)) for place, _ in rows]),
        _Column("trial", [Text(entry.trial.id) for entry in ranked], "left"),
        _Column("state", [state_text(entry.trial.state) for entry in ranked], "left"),
        _Column("step", [Text("–" if e.step is None else str(e.step)) for e in ranked]),
        _Column(
            f"{objective.metric} {arrow}",
            [
                Text(format_measured(e.value, e.stderr), style="bold" if e.is_fit else "dim")
                for e in ranked
            ],
        ),
        _Column("Δ default", [_delta(record, entry, default) for entry in ranked]),
    ]


def _optional_columns(record: SweepRecord, rows: list[tuple[int, RankedTrial]]) -> list[_Column]:
    ranked = [entry for _, entry in rows]
    columns: list[_Column] = []
    kl = [None if e.report is None else finite_metric(e.report, _KL) for e in ranked]
    if record.objective.metric != _KL and any(value is not None for value in kl):
        cells = [Text("–" if value is None else format_number(value)) for value in kl]
        columns.append(_Column("kl", cells))
    searched = dict.fromkeys(path for t in record.trials.values() for path in t.params)
    for path, name in short_names(searched).items():
        cells = [
            Text(_shorten(format_param(e.trial.params[path])) if path in e.trial.params else "–")
            for e in ranked
        ]
        columns.append(_Column(name, cells))
    return columns


def _delta(record: SweepRecord, ranked: RankedTrial, default: RankedTrial | None) -> Text:
    if ranked is default:
        return Text("default", style="dim")
    if default is None or default.value is None or ranked.value is None:
        return Text("–")
    better = ranked.is_fit and improves(ranked.value, default.value, record.objective)
    text = format_difference(ranked.value - default.value, ranked.stderr)
    return Text(text, style="green" if better else "dim")


def _shorten(text: str) -> str:
    return text if cell_len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def _caption(
    ranking: list[RankedTrial], rows: list[tuple[int, RankedTrial]], left_out: list[str]
) -> str | None:
    parts = []
    if len(rows) < len(ranking):
        parts.append(f"{len(rows)} of {len(ranking)} trials")
    if left_out:
        parts.append(f"no room for: {', '.join(left_out)}")
    return "; ".join(parts) or None
