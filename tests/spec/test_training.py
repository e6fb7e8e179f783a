from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from easyds_tune.spec.training import TrainingSpec


@pytest.mark.parametrize("budget", [{}, {"max_steps": 3, "num_train_epochs": 1}])
def test_a_budget_is_given_once(budget: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must have max_steps or num_train_epochs"):
        TrainingSpec.model_validate(budget)


def test_the_effective_batch_is_micro_batch_times_accumulation() -> None:
    spec = TrainingSpec(max_steps=1, per_device_train_batch_size=6, gradient_accumulation_steps=4)
    assert spec.effective_batch == 24


@pytest.mark.parametrize(
    "field",
    [
        {"max_steps": -1},
        {"max_steps": 2**31},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"adam_beta1": 1},
        {"warmup_steps": -0.1},
        {"lr_scheduler_type": "step"},
        {"per_device_train_batch_size": 0},
        {"eval_steps": 0},
    ],
)
def test_a_value_that_cannot_train_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainingSpec.model_validate({"max_steps": 1, **field})
