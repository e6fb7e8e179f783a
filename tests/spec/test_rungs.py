from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from easyds_tune.spec.rungs import rungs
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({}, [10]),  # the first evaluation; 10 × 3 is the end itself
        ({"grace_period": 3}, [3, 9, 27]),
        ({"grace_period": 5, "reduction_factor": 2}, [5, 10, 20]),
        ({"grace_period": 4, "reduction_factor": 2.5}, [4, 10, 25]),
        ({"grace_period": 30}, []),
        ({"type": "none", "grace_period": 3}, []),
    ],
)
def test_rungs_grow_by_the_factor_and_stay_below_the_budget(
    spec: Make, scheduler: dict[str, Any], expected: list[int]
) -> None:
    assert rungs(spec(scheduler=scheduler)) == expected


def test_rungs_are_in_examples_where_the_batch_is_searched(spec: Make) -> None:
    space = {"training.per_device_train_batch_size": [4, 8]}
    # 5, 10 and 20 steps of the default batch of 8 × 2.
    sweep = spec(
        space,
        scheduler={"grace_period": 5, "reduction_factor": 2},
        **{"training.gradient_accumulation_steps": 2},
    )
    assert rungs(sweep) == [80, 160, 320]


def test_rungs_of_a_budget_in_epochs_need_the_records(spec: Make) -> None:
    # 800 / 8 = 100 steps, evaluated every 20: rungs at 20 and 60.
    assert rungs(spec(training={"num_train_epochs": 1}), 800) == [20, 60]
