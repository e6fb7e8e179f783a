"""How each sampler is told what became of a trial. Read with Optuna 5's own source in hand.

| trial | tpe | gp, nsga2 (never read PRUNED) | cmaes (knows no constraints) |
|---|---|---|---|
| ran to its end, or into a bound | COMPLETE | COMPLETE | COMPLETE; PRUNED if outside |
| pruned, or paused at a rung | PRUNED | COMPLETE, its last value | PRUNED |
| diverged, out of memory | PRUNED, infeasible | COMPLETE, the worst value, infeasible | PRUNED |
| raised (a bug) | FAIL | FAIL | FAIL |
| runs, or was interrupted | RUNNING | RUNNING | RUNNING |

cmaes and nsga2 cannot take back what they were told: to them a paused trial runs until it is over.
A trial that broke a bound has shown all it could: it is infeasible unless it was inside before.
TPE ranks every infeasible trial behind all others by the sum of its positive constraints, whatever
its state and value, and leaves FAIL out: a region that fails must be infeasible to be avoided.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import optuna
from optuna.trial import TrialState as OptunaState

from easyds_tune.decisions.outcome import FAILED_STATES, Outcome
from easyds_tune.journal.events import Objective, TrialState

RAN = "ran"
"""The constraint that a failed trial breaks, with or without bounds."""

_READ_NO_PRUNED = ("gp", "nsga2")
_ENDED = (TrialState.COMPLETED, TrialState.BOUNDED)
_UNFINISHED = (TrialState.RUNNING, TrialState.INTERRUPTED)
_RAN, _DID_NOT_RUN = -1.0, 1.0


@dataclass(frozen=True, slots=True)
class Told:
    """One trial in Optuna's words. `values` is set for COMPLETE alone."""

    state: OptunaState
    values: tuple[float, ...] | None = None
    step_values: dict[int, float] = field(default_factory=dict)
    constraints: dict[str, float] = field(default_factory=dict)


def failed(state: TrialState, outcome: Outcome) -> bool:
    """Whether a configuration turned out impossible to train: to be avoided, not to be ranked."""
    return state in FAILED_STATES or (state in _ENDED and not outcome.values)


def tell(
    sampler: str,
    state: TrialState,
    outcome: Outcome,
    worst: Sequence[float],
    *,
    constrained: bool,
) -> Told:
    """What a sampler is told of a trial.

    worst: stands in for the values of a trial that has none, one for each objective.
    constrained: whether trials carry constraints; GP wants them on all finished trials or none.
    """
    several = len(worst) > 1
    step_values = {} if several else outcome.step_values  # Optuna knows none with several
    if state in _UNFINISHED:
        return Told(OptunaState.RUNNING, step_values=step_values)
    if state == TrialState.FAILED:
        return Told(OptunaState.FAIL)
    did_not_run = failed(state, outcome)
    constraints = {}
    if constrained and sampler != "cmaes":
        constraints = {**outcome.margins, RAN: _DID_NOT_RUN if did_not_run else _RAN}
    if sampler in _READ_NO_PRUNED:
        values = _last_values(state, outcome)
        if did_not_run or not values:
            values = tuple(worst)
        return Told(OptunaState.COMPLETE, values, step_values, constraints)
    if state in _ENDED and not did_not_run and (sampler != "cmaes" or outcome.is_feasible):
        return Told(OptunaState.COMPLETE, outcome.values, step_values, constraints)
    return Told(OptunaState.PRUNED, None, step_values, constraints)


def worst_values(outcomes: Iterable[Outcome], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """The worst value seen of each objective, 0 where there is none."""
    seen = [outcome.values for outcome in outcomes if outcome.values]
    columns = zip(*seen, strict=True) if seen else ([0.0] for _ in objectives)
    return tuple(
        (min if objective.mode == "max" else max)(column)
        for objective, column in zip(objectives, columns, strict=True)
    )


def directions(objectives: Sequence[Objective]) -> list[Literal["minimize", "maximize"]]:
    """Optuna's word for each objective's mode."""
    return ["maximize" if objective.mode == "max" else "minimize" for objective in objectives]


def quiet_optuna() -> None:
    """Let Optuna speak only of what is wrong."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # GP divides by nothing where its model is flat, and goes on without.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="optuna")


def _last_values(state: TrialState, outcome: Outcome) -> tuple[float, ...]:
    if state in _ENDED or len(outcome.values) != 1 or outcome.last_value is None:
        return outcome.values
    return (outcome.last_value,)
