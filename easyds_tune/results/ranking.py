"""Which trial is best, at which step. The one place that compares trials; everything shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from easyds_tune.journal.bounds import Bound, violation
from easyds_tune.journal.events import Objective, TrialState
from easyds_tune.journal.replay import Report, SweepRecord, TrialRecord

DEFAULT_TRIAL_NUMBER = 0

# A trial that ended in one of these never ranks above one that did not, whatever its score. One
# that broke a bound may still win with a checkpoint from before it did.
UNFIT_STATES = frozenset({TrialState.DIVERGED, TrialState.OUT_OF_MEMORY, TrialState.FAILED})


@dataclass(frozen=True, slots=True)
class RankedTrial:
    """A trial and its best report; all None for a trial without a finite objective.

    `stderr` is the objective's standard error where the trial reports one; `checkpoint` is the
    best step's, relative to the sweep's folder; `violation` says how far the report lies outside
    of the sweep's bounds, in widths of the bound, 0 inside.
    """

    trial: TrialRecord
    report: Report | None = None
    step: int | None = None
    value: float | None = None
    stderr: float | None = None
    checkpoint: str | None = None
    violation: float = 0.0

    @property
    def is_fit(self) -> bool:
        """Whether the trial may win: it has a report inside all bounds, and did not fail."""
        return (
            self.value is not None and self.violation == 0 and self.trial.state not in UNFIT_STATES
        )


def stderr_name(metric: str) -> str:
    """The name under which a trial reports the standard error of a metric."""
    return f"{metric}_stderr"


def improves(value: float, on: float, objective: Objective) -> bool:
    """Whether `value` is strictly better than `on`."""
    return value > on if objective.mode == "max" else value < on


def finite_metric(report: Report, metric: str) -> float | None:
    """The metric's value at a report, None where it is missing, NaN or infinite."""
    value = report.metrics.get(metric)
    return value if value is not None and math.isfinite(value) else None


def best_report(
    trial: TrialRecord,
    objective: Objective,
    bounds: tuple[Bound, ...] = (),
    *,
    whole_only: bool = False,
) -> Report | None:
    """The report with the best finite objective inside all bounds, the earlier one in a tie.

    Where none is inside, the one that misses them least. Where the trial wrote checkpoints only
    reports with one count: a score that never had weights cannot be deployed. One whose checkpoint
    was deleted to save disk, or is lost, still says how good the trial was; it wins nothing.
    whole_only: leave such reports out.
    """
    gone = trial.collected | trial.lost.keys()
    written = trial.checkpoints.keys() | (set() if whole_only else gone)
    with_checkpoint = [report for report in trial.reports if report.step in written]
    found = _best_of(with_checkpoint, objective, bounds)
    if found is None and not (whole_only and gone):
        found = _best_of(trial.reports, objective, bounds)
    return found


def _best_of(
    reports: Iterable[Report], objective: Objective, bounds: tuple[Bound, ...]
) -> Report | None:
    sign = -1.0 if objective.mode == "max" else 1.0
    best: Report | None = None
    best_key = (0.0, 0.0)
    for report in reports:
        value = finite_metric(report, objective.metric)
        if value is None:
            continue
        key = (violation(bounds, report.metrics) if bounds else 0.0, sign * value)
        if best is None or key < best_key:
            best, best_key = report, key
    return best


def rank_trial(
    trial: TrialRecord,
    objective: Objective,
    bounds: tuple[Bound, ...] = (),
    *,
    whole_only: bool = False,
) -> RankedTrial:
    """One trial at its best step."""
    report = best_report(trial, objective, bounds, whole_only=whole_only)
    if report is None:
        return RankedTrial(trial)
    return RankedTrial(
        trial=trial,
        report=report,
        step=report.step,
        value=report.metrics[objective.metric],
        stderr=finite_metric(report, stderr_name(objective.metric)),
        checkpoint=trial.checkpoints.get(report.step),
        violation=violation(bounds, report.metrics),
    )


def rank(record: SweepRecord, *, whole_only: bool = False) -> list[RankedTrial]:
    """All trials, best first: fit ones by value, then unfit ones, then those without a value.

    Unfit ones rank by how little they miss the bounds, then by value. Trials that tie keep the
    order in which they were suggested. whole_only: see `best_report`.
    """
    sign = -1.0 if record.objective.mode == "max" else 1.0

    def order(ranked: RankedTrial) -> tuple[int, float, float, int]:
        if ranked.value is None:
            return 2, 0.0, 0.0, ranked.trial.number
        unfit = 0 if ranked.is_fit else 1
        return unfit, ranked.violation, sign * ranked.value, ranked.trial.number

    trials = (
        rank_trial(trial, record.objective, record.bounds, whole_only=whole_only)
        for trial in record.trials.values()
    )
    return sorted(trials, key=order)


def find_winner(ranking: list[RankedTrial]) -> RankedTrial | None:
    """The best fit trial that has a checkpoint; without any checkpoint at all, the best fit one.

    One whose checkpoint was deleted cannot win: the collector keeps the best one's.
    """
    fit = [r for r in ranking if r.is_fit and not _is_gone(r)]
    return next((ranked for ranked in fit if ranked.checkpoint), fit[0] if fit else None)


def find_search_winner(record: SweepRecord, ranking: list[RankedTrial]) -> RankedTrial | None:
    """The winner by the search's numbers; where checkpoints are lost, at the best whole one.

    ranking: of all trials, as `rank` gives it. The winner may be another object than its entry.
    """
    if any(trial.lost for trial in record.trials.values()):
        ranking = rank(record, whole_only=True)
    return find_winner(ranking)


def rivals_of(ranking: list[RankedTrial], winner: RankedTrial | None) -> list[RankedTrial]:
    """The other trials that are fit to win, best first; without those whose best step is lost."""
    return [
        ranked
        for ranked in ranking
        if ranked.is_fit
        and ranked.step not in ranked.trial.lost
        and (winner is None or ranked.trial is not winner.trial)
    ]


def _is_gone(ranked: RankedTrial) -> bool:
    return ranked.step in ranked.trial.collected or ranked.step in ranked.trial.lost


def find_default(ranking: list[RankedTrial]) -> RankedTrial | None:
    """Trial 0, the default configuration, if it was suggested."""
    return next((ranked for ranked in ranking if ranked.trial.number == DEFAULT_TRIAL_NUMBER), None)
