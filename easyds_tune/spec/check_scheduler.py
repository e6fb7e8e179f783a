"""Checks of the scheduler: rungs within the budget, each with trials enough to compare."""

from __future__ import annotations

import math

from easyds_tune.spec.rungs import scheduler_type
from easyds_tune.spec.sweep import Budget, SweepSpec


def scheduler_problems(spec: SweepSpec, budget: Budget) -> list[str]:
    """What is wrong with the scheduler of a sweep of this budget."""
    grace = spec.scheduler.grace_period
    if grace is None or scheduler_type(spec) == "none":
        return []
    if grace > budget.max_steps:
        return [
            f"scheduler.grace_period: must be within max_steps, got {grace} > {budget.max_steps}; "
            "lower it"
        ]
    if scheduler_type(spec) == "median":
        return []
    return _crowding_problems(spec, budget, grace)


def _crowding_problems(spec: SweepSpec, budget: Budget, grace: int) -> list[str]:
    """At a rung with fewer trials than the factor, not one whole trial would go on."""
    factor, num_trials = spec.scheduler.reduction_factor, spec.search.num_trials
    rung, rungs = float(grace), 0
    while rung < budget.max_steps:
        rungs += 1
        rung *= factor
    if rungs == 0 or num_trials / factor ** (rungs - 1) >= factor:
        return []
    fits = 0
    while num_trials / factor**fits >= factor:
        fits += 1
    last = grace * factor ** (rungs - 1)
    remedies = [f"set num_trials: {math.ceil(factor**rungs)}"] if factor**rungs < 1e6 else []
    later = math.ceil(budget.max_steps / factor**fits)
    if fits and later < budget.max_steps:
        remedies.append(f"grace_period: {later}")
    remedies.append("grace_period: null, which lays the rungs by the number of trials")
    return [
        f"scheduler.grace_period: every rung must have at least reduction_factor trials, and of "
        f"{num_trials} only {num_trials / factor ** (rungs - 1):.3g} come to the one at step "
        f"{last:g}, fewer than {factor:g}; {', or '.join(remedies)}"
    ]
