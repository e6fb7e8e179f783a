"""The rungs of a sweep: where its scheduler compares trials."""

from __future__ import annotations

import math
from collections.abc import Sequence

from easyds_tune.spec.resources import slot_count
from easyds_tune.spec.sweep import Budget, SweepSpec

FEW_SLOTS = 4
"""Up to so many slots, `auto` waits for all trials of a rung: the first arrivals prove little."""


def scheduler_type(spec: SweepSpec, slots: int | None = None) -> str:
    """The scheduler with `auto` decided; slots: this machine's by default."""
    if spec.scheduler.type != "auto":
        return spec.scheduler.type
    if len(spec.objectives) > 1:  # which no rung can rank
        return "none"
    slots = slot_count(spec.resources) if slots is None else slots
    return "halving" if slots <= FEW_SLOTS else "asha"


def rungs(
    spec: SweepSpec, train_records: int | None = None, slots: int | None = None
) -> Sequence[int]:
    """Rungs in `spec.time_attr`, below the budget; a trial is compared at its first evaluation at
    or after one.

    With a grace period: grace, grace × η, grace × η², …. Without: as many as the trials allow
    (η trials have to reach the last one), from budget / η downwards, each at an evaluation.
    `median` looks at every evaluation from the grace period on. Empty without a scheduler.
    """
    kind = scheduler_type(spec, slots)
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
    return [step * unit for step in _by_trials(budget, spec.search.num_trials, factor)]


def _from_grace(budget: Budget, grace: int, factor: float) -> list[float]:
    found, rung = [], float(grace)
    while rung < budget.max_steps:
        found.append(rung)
        rung *= factor
    return found


def _by_trials(budget: Budget, num_trials: int, factor: float) -> list[int]:
    found, trials, divisor = set(), float(num_trials), factor
    while trials >= factor:
        # Without the tolerance a third of 99 steps, in floats, may need the evaluation after it.
        evaluations = math.ceil(budget.max_steps / divisor / budget.eval_steps - 1e-9)
        found.add(max(1, evaluations) * budget.eval_steps)
        trials /= factor
        divisor *= factor
    return sorted(step for step in found if step < budget.max_steps)
