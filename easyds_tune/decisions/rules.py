"""What a spec says about decisions, in the terms that decisions are made in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import Objective
from easyds_tune.spec.rungs import rungs, scheduler_type
from easyds_tune.spec.stop import StopSpec
from easyds_tune.spec.sweep import SweepSpec


@dataclass(frozen=True)
class Rules:
    """Everything that decisions depend on besides the events.

    rungs: in `spec.time_attr`, rising. slots: trials that run at a time; gpus: of a slot.
    top and seeds: configurations that the finals train again, and how often each.
    """

    objective: Objective
    bounds: tuple[Bound, ...]
    scheduler: str
    rungs: Sequence[int]
    reduction_factor: float
    num_trials: int
    slots: int
    gpus: float
    stop: StopSpec
    seed: int
    top: int
    seeds: int


def bounds_of(spec: SweepSpec) -> tuple[Bound, ...]:
    """The bounds of a spec, as the journal holds them."""
    return tuple(
        Bound(metric, bound.min, bound.max, bound.from_step, bound.patience, bound.hard)
        for metric, bounds in spec.bounds.items()
        for bound in bounds
    )


def objectives_of(spec: SweepSpec) -> tuple[Objective, ...]:
    """All objectives of a spec, as the journal holds them."""
    return tuple(Objective(objective.metric, objective.mode) for objective in spec.objectives)


def rules_of(
    spec: SweepSpec, slots: int, gpus: float = 0.0, train_records: int | None = None
) -> Rules:
    """The rules of a sweep on `slots` slots.

    train_records: records that trials train on; needed where the budget is in epochs.
    """
    return Rules(
        objective=objectives_of(spec)[0],
        bounds=bounds_of(spec),
        scheduler=scheduler_type(spec),
        rungs=tuple(rungs(spec, train_records)),
        reduction_factor=spec.scheduler.reduction_factor,
        num_trials=spec.search.num_trials,
        slots=slots,
        gpus=gpus,
        stop=spec.stop,
        seed=spec.seed,
        top=spec.finals.top if spec.finals else 0,
        seeds=spec.finals.seeds if spec.finals else 0,
    )
