"""The rungs of a sweep: where its scheduler compares trials."""

from __future__ import annotations

import math
from collections.abc import Sequence

from easyds_tune.spec.sweep import Budget, SweepSpec


def scheduler_type(spec: SweepSpec) -> str:
    """The scheduler with `auto` decided: asha, but none for several objectives."""
    if spec.scheduler.type != "auto":
        return spec.scheduler.type
    return "asha" if len(spec.objectives) == 1 else "none"


def rungs(spec: SweepSpec, train_records: int | None = None) -> Sequence[int]:
    """Rungs in `spec.time_attr`, below the budget; a trial is compared at its first evaluation at
    or after one.

    With a grace period: grace, grace × η, grace × η², …. Without: one, at the evaluation that a
    share 1 / η of the budget needs. Earlier ones cost more than they save where a judge's noise is
    as large as the differences of trials that have hardly begun (results/README.md, decisions).
    `median` looks at every evaluation from the grace period on. Empty without a scheduler.
    """
    kind = scheduler_type(spec)
    if kind == "none":
        return []
    budget, grace = spec.budget(train_records), spec.scheduler.grace_period
    unit = spec.examples_per_step if spec.searches_batch else 1
    factor = spec.scheduler.reduction_factor
    if kind == "median":
        every = budget.eval_steps
        start = math.ceil((grace or 1) / every) * every
        return range(start * unit, budget.max_steps * unit, every * unit)
    if grace is not None:
        return [round(step * unit) for step in _from_grace(budget, grace, factor)]
    return [step * unit for step in _by_budget(budget, spec.search.num_trials, factor)]


def _from_grace(budget: Budget, grace: int, factor: float) -> list[float]:
    found, rung = [], float(grace)
    while rung < budget.max_steps:
        found.append(rung)
        rung *= factor
    return found


def _by_budget(budget: Budget, num_trials: int, factor: float) -> list[int]:
    """One rung, or none where a share 1 / η of the trials is less than one."""
    if num_trials < factor:
        return []
    # Without the tolerance a third of 99 steps, in floats, may need the evaluation after it.
    evaluations = math.ceil(budget.max_steps / factor / budget.eval_steps - 1e-9)
    step = max(1, evaluations) * budget.eval_steps
    return [step] if step < budget.max_steps else []
