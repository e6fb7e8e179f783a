"""What the finals decided: which checkpoint is best, what it is worth, and how sure that is.

The journal holds what was measured on every finals prompt. Prompts of even index pick the winner,
together with what the search had measured on its own; those of odd index report its value and its
differences: were they the same, the number would be that of a maximum. A bound is kept where the
unfavourable end of the metric's interval, over all prompts, lies inside; metrics that the finals do
not measure count as the search reported them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import FinalistEvent
from easyds_tune.journal.replay import Report, SweepRecord, TrialRecord
from easyds_tune.results.bootstrap import Estimate, Sample, difference, estimate
from easyds_tune.results.ranking import (
    DEFAULT_TRIAL_NUMBER,
    find_search_winner,
    rank,
    stderr_name,
)

PICKING, REPORTING = 0, 1
"""Offset of the prompts of each half."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """A checkpoint as the finals measured it.

    picked: its objective on the picking half. reported: the objective on the reporting half.
    metrics: every measured metric, over all prompts.
    violation: how far the unfavourable ends lie outside of the bounds, in widths; 0 inside.
    search, search_stderr: what the search had reported, None where it had not.
    trainings: the objective on the reporting half of each training of this configuration, its own
    first; more than one where the finals trained it again on new seeds.
    score: what finalists are compared by: the search's number and `picked`, pooled by precision,
    as a mean over these trainings.
    """

    trial: TrialRecord
    step: int
    checkpoint: str
    picked: float
    reported: Estimate
    metrics: dict[str, Estimate]
    violation: float
    search: float | None
    search_stderr: float | None
    trainings: tuple[float, ...]
    score: float

    @property
    def is_feasible(self) -> bool:
        """Whether every bound is kept, noise included."""
        return self.violation == 0


@dataclass(frozen=True, slots=True)
class Settled:
    """The finals' result. finalists: best first, feasible ones before the others.

    over_default, over_runner_up: the winner's paired difference on the reporting half, and whether
    it may be chance (the interval holds 0). The runner-up is the best of another configuration.
    """

    finalists: list[Finalist]
    winner: Finalist | None
    default: Finalist | None
    runner_up: Finalist | None
    over_default: Estimate | None
    over_runner_up: Estimate | None

    @property
    def rivals(self) -> list[Finalist]:
        """The feasible finalists besides the winner, best first."""
        return [f for f in self.finalists if f.is_feasible and f is not self.winner]

    @property
    def nearest_miss(self) -> Finalist | None:
        """Where nothing is feasible, the finalist that misses the bounds least."""
        return self.finalists[0] if self.winner is None else None


def settle(record: SweepRecord) -> Settled | None:
    """Decide the finals; None where no finalist was judged on the objective.

    One whose checkpoint is deleted is none: there is nothing to hand over. One whose checkpoint is
    lost stays what others are compared and pooled with, so their order does not change, but it
    wins nothing. A pure function of the record: the intervals come from fixed random numbers.
    """
    metric = record.objective.metric
    latest = judged_finalists(record)
    events = list(latest.values())
    if not events:
        return None
    sign = -1.0 if record.objective.mode == "max" else 1.0
    weight = _weight_of_search(record, events)
    finalists = [_finalist(record, event, events, weight) for event in events]
    finalists.sort(
        key=lambda finalist: (
            finalist.violation,
            sign * finalist.score,
            sign * finalist.picked,
            finalist.trial.number,
            finalist.step,
        )
    )
    # Of the default's checkpoints, the one that the default itself would hand over.
    default = next((f for f in finalists if f.trial.number == DEFAULT_TRIAL_NUMBER), None)
    finalists = [finalist for finalist in finalists if finalist.step in finalist.trial.checkpoints]
    if not finalists:
        return None
    winner = finalists[0] if finalists[0].is_feasible else None
    runner_up = next(
        (
            finalist
            for finalist in finalists
            if winner and finalist.is_feasible and finalist.trial.params != winner.trial.params
        ),
        None,
    )

    def over(other: Finalist | None) -> Estimate | None:
        if winner is None or other is None or other is winner:
            return None
        samples = [
            _sample(latest[finalist.trial.id, finalist.step], metric).part(REPORTING)
            for finalist in (winner, other)
        ]
        if len(samples[0].values) != len(samples[1].values):
            return None
        return difference(*samples)

    return Settled(finalists, winner, default, runner_up, over(default), over(runner_up))


def judged_finalists(record: SweepRecord) -> dict[tuple[str, int], FinalistEvent]:
    """The newest measurement of each (trial, step) that was judged on the objective and whose
    checkpoint was not deleted."""
    latest = {
        (event.trial, event.step): event
        for event in record.finalists
        if event.step in record.trials[event.trial].checkpoints
        or event.step in record.trials[event.trial].lost
    }
    metric = record.objective.metric
    return {key: event for key, event in latest.items() if len(event.values.get(metric, ())) >= 4}


def measured_metrics(event: FinalistEvent) -> dict[str, Estimate]:
    """Every metric of a finalist, over all prompts."""
    return {
        name: estimate(_sample(event, name))
        for name, values in event.values.items()
        if len(values) >= 2
    }


def measured_violation(
    record: SweepRecord, event: FinalistEvent, metrics: Mapping[str, Estimate]
) -> float:
    """How far the unfavourable ends lie outside of the bounds, in widths; 0 inside.

    metrics: those that the finals measured; others count as the search reported them.
    """
    trial = record.trials[event.trial]
    return sum(
        max(
            0.0,
            _excess(metrics[bound.metric], bound)
            if bound.metric in metrics
            else _search_excess(trial, event.step, bound),
        )
        for bound in record.bounds
    )


@dataclass(frozen=True, slots=True)
class Best:
    """The checkpoint that a sweep hands over; `finalist` is None where no finals were held.

    `checkpoint` is relative to the sweep's folder, None for a trial that wrote none.
    """

    trial: TrialRecord
    step: int
    checkpoint: str | None
    report: Report
    finalist: Finalist | None = None


def find_best(record: SweepRecord) -> Best | None:
    """The finals' winner, or the search's where no finals were held; None where nothing is fit."""
    settled = settle(record)
    if settled is None:
        ranked = find_search_winner(record, rank(record))
        if ranked is None or ranked.report is None:
            return None
        return Best(ranked.trial, ranked.report.step, ranked.checkpoint, ranked.report)
    winner = settled.winner
    if winner is None:
        return None
    report = next(r for r in winner.trial.reports if r.step == winner.step)
    return Best(winner.trial, winner.step, winner.checkpoint, report, winner)


def broken_bounds(finalist: Finalist, bounds: tuple[Bound, ...]) -> list[tuple[Bound, str]]:
    """The bounds that a finalist does not keep, and the end or value that breaks each, in words."""
    found = []
    for bound in bounds:
        measured = finalist.metrics.get(bound.metric)
        if measured is None:
            if _search_excess(finalist.trial, finalist.step, bound) > 0:
                found.append((bound, "as the search reported it"))
        elif (excess := _excess(measured, bound)) > 0:
            is_low = bound.excess({bound.metric: measured.low}) >= excess
            end = measured.low if is_low else measured.high
            found.append(
                (bound, f"its 95 % interval reaches {'down' if is_low else 'up'} to {end:.4g}")
            )
    return found


def _weight_of_search(record: SweepRecord, events: list[FinalistEvent]) -> float:
    """What the search's number counts for beside the picking half's 1: the ratio of variances.

    One weight for all finalists, the median; 0 where one of them has no standard error.
    """
    metric = record.objective.metric
    ratios = []
    for event in events:
        reported = _reported(record.trials[event.trial], event.step)
        stderr = _finite(reported.get(stderr_name(metric)))
        if not stderr or _finite(reported.get(metric)) is None:
            return 0.0
        half = estimate(_sample(event, metric).part(PICKING))
        ratios.append(((half.high - half.low) / (2 * 1.96 * stderr)) ** 2)
    return median(ratios)


def _finalist(
    record: SweepRecord, event: FinalistEvent, events: list[FinalistEvent], weight: float
) -> Finalist:
    metric = record.objective.metric
    trial = record.trials[event.trial]
    metrics = measured_metrics(event)
    alike = [event] + [
        other
        for other in events
        if other is not event
        and other.step == event.step
        and record.trials[other.trial].params == trial.params
    ]
    halves = [[_sample(e, metric).part(half).value for e in alike] for half in (PICKING, REPORTING)]
    pooled = [
        (picked + weight * _reported(record.trials[other.trial], other.step)[metric]) / (1 + weight)
        if weight
        else picked
        for other, picked in zip(alike, halves[PICKING], strict=True)
    ]
    reported = _reported(trial, event.step)
    return Finalist(
        trial=trial,
        step=event.step,
        checkpoint=event.checkpoint,
        picked=halves[PICKING][0],
        reported=estimate(_sample(event, metric).part(REPORTING)),
        metrics=metrics,
        violation=measured_violation(record, event, metrics),
        search=_finite(reported.get(metric)),
        search_stderr=_finite(reported.get(stderr_name(metric))),
        trainings=tuple(halves[REPORTING]),
        score=math.fsum(pooled) / len(pooled),
    )


def _sample(event: FinalistEvent, metric: str) -> Sample:
    return Sample(metric, event.values[metric], event.weights.get(metric))


def _excess(measured: Estimate, bound: Bound) -> float:
    """By how much the unfavourable end of an interval breaks a bound, in widths."""
    return max(bound.excess({bound.metric: end}) for end in (measured.low, measured.high))


def _search_excess(trial: TrialRecord, step: int, bound: Bound) -> float:
    return bound.excess(_reported(trial, step))


def _reported(trial: TrialRecord, step: int) -> Mapping[str, float]:
    """What the trial reported at a step, nothing where it did not."""
    return next((report.metrics for report in trial.reports if report.step == step), {})


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
