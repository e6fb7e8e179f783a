from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from easyds_tune.spec.check import budget_problems, spec_problems
from easyds_tune.spec.rungs import rungs
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]


@pytest.mark.parametrize(
    ("scheduler", "trials", "remedy"),
    [
        # 3, 9 and 27 are below 30 steps: 16, 5.3 and 1.8 trials come there.
        ({"grace_period": 3}, 16, "16 only 1.78 come to the one at step 27, fewer than 3; set "
         "num_trials: 27, or grace_period: 4, or grace_period: null"),
        ({"grace_period": 10}, 2, "2 only 2 come to the one at step 10, fewer than 3; set "
         "num_trials: 3, or grace_period: null"),
        ({"grace_period": 1, "reduction_factor": 2, "type": "asha_stop"}, 16,
         "16 only 1 come to the one at step 16, fewer than 2; set num_trials: 32, or "
         "grace_period: 2, or"),
    ],
)  # fmt: skip
def test_a_rung_with_fewer_trials_than_the_factor_is_refused_with_what_fits(
    spec: Make, scheduler: dict[str, Any], trials: int, remedy: str
) -> None:
    [found] = spec_problems(spec(scheduler=scheduler, search={"num_trials": trials}))
    assert found.startswith("scheduler.grace_period: every rung must have at least")
    assert remedy in found


@pytest.mark.parametrize(
    ("scheduler", "trials"),
    [({"grace_period": 3}, 27), ({"grace_period": 4}, 9), ({"grace_period": 4}, 16),
     ({"grace_period": 2, "reduction_factor": 2}, 16), ({"grace_period": 3, "type": "median"}, 3),
     ({"grace_period": 3, "type": "none"}, 3), ({}, 2), ({}, 1)],
)  # fmt: skip
def test_what_is_proposed_is_sound(spec: Make, scheduler: dict[str, Any], trials: int) -> None:
    assert spec_problems(spec(scheduler=scheduler, search={"num_trials": trials})) == []


def test_a_grace_period_lies_within_the_budget(spec: Make) -> None:
    [found] = spec_problems(spec(scheduler={"grace_period": 31, "type": "median"}))
    assert found == "scheduler.grace_period: must be within max_steps, got 31 > 30; lower it"
    epochs = spec(training={"num_train_epochs": 1}, scheduler={"grace_period": 31})
    assert spec_problems(epochs) == []
    [found] = budget_problems(epochs, 160)
    assert found.startswith("scheduler.grace_period: must be within max_steps, got 31 > 20")


@pytest.mark.parametrize("trials", [1, 2, 3, 8, 27, 100])
@pytest.mark.parametrize("factor", [2, 2.5, 3, 7])
def test_rungs_laid_by_the_trials_never_starve(spec: Make, trials: int, factor: float) -> None:
    fields = {"search.num_trials": trials, "scheduler.reduction_factor": factor}
    laid = rungs(spec(training={"max_steps": 1000, "eval_steps": 1}, **fields))
    assert all(trials / factor**position >= factor for position in range(len(laid)))
