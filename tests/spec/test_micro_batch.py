"""Less memory a forward pass, and the same trial otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from easyds_tune.spec.micro_batch import smaller_micro_batch
from easyds_tune.spec.sweep import TrialSpec, trial_spec
from tests.algorithms.small_ppo import ppo_spec


def trial(micro_batch: int, accumulation: int, **changes: Any) -> TrialSpec:
    size = micro_batch * accumulation
    spec = ppo_spec(
        training={
            "per_device_train_batch_size": micro_batch,
            "gradient_accumulation_steps": accumulation,
        },
        algorithm={"rollout_batch_size": 2 * size, "rollout_forward_batch_size": 60},
        **changes,
    )
    return trial_spec(spec, "000", {})


@pytest.mark.parametrize(
    ("micro_batch", "sizes"),
    [
        (8, [4, 2, 1, None]), (1, [None]), (6, [3, 1, None]), (9, [3, 1, None]),
        (15, [5, 1, None]), (7, [1, None]), (12, [6, 3, 1, None]),
    ],
)  # fmt: skip
def test_the_micro_batch_shrinks_by_divisors_and_the_effective_batch_stays(
    micro_batch: int, sizes: list[int | None]
) -> None:
    start = trial(micro_batch, 3)
    assert smaller_micro_batch(start, 0) == start
    for times, size in enumerate(sizes, start=1):
        spec = smaller_micro_batch(start, times)
        if size is None:
            assert spec is None
            continue
        assert spec is not None
        assert spec.training.per_device_train_batch_size == size
        assert spec.training.effective_batch == 3 * micro_batch
        assert spec.examples_per_step == start.examples_per_step
        assert spec.budget == start.budget


def test_what_is_drawn_and_judged_at_a_time_shrinks_too() -> None:
    spec = smaller_micro_batch(trial(8, 1, judge={"batch_size": 3}), 2)
    assert spec is not None
    assert spec.algorithm.rollout_forward_batch_size == 15
    assert spec.judge is not None
    assert spec.judge.batch_size == 1


def test_batch_sizes_that_deepspeed_was_told_follow() -> None:
    config = {
        "zero_optimization": {"stage": 1}, "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 1,
    }  # fmt: skip
    spec = smaller_micro_batch(trial(8, 1, deepspeed=config), 1)
    assert spec is not None
    assert isinstance(spec.deepspeed, dict)
    assert spec.deepspeed["train_micro_batch_size_per_gpu"] == "auto"
    assert spec.deepspeed["gradient_accumulation_steps"] == "auto"
    assert spec.deepspeed["train_batch_size"] == 8
    assert smaller_micro_batch(trial(8, 1, deepspeed="zero2"), 1).deepspeed == "zero2"
