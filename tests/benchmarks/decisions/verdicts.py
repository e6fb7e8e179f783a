"""What the runs of the decision benchmark say: a table for each question, held against targets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.decisions.baselines import BASELINES
from tests.benchmarks.decisions.runs import OURS, Best, Pick, Run

Picked = Callable[[Run], Pick | None]
Place = tuple[str, int]
"""A landscape and a number of slots."""

ROWS: dict[str, tuple[str, Picked]] = {
    "ours": (OURS, lambda run: run.finals),
    "ours before finals": (OURS, lambda run: run.filtered),
    "a": ("a", lambda run: run.unfiltered),
    "a'": ("a", lambda run: run.filtered),
    "b": ("b", lambda run: run.unfiltered),
    "b'": ("b", lambda run: run.filtered),
    "c": ("c", lambda run: run.unfiltered),
    "c'": ("c", lambda run: run.filtered),
    "d": ("d", lambda run: run.unfiltered),
    "d'": ("d", lambda run: run.filtered),
}
"""What hands over a checkpoint: its name in the tables, the runs' method, and the pick."""
NAMES = {OURS: "this project"} | {baseline.key: baseline.name for baseline in BASELINES}


@dataclass(frozen=True)
class Verdict:
    """A target at one place, what was measured, and the least and most it may be."""

    target: str
    place: str
    value: float
    most: float
    least: float = 0.0

    @property
    def is_met(self) -> bool:
        """Whether the promise is kept; what never happened keeps none."""
        return math.isfinite(self.value) and self.least <= self.value <= self.most + 1e-9

    @property
    def allowed(self) -> str:
        """The limits, in words."""
        least = f"{_number(self.least)} to " if self.least else ""
        return least + _number(self.most)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "target": self.target,
            "place": self.place,
            "value": _plain(self.value),
            "least": self.least,
            "most": _plain(self.most),
            "met": self.is_met,
        }


class Results:
    """All runs, and the best of each landscape."""

    def __init__(self, runs: Sequence[Run], best: dict[str, Best]) -> None:
        self.runs = runs
        self.best = best
        self.places: list[Place] = list(dict.fromkeys((r.landscape, r.slots) for r in runs))

    def at(self, place: Place, method: str) -> list[Run]:
        """The runs of a method at a place, by seed."""
        landscape, slots = place
        return [
            run
            for run in self.runs
            if (run.landscape, run.slots, run.method) == (landscape, slots, method)
        ]

    def regrets(self, place: Place, row: str) -> list[float]:
        """Best feasible value minus the pick's worth; a pick outside the bound, or none, is worth
        no more than the model that trials start from."""
        method, picked = ROWS[row]
        best = self.best[place[0]]
        picks = [picked(run) for run in self.at(place, method)]
        return [best.value - (pick.worth if pick else best.start) for pick in picks]

    def tokens(self, place: Place, row: str) -> list[float]:
        """Tokens until the search's pick was worth 95 % of the best gain; infinite for never."""
        method, _ = ROWS[row]
        filtered = row not in ("a", "b", "c", "d")
        return [
            run.filtered_near if filtered else run.unfiltered_near for run in self.at(place, method)
        ]

    def found_tokens(self, place: Place, method: str) -> list[float]:
        """Tokens until a checkpoint worth 95 % was there, picked or not; infinite for never."""
        return [run.found_near for run in self.at(place, method)]

    def infeasible(self, place: Place, row: str) -> list[bool]:
        """Whether each pick truly lies outside of the bound; nothing handed over does not."""
        method, picked = ROWS[row]
        picks = [picked(run) for run in self.at(place, method)]
        return [pick is not None and not pick.is_feasible for pick in picks]


def verdicts(results: Results) -> list[Verdict]:
    """The issue's targets, at each landscape and number of slots."""
    found: list[Verdict] = []
    for place in results.places:
        name = place_name(place)
        regret = {row: statistics.median(results.regrets(place, row)) for row in ROWS}
        stock, random = min(regret["a"], regret["a'"]), min(regret["c"], regret["c'"])
        found += [
            Verdict("regret <= 0.5 x the better of a and a'", name, regret["ours"], 0.5 * stock),
            Verdict("regret <= c's", name, regret["ours"], random),
        ]
        picked = {row: statistics.median(results.tokens(place, row)) for row in ROWS}
        reached = {m: statistics.median(results.found_tokens(place, m)) for m in NAMES}
        for other, share in (("a", 0.5), ("c", 0.25)):
            share = 1.0 if place[0] == "flat" else share
            by_pick = min(picked[other], picked[f"{other}'"])
            found += [
                Verdict(
                    f"tokens until 95 % is {what} <= {share:g} x {other}'s",
                    name,
                    ours,
                    share * most,
                )
                for what, ours, most in (
                    ("reached", reached[OURS], reached[other]),
                    ("picked", picked["ours"], by_pick),
                )
            ]
    outside = [flag for place in results.places for flag in results.infeasible(place, "ours")]
    found.append(Verdict("infeasible winners <= 2 %", "all runs", _share(outside), 0.02))
    for landscape in results.best:
        covered = [
            flag for p in results.places if p[0] == landscape for flag in coverage(results, p)
        ]
        if covered:
            found.append(
                Verdict("95 % interval holds the truth", landscape, _share(covered), 0.99, 0.9)
            )
    return found


def place_name(place: Place) -> str:
    """A place in words."""
    landscape, slots = place
    return f"{landscape}, {slots} slot{'s' if slots > 1 else ''}"


def coverage(results: Results, place: Place) -> list[bool]:
    """Whether the finals' interval holds the true value, of each run that has one."""
    return [
        run.interval[1] <= run.finals.value <= run.interval[2]
        for run in results.at(place, OURS)
        if run.interval is not None and run.finals is not None
    ]


def tables(results: Results, costs: dict[str, float], verdict_list: Sequence[Verdict]) -> str:
    """Everything as Markdown."""
    seeds = len(results.at(results.places[0], OURS))
    parts = [
        f"Medians of {seeds} seeds, quartiles in brackets. "
        + "; ".join(f"**{key}** {name}" for key, name in NAMES.items())
        + "; a prime filters the results by the bound afterwards (point estimates).",
        "## Regret of the checkpoint handed over",
        _table(results, lambda place, row: _spread(results.regrets(place, row), "{:.3f}")),
        "## Tokens to 95 % of the best feasible gain, in trials of full length",
        "Until a feasible checkpoint worth that much was there, known or not:",
        _by_method(
            results, lambda place, m: _in_trials(place, results.found_tokens(place, m))
        ),
        "Until the search's pick was one:",
        _table(results, lambda place, row: _in_trials(place, results.tokens(place, row))),
        "## The best checkpoint that a search came by, known or not: its regret",
        _by_method(results, lambda place, m: _missed(results, place, m)),
        "## Winners outside the bound, by their true KL",
        _table(results, lambda place, row: f"{_share(results.infeasible(place, row)):.0%}"),
        "## The number that is reported",
        _number_table(results),
        "## Targets",
        _rows(
            ["target", "place", "measured", "allowed", ""],
            [
                [
                    v.target,
                    v.place,
                    _number(v.value),
                    v.allowed,
                    "met" if v.is_met else "**missed**",
                ]
                for v in verdict_list
            ],
        ),
        "## Cost of deciding",
        _rows(["what", "milliseconds"], [[name, f"{1e3 * v:.2f}"] for name, v in costs.items()]),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _table(results: Results, cell: Callable[[Place, str], str]) -> str:
    return _rows(
        ["landscape", "slots", *ROWS],
        [[p[0], str(p[1]), *(cell(p, row) for row in ROWS)] for p in results.places],
    )


def _by_method(results: Results, cell: Callable[[Place, str], str]) -> str:
    rows = [[p[0], str(p[1]), *(cell(p, method) for method in NAMES)] for p in results.places]
    return _rows(["landscape", "slots", *NAMES], rows)


def _missed(results: Results, place: Place, method: str) -> str:
    best = results.best[place[0]].value
    return _spread([best - run.found for run in results.at(place, method)], "{:.3f}")


def _number_table(results: Results) -> str:
    rows = []
    for place in results.places:
        runs = [run for run in results.at(place, OURS) if run.finals and run.interval]
        found = [(run.finals, run.interval) for run in runs]
        search = [pick.search - pick.value for pick, _ in found if pick]
        finals = [ends[0] - pick.value for pick, ends in found if pick and ends]
        widths = [ends[2] - ends[1] for _, ends in found if ends]
        stock = [r.filtered.search - r.filtered.value for r in results.at(place, "a") if r.filtered]
        rows.append(
            [
                place[0], str(place[1]), f"{_share(coverage(results, place)):.0%}",
                _spread(widths, "{:.2f}"), _spread(finals, "{:+.3f}"), _spread(search, "{:+.3f}"),
                _spread(stock, "{:+.3f}"),
            ]
        )  # fmt: skip
    return _rows(
        ["landscape", "slots", "95 % interval holds the truth", "its width", "finals - truth",
         "search - truth", "a': search - truth"],
        rows,
    )  # fmt: skip


def _in_trials(place: Place, tokens: Sequence[float]) -> str:
    from tests.benchmarks.decisions.runs import landscape

    curves = landscape(place[0])
    full = curves.max_steps * curves.tokens_per_step
    reached = [value / full for value in tokens if math.isfinite(value)]
    median = statistics.median(tokens) / full
    shown = f"{median:.1f}" if math.isfinite(median) else "never"
    return f"{shown} ({len(reached)}/{len(tokens)})"


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    low, middle, high = (_quantile(values, share) for share in (0.25, 0.5, 0.75))
    return f"{form.format(middle)} [{form.format(low)}, {form.format(high)}]"


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low, high = ordered[math.floor(at)], ordered[math.ceil(at)]
    return low + (high - low) * (at - math.floor(at))


def _rows(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0


def _number(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.3f}"


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
