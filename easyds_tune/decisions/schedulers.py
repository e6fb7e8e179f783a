"""Who goes on at a rung. Each scheduler is a fold over reports, and knows nothing of Ray.

A trial enters a rung with its first report at or after it. Trials are compared there by how far
they lie outside of the bounds that hold by then, and those inside by their score: feasible first.
The default configuration, trial 0, always goes on and takes nobody's place: what the search bought
cannot be told from a default that was cut at a third of its budget.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Protocol

from easyds_tune.decisions.rules import Rules
from easyds_tune.journal.bounds import violation
from easyds_tune.journal.events import Objective, TrialState
from easyds_tune.journal.replay import Report, SweepRecord, TrialRecord
from easyds_tune.results.ranking import DEFAULT_TRIAL_NUMBER

_LOST = frozenset(
    {TrialState.BOUNDED, TrialState.DIVERGED, TrialState.OUT_OF_MEMORY, TrialState.FAILED}
)

Action = Literal["continue", "pause", "stop"]


class Place(NamedTuple):
    """How good a trial is at a rung; the smaller the better, earlier trials first in a tie."""

    violation: float
    cost: float
    number: int


class Choice(NamedTuple):
    """What a scheduler makes of a report, and why, in words; no words where nothing was decided."""

    action: Action
    reason: str = ""


class Scheduler(Protocol):
    """What all schedulers can be asked. Reports come in their order, replayed ones too."""

    name: str

    def take_in(self, trial: TrialRecord, progress: int) -> Choice:
        """Note the newest report of a trial, made at `progress`, and say what it means for it."""
        ...

    def promotion(self, record: SweepRecord, may_start: bool) -> tuple[str, str] | None:
        """A paused trial that should go on now, and why.

        may_start: whether new trials can still be started.
        """
        ...


def make_scheduler(rules: Rules) -> Scheduler:
    """The scheduler that the rules name."""
    if rules.scheduler == "none" or not rules.rungs:
        return NoScheduler()
    kinds: dict[str, Callable[[Rules], Scheduler]] = {
        "asha": Asha,
        "asha_stop": AshaStop,
        "halving": Halving,
        "median": Median,
    }
    return kinds[rules.scheduler](rules)


class NoScheduler:
    """Every trial runs to its end."""

    name = "none"

    def take_in(self, trial: TrialRecord, progress: int) -> Choice:
        """Go on."""
        return Choice("continue")

    def promotion(self, record: SweepRecord, may_start: bool) -> tuple[str, str] | None:
        """Nothing ever waits."""
        return None


class Rung:
    """Trials that came as far as one rung, best first."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.places: dict[str, Place] = {}
        self._order: list[tuple[Place, str]] = []

    def enter(self, trial: str, place: Place) -> None:
        """Let a trial in, once: a retry that comes by again keeps its place."""
        self.places[trial] = place
        bisect.insort(self._order, (place, trial))

    def standing(self, trial: str) -> int:
        """How many trials are better here."""
        return bisect.bisect_left(self._order, (self.places[trial], trial))

    def in_order(self) -> list[str]:
        """The trials here, best first."""
        return [trial for _, trial in self._order]

    def __len__(self) -> int:
        return len(self._order)


class _Rungs:
    """The rungs of a sweep, and the highest one that each trial has entered."""

    name = "rungs"
    with_default = False
    """Whether trial 0 takes a place at its rungs."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._rungs = [Rung(at) for at in rules.rungs]
        self._level: dict[str, int] = {}

    def _enter(self, trial: TrialRecord, progress: int) -> Rung | None:
        """Let a trial into the rungs its newest report reached; the highest new one, if any."""
        level = self._level.get(trial.id, -1)
        reached = bisect.bisect_right(self._rules.rungs, progress) - 1
        if reached <= level or (trial.number == DEFAULT_TRIAL_NUMBER and not self.with_default):
            return None
        place = place_of(trial.reports[-1], trial.number, self._rules)
        for rung in self._rungs[level + 1 : reached + 1]:
            rung.enter(trial.id, place)
        self._level[trial.id] = reached
        return self._rungs[reached]

    def _share(self, rung: Rung) -> int:
        """How many of those that entered a rung go on."""
        return int(len(rung) / self._rules.reduction_factor + 1e-9)

    def _waiting(self, rung: Rung, record: SweepRecord, count: int) -> str | None:
        """The best of a rung's `count` best trials that is paused there.

        One that broke a bound or failed later on leaves its place to the next.
        """
        places = count
        for name in rung.in_order():
            trial = record.trials[name]
            if trial.state in _LOST:
                continue
            if places == 0:
                return None
            if trial.state is TrialState.PAUSED and self._rungs[self._level[name]] is rung:
                return name
            places -= 1
        return None

    def _one_of(self, rung: Rung, count: int) -> str:
        """Why a trial goes on, in words."""
        of = f"{len(rung)} that reached rung {rung.at}"
        return f"among the best {count} of {of}" if count > 1 else f"the best of {of}"


class Asha(_Rungs):
    """Asynchronous successive halving that promotes (Li et al. 2020, "A System for Massively
    Parallel Hyperparameter Tuning", algorithm 2): a trial pauses at its rung, and goes on once it
    is among the best 1/η that reached it. Nobody passes for having come first.

    Once nothing can be added to a rung any more, one trial of it goes on at least.
    """

    name = "asha"

    def take_in(self, trial: TrialRecord, progress: int) -> Choice:
        """Pause at a rung, unless among the best 1/η there already."""
        rung = self._enter(trial, progress)
        if rung is None:
            return Choice("continue")
        share = self._share(rung)
        if rung.standing(trial.id) < share:
            return Choice("continue", self._one_of(rung, share))
        return Choice("pause", f"{_ordinal(rung.standing(trial.id))} of {len(rung)} at {rung.at}")

    def promotion(self, record: SweepRecord, may_start: bool) -> tuple[str, str] | None:
        """The best trial that may go on, from the highest rung down."""
        if found := self._promotion(record, 0):
            return found
        if may_start or _is_running(record.trials.values()):
            return None
        return self._promotion(record, 1)

    def _promotion(self, record: SweepRecord, at_least: int) -> tuple[str, str] | None:
        for rung in reversed(self._rungs):
            share = max(at_least, self._share(rung))
            if waiting := self._waiting(rung, record, share):
                return waiting, self._one_of(rung, share)
        return None


class Halving(_Rungs):
    """Synchronous successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm
    Identification and Hyperparameter Optimization"): all trials come to a rung before the best
    1/η, one at least, go on from it.
    """

    name = "halving"

    def take_in(self, trial: TrialRecord, progress: int) -> Choice:
        """Pause at every rung."""
        rung = self._enter(trial, progress)
        if rung is None:
            return Choice("continue")
        return Choice("pause", f"waits at {rung.at} for the others")

    def promotion(self, record: SweepRecord, may_start: bool) -> tuple[str, str] | None:
        """The best trial of the lowest rung that is complete and has not sent all it should."""
        if may_start:
            return None
        for level, rung in enumerate(self._rungs):
            if any(
                trial.state is TrialState.RUNNING and self._level.get(name, -1) < level
                for name, trial in record.trials.items()
                if trial.source != "finals"
            ):
                return None
            share = max(1, self._share(rung))
            if waiting := self._waiting(rung, record, share):
                return waiting, self._one_of(rung, share)
        return None


class AshaStop(_Rungs):
    """Asynchronous halving that only stops (Ray's kind): a trial ends at a rung unless it is among
    the best 1/η of those that came before it. The first to come always passes.
    """

    name = "asha_stop"

    def take_in(self, trial: TrialRecord, progress: int) -> Choice:
        """Stop, or go on."""
        rung = self._enter(trial, progress)
        if rung is None:
            return Choice("continue")
        share = math.ceil(len(rung) / self._rules.reduction_factor - 1e-9)
        if rung.standing(trial.id) < share:
            return Choice("continue", self._one_of(rung, share))
        place = f"{_ordinal(rung.standing(trial.id))} of {len(rung)}"
        return Choice("stop", f"{place} at {rung.at}, not among the best {share}")

    def promotion(self, record: SweepRecord, may_start: bool) -> tuple[str, str] | None:
        """Nothing ever waits."""
        return None


class Median(_Rungs):
    """The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2): a trial ends
    where its best score so far is worse than the median of the others' mean scores up to there.
    """

    name = "median"
    with_default = True
    FEWEST = 3
    """Other trials that must have come as far."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._best: dict[str, Place] = {}
        self._means: list[dict[str, tuple[float, float]]] = [{} for _ in rules.rungs]

    def take_in(self, trial: TrialRecord, progress: int) -> Choice:
        """Stop, or go on."""
        place = place_of(trial.reports[-1], trial.number, self._rules)
        self._best[trial.id] = min(self._best.get(trial.id, place), place)
        rung = self._enter(trial, progress)
        if rung is None:
            return Choice("continue")
        level = self._level[trial.id]
        others = [mean for name, mean in self._means[level].items() if name != trial.id]
        places = [place_of(report, trial.number, self._rules) for report in trial.reports]
        self._means[level][trial.id] = (
            statistics.fmean(place.violation for place in places),
            statistics.fmean(place.cost for place in places),
        )
        if trial.number == DEFAULT_TRIAL_NUMBER or len(others) < self.FEWEST:
            return Choice("continue")
        median = statistics.median_low(sorted(others))
        if (self._best[trial.id].violation, self._best[trial.id].cost) > median:
            return Choice("stop", f"worse than the median of {len(others)} others at {rung.at}")
        return Choice("continue")

    def promotion(self, record: SweepRecord, may_start: bool) -> tuple[str, str] | None:
        """Nothing ever waits."""
        return None


def place_of(report: Report, number: int, rules: Rules) -> Place:
    """A report's place among others of the same rung; the guard has seen it before."""
    metrics = report.metrics
    broken = violation(rules.bounds, metrics, report.step) if rules.bounds else 0.0
    return Place(broken, cost_of(metrics.get(rules.objective.metric), rules.objective), number)


def cost_of(value: float | None, objective: Objective) -> float:
    """An objective's value with its sign such that less is better; infinity for no number."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if objective.mode == "max" else value


def _is_running(trials: Iterable[TrialRecord]) -> bool:
    return any(trial.state is TrialState.RUNNING for trial in trials)


def _ordinal(better: int) -> str:
    place = better + 1
    ending = "th" if 10 <= place % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
