from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from easyds_tune.spec.rungs import rungs, scheduler_type
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
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


@pytest.mark.parametrize(
    ("num_trials", "factor", "expected"),
    [
        (2, 3, []),  # no third of two trials
        (3, 3, [40]),  # 100 / 3, at the next evaluation
        (81, 3, [40]),
        (16, 2, [50]),
        (16, 8, [20]),
        (16, 100, []),
    ],
)
def test_without_a_grace_period_there_is_one_rung_at_a_share_of_the_budget(
    spec: Make, num_trials: int, factor: float, expected: list[int]
) -> None:
    fields = {"search.num_trials": num_trials, "scheduler.reduction_factor": factor}
    assert rungs(spec(training={"max_steps": 100, "eval_steps": 10}, **fields)) == expected


def test_a_rung_is_never_at_the_end_nor_between_evaluations(spec: Make) -> None:
    assert rungs(spec(training={"max_steps": 30, "eval_steps": 15})) == [15]
    assert rungs(spec(training={"max_steps": 30, "eval_steps": 30})) == []
    assert rungs(spec(training={"max_steps": 0})) == []


def test_the_median_is_asked_at_every_evaluation_from_the_grace_period_on(spec: Make) -> None:
    training = {"max_steps": 30, "eval_steps": 5}
    assert list(rungs(spec(training=training, scheduler={"type": "median"}))) == [5, 10, 15, 20, 25]
    late = {"type": "median", "grace_period": 12}
    assert list(rungs(spec(training=training, scheduler=late))) == [15, 20, 25]


def test_auto_is_asha_but_nothing_for_several_objectives(spec: Make) -> None:
    assert scheduler_type(spec()) == "asha"
    assert scheduler_type(spec(**{"scheduler.type": "median"})) == "median"
    both = [{"metric": "eval/accuracy"}, {"metric": "time/train_seconds"}]
    assert scheduler_type(spec(**{"objective": both, "scheduler.type": "auto"})) == "none"


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
    # 800 / 8 = 100 steps, evaluated every 20: a rung after 100 / 3.
    assert rungs(spec(training={"num_train_epochs": 1}), 800) == [40]
