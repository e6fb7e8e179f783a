"""The rungs of a sweep: where its scheduler compares trials."""

from __future__ import annotations

from easyds_tune.spec.sweep import SweepSpec


def rungs(spec: SweepSpec, train_records: int | None = None) -> list[int]:
    """Rungs in `spec.time_attr`: grace, grace × η, grace × η², … below the budget.

    A trial is compared at its first evaluation at or after a rung. Empty without a scheduler.
    """
    if spec.scheduler.type == "none":
        return []
    budget = spec.budget(train_records)
    unit = spec.examples_per_step if spec.searches_batch else 1
    rung = float(spec.scheduler.grace_period or budget.eval_steps)
    found: list[int] = []
    while rung < budget.max_steps:
        found.append(round(rung * unit))
        rung *= spec.scheduler.reduction_factor
    return found
