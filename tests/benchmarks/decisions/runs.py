"""One simulated sweep by one method, measured against what is true."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from easyds_tune.decisions.make import make_decider
from easyds_tune.decisions.rules import bounds_of
from easyds_tune.journal.bounds import violation
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.finals import settle
from easyds_tune.simulation.curves import Curves, Landscape, load_landscape
from easyds_tune.simulation.discrete import SimulatedSweep, simulate
from easyds_tune.spec.load import load_sweep
from easyds_tune.spec.search import ChoiceParam, FloatParam, Param
from easyds_tune.spec.stop import StopSpec
from easyds_tune.spec.sweep import SweepSpec
from tests.benchmarks.decisions.baselines import BASELINES, seed_everything

FOLDER = Path(__file__).parent
LANDSCAPES = {
    "dpo": "dpo.json", "ppo": "ppo.json", "hacking": "hacking.yaml",
    "crossing": "crossing.yaml", "flat": "flat.yaml",
    "sharp": "sharp.yaml", "precise": "precise.yaml", "outside": "precise.yaml",
}  # fmt: skip
OURS = "ours"
METHODS = (OURS, *(baseline.key for baseline in BASELINES))
FULL_LENGTHS = 40
"""The budget of every run, in trials of full length."""
NEAR = 0.95
"""Share of the best feasible gain whose tokens are counted."""
JUDGES = 1000
"""Times the slots, plus the run's seed: a run's judge. No two runs of a method share it,
and all methods have it."""


@dataclass(frozen=True)
class Best:
    """The best feasible checkpoint of a landscape, and the model that trials start from."""

    value: float
    start: float

    @property
    def near(self) -> float:
        """The value that counts as nearly the best."""
        return self.start + NEAR * (self.value - self.start)


@dataclass(frozen=True)
class Pick:
    """A checkpoint that a method would hand over. `search`: what its search had measured.

    worth: its true value; the start's where it is truly outside of the bound, and so useless.
    """

    trial: str
    step: int
    search: float
    value: float
    kl: float
    is_feasible: bool
    worth: float


@dataclass(frozen=True)
class Run:
    """One run. unfiltered: the best score of all; filtered: of those that keep the bound by point
    estimate; finals: ours alone, None where it hands over nothing.

    found: the best true value of all feasible checkpoints it came by, known to it or not;
    found_near: tokens until there was one worth 95 % of the best.
    near: tokens until the pick was worth 95 % of the best; infinite if never. path: (tokens,
    worth of the filtered pick) each time it changed. interval: what the finals reported.
    """

    landscape: str
    method: str
    slots: int
    seed: int
    tokens: int
    trials: int
    seconds: float
    unfiltered: Pick | None
    filtered: Pick | None
    finals: Pick | None
    unfiltered_near: float
    filtered_near: float
    found: float
    found_near: float
    path: list[tuple[int, float]]
    interval: tuple[float, float, float] | None
    propose_seconds: float
    report_seconds: float

    @property
    def pick(self) -> Pick | None:
        """What the method hands over in the end: a stock one filtered by the bound."""
        return self.finals if self.method == OURS else self.filtered

    def to_json(self) -> dict[str, Any]:
        """Plain values; null for never."""
        found = asdict(self)
        for name in ("unfiltered_near", "filtered_near", "found_near"):
            found[name] = found[name] if math.isfinite(found[name]) else None
        return found


@cache
def landscape(name: str) -> Landscape:
    """A landscape by its name; what it works out is kept."""
    return load_landscape(FOLDER / "landscapes" / LANDSCAPES[name])


@cache
def spec_of(name: str) -> SweepSpec:
    """The spec of a landscape's sweeps, with the budget that every method has."""
    spec = load_sweep(str(FOLDER / "specs" / f"{name}.yaml"))
    steps = FULL_LENGTHS * spec.budget().max_steps
    stop = StopSpec(tokens=round(steps * landscape(name).tokens_per_step))
    return spec.model_copy(update={"stop": stop})


def run(name: str, method: str, slots: int, seed: int, best: Best) -> Run:
    """One sweep, from its first trial to what it hands over."""
    spec = spec_of(name).model_copy(update={"seed": seed})
    curves = Curves(landscape(name), judge=JUDGES * slots + seed)
    seed_everything(seed)

    def decide(record: SweepRecord) -> Any:
        if method == OURS:
            return make_decider(spec, record, slots)
        [baseline] = [baseline for baseline in BASELINES if baseline.key == method]
        return baseline.make(spec, record, seed)

    if method != OURS:
        spec = spec.model_copy(update={"finals": None})
    swept = simulate(spec, curves, decide, slots)
    unfiltered, unfiltered_near, _ = _follow(swept, curves, best, filtered=False)
    filtered, filtered_near, path = _follow(swept, curves, best, filtered=True)
    found, found_near = _found(swept, curves, best)
    settled = settle(swept.record) if method == OURS else None
    finals, interval = None, None
    if settled is not None and settled.winner is not None:
        winner = settled.winner
        finals = _pick(swept.record, curves, best, winner.trial.id, winner.step)
        interval = (winner.reported.value, winner.reported.low, winner.reported.high)
    return Run(
        landscape=name, method=method, slots=slots, seed=seed,
        tokens=swept.told[-1].tokens, trials=len(swept.record.trials), seconds=swept.seconds,
        unfiltered=unfiltered, filtered=filtered, finals=finals,
        unfiltered_near=unfiltered_near, filtered_near=filtered_near,
        found=found, found_near=found_near, path=path,
        interval=interval,
        propose_seconds=statistics.median(swept.propose_costs),
        report_seconds=statistics.median(swept.report_costs),
    )  # fmt: skip


def _follow(
    swept: SimulatedSweep, curves: Curves, best: Best, *, filtered: bool
) -> tuple[Pick | None, float, list[tuple[int, float]]]:
    """The pick by the search's own numbers, the tokens until it was nearly the best, its path."""
    record, pick, near = swept.record, None, math.inf
    reports = {
        (trial.id, report.step): report.metrics
        for trial in record.trials.values()
        for report in trial.reports
    }
    path: list[tuple[int, float]] = []
    for told in swept.told:
        metrics = reports[told.trial, told.step]
        if filtered and violation(record.bounds, metrics) > 0:
            continue
        if pick is not None and metrics[record.objective.metric] <= pick.search:
            continue
        pick = _pick(record, curves, best, told.trial, told.step)
        path.append((told.tokens, pick.worth))
        if pick.is_feasible and pick.value >= best.near - 1e-12:
            near = min(near, told.tokens)
    return pick, near, path


def _found(swept: SimulatedSweep, curves: Curves, best: Best) -> tuple[float, float]:
    """The best true value of all feasible checkpoints, and the tokens until one came near."""
    record, found, near = swept.record, best.start, math.inf
    for told in swept.told:
        truth = curves.truth(record.trials[told.trial].params, told.step)
        if violation(record.bounds, truth) > 0:
            continue
        value = truth[record.objective.metric]
        found = max(found, value)
        if value >= best.near - 1e-12:
            near = min(near, told.tokens)
    return found, near


def _pick(record: SweepRecord, curves: Curves, best: Best, name: str, step: int) -> Pick:
    trial = record.trials[name]
    [report] = [report for report in trial.reports if report.step == step]
    truth = curves.truth(trial.params, step)
    is_feasible = violation(record.bounds, truth) == 0
    value = truth[record.objective.metric]
    return Pick(
        trial=name, step=step, search=report.metrics[record.objective.metric], value=value,
        kl=truth["eval/kl"], is_feasible=is_feasible, worth=value if is_feasible else best.start,
    )  # fmt: skip


def find_best(name: str, draws: int = 4000, rounds: int = 6) -> Best:
    """The best feasible checkpoint there is: random configurations, then closer to the best."""
    spec, curves = spec_of(name), Curves(landscape(name))
    bounds = bounds_of(spec)
    every, end = spec.budget().eval_steps, spec.budget().max_steps
    steps = [*range(every, end, every), end]
    rng = np.random.default_rng(0)
    space = spec.search_space

    def value(places: dict[str, float]) -> float:
        params = {path: _at(param, places[path]) for path, param in space.items()}
        truths = [curves.truth(params, step) for step in steps]
        inside = [t["eval/reward"] for t in truths if violation(bounds, t) == 0]
        return max(inside, default=-math.inf)

    drawn = [dict(zip(space, rng.random(len(space)), strict=True)) for _ in range(draws)]
    found = sorted(((value(places), index) for index, places in enumerate(drawn)), reverse=True)
    top = [(score, drawn[index]) for score, index in found[:20]]
    for level in range(rounds):
        width = 0.15 * 0.5**level
        near = [
            {
                path: place
                if isinstance(space[path], ChoiceParam)
                else float(np.clip(place + rng.normal(0.0, width), 0.0, 1.0))
                for path, place in places.items()
            }
            for _, places in top
            for _ in range(15)
        ]
        top = sorted(
            [*top, *((value(places), places) for places in near)], key=lambda item: -item[0]
        )[:20]
    return Best(top[0][0], landscape(name).start())


def _at(param: Param, place: float) -> Any:
    if isinstance(param, ChoiceParam):
        return param.choice[min(int(place * len(param.choice)), len(param.choice) - 1)]
    assert isinstance(param, FloatParam)
    if param.log:
        return float(param.low * (param.high / param.low) ** place)
    return param.low + place * (param.high - param.low)
