"""What a trial has shown so far, as a sampler should see it: no NaN, bounds beside the value.

The sampler learns from the report that one would deploy: the best one inside all bounds, else the
one that misses them least. So does a trial that broke a bound in the end count with what it was
before. Checkpoints do not matter here, since learning curves are what is learnt. A trial that
failed counts with its last report instead, finite or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from easyds_tune.journal.bounds import Bound, margins
from easyds_tune.journal.events import Objective, TrialState
from easyds_tune.journal.replay import Report, TrialRecord
from easyds_tune.results.ranking import finite_metric

FAILED_STATES = frozenset({TrialState.DIVERGED, TrialState.OUT_OF_MEMORY})
"""What a trial ends in whose configuration cannot be trained; FAILED is a bug, and says nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One trial in numbers that are all finite.

    `values` has one for each objective, or none where no report has them all. `step_values` is the
    first objective by step; reports outside the bounds are left out once one lies inside.
    `margins` has a key for every limit of every bound: positive is outside.
    """

    values: tuple[float, ...] = ()
    step: int = 0
    step_values: dict[int, float] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)

    @property
    def is_feasible(self) -> bool:
        """Whether it has values, inside all bounds."""
        return bool(self.values) and self.violation == 0

    @property
    def violation(self) -> float:
        """The sum of the positive margins."""
        return sum(margin for margin in self.margins.values() if margin > 0)

    @property
    def last_value(self) -> float | None:
        """The newest of `step_values`: a pruned trial's score at its rung."""
        return self.step_values[max(self.step_values)] if self.step_values else None


NOT_YET = -1.0
"""The margin of a bound that does not apply to a trial yet."""


@dataclass(frozen=True, slots=True)
class _Scored:
    step: int
    values: tuple[float, ...]
    margins: dict[str, float]
    violation: float


def trial_outcome(
    trial: TrialRecord, objectives: Sequence[Objective], bounds: Sequence[Bound]
) -> Outcome:
    """What a trial has shown so far; with several objectives, by its last report.

    A bound that applies only from a later step is told as kept: nobody knows yet.
    """
    later = [bound for bound in bounds if bound.from_step > trial.step]
    unknown = {key: NOT_YET for bound in later for key in bound.margins({})}
    bounds = [bound for bound in bounds if bound.from_step <= trial.step]
    scored = [found for report in trial.reports if (found := _score(report, objectives, bounds))]
    if not scored or trial.state in FAILED_STATES:
        last = trial.reports[-1].metrics if trial.reports else {}
        return Outcome(
            values=scored[-1].values if scored else (),
            step=trial.step,
            step_values={one.step: one.values[0] for one in scored},
            margins=margins(bounds, last) | unknown,
        )
    inside = [one for one in scored if one.violation == 0]
    if len(objectives) > 1:
        chosen = (inside or scored)[-1]
    else:
        sign = -1.0 if objectives[0].mode == "max" else 1.0
        chosen = min(scored, key=lambda one: (one.violation, sign * one.values[0]))
    return Outcome(
        values=chosen.values,
        step=chosen.step,
        step_values={one.step: one.values[0] for one in inside or scored},
        margins=chosen.margins | unknown,
    )


def _score(
    report: Report, objectives: Sequence[Objective], bounds: Sequence[Bound]
) -> _Scored | None:
    values = [finite_metric(report, objective.metric) for objective in objectives]
    if None in values:
        return None
    found = margins(bounds, report.metrics) if bounds else {}
    violation = sum(margin for margin in found.values() if margin > 0)
    return _Scored(report.step, tuple(value for value in values if value is not None), found,
                   violation)  # fmt: skip
