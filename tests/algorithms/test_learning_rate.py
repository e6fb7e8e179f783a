"""A schedule spans the whole budget; the rule heeds the KL within its limits."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from easyds_tune.algorithms.learning_rate import adjusted_scale, schedule
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.training import Schedule, TrainingSpec


def rates(max_steps: int, updates: int, **settings: Any) -> list[float]:
    """The rate of each update of a trial, at a peak of 1."""
    settings = {"learning_rate": 1.0, "lr_scheduler_type": "linear"} | settings
    rate = schedule(TrainingSpec(max_steps=max_steps, **settings), max_steps, updates)
    return [rate(update) for update in range(max_steps * updates)]


def test_a_schedule_spans_all_updates_of_the_budget() -> None:
    # 2 steps of 4 updates: 8/8, 7/8, … 1/8.
    assert rates(2, 4) == pytest.approx([(8 - n) / 8 for n in range(8)])


def test_the_peak_is_the_specs_learning_rate() -> None:
    assert rates(2, 1, learning_rate=3e-4, lr_scheduler_type="constant") == [3e-4, 3e-4]


def test_a_warm_up_in_steps_rises_with_each_update_and_wastes_none() -> None:
    # 1 step of 4 updates to the peak, then 4 updates down from it.
    found = rates(2, 4, warmup_steps=1)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_a_warm_up_below_one_is_a_share_of_the_budget() -> None:
    assert rates(4, 2, warmup_steps=0.5) == rates(4, 2, warmup_steps=2)


@pytest.mark.parametrize("kind", get_args(Schedule))
@pytest.mark.parametrize("warmup", [0, 1, 0.3])
def test_no_schedule_makes_an_update_for_nothing(kind: str, warmup: float) -> None:
    extra: dict[str, Any] = {
        "cosine_with_min_lr": {"min_lr": 0.1},
        "warmup_stable_decay": {"num_decay_steps": 4},
    }
    arguments = {"lr_scheduler_kwargs": extra[kind]} if kind in extra else {}
    found = rates(4, 3, lr_scheduler_type=kind, warmup_steps=warmup, training_arguments=arguments)
    assert len(found) == 12
    assert all(0 < rate <= 1 for rate in found)


def test_a_budget_of_no_steps_has_a_schedule() -> None:
    assert schedule(TrainingSpec(max_steps=0, learning_rate=1.0), 0, 4)(0) == 1.0


def ppo(**settings: Any) -> PPOSpec:
    defaults = {"kl_target": 0.1, "lr_adjust_factor": 1.5, "lr_adjust_band": 2.0}
    return PPOSpec(type="ppo", reward={"model_name_or_path": "x"}, **defaults | settings)


@pytest.mark.parametrize(
    ("kl", "wanted"),
    [
        (0.21, 2 / 3),  # over 0.1 × 2
        (0.20, 1.0),
        (0.10, 1.0),
        (0.05, 1.0),
        (0.049, 1.5),  # under 0.1 / 2
        (0.0, 1.5),
    ],
)
def test_the_rate_falls_well_over_the_target_and_rises_well_under(kl: float, wanted: float) -> None:
    assert adjusted_scale(1.0, kl, ppo()) == pytest.approx(wanted)


@pytest.mark.parametrize(("kl", "end"), [(9.0, 1 / 4), (0.0, 4.0)])
def test_the_rate_stays_within_its_limit_of_the_schedule(kl: float, end: float) -> None:
    scale = 1.0
    for _ in range(9):
        scale = adjusted_scale(scale, kl, ppo(lr_adjust_limit=4.0))
        assert 1 / 4 <= scale <= 4
    assert scale == end


def test_down_and_up_again_ends_where_it_began() -> None:
    down = adjusted_scale(1.0, 9.0, ppo())
    assert adjusted_scale(down, 0.0, ppo()) == pytest.approx(1.0)


@pytest.mark.parametrize("kl", [0.0, 9.0])
def test_a_factor_of_1_is_off(kl: float) -> None:
    assert adjusted_scale(1.0, kl, ppo(lr_adjust_factor=1.0)) == 1.0
