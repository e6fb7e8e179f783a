"""What would fail in every trial alike is refused before the first: schedules, number formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest

from easyds_tune.spec.sweep import SweepSpec, set_path
from easyds_tune.spec.training import Schedule
from easyds_tune.sweep.check_training import EXAMPLES, KWARGS, dtype_problems, schedule_problems

Make = Callable[..., SweepSpec]
KIND = "training.lr_scheduler_type"


@pytest.fixture(params=["ppo", "rm"])
def spec(request: pytest.FixtureRequest) -> Make:
    """The smallest sweep of our own loop and of TRL's, on the CPU."""
    reward = {"model_name_or_path": "someone/a-reward"}
    raw: dict[str, Any] = {
        "name": "tiny",
        "algorithm": {"type": request.param},
        "model": {"model_name_or_path": "someone/a-model"},
        "data": {"train": "records"},
        "training": {"max_steps": 30},
        "resources": {"gpus_per_trial": 0},
    }
    if request.param == "ppo":
        raw["algorithm"]["reward"] = reward
        raw["judge"] = {"prompts": "p", "reward": reward}

    def make(space: dict[str, Any] | None = None, /, **fields: Any) -> SweepSpec:
        for path, value in fields.items():
            set_path(raw, path, value)
        return SweepSpec.model_validate({**raw, "search_space": space or {}})

    return make


@pytest.mark.parametrize(
    ("space", "fields", "problem"),
    [
        ({}, {KIND: "cosine_with_min_lr"}, "got cosine_with_min_lr with "),
        ({}, {KIND: "warmup_stable_decay"}, "got warmup_stable_decay with "),
        ({KIND: ["linear", "cosine_with_min_lr"]}, {}, "got cosine_with_min_lr with "),
        (
            {},
            {KIND: "polynomial", "training.learning_rate": 1e-9},
            f"got polynomial with {KWARGS} null and learning_rate 1e-09: ",
        ),
        (
            {"training.learning_rate": {"low": 1e-9, "high": 1e-3, "log": True}},
            {KIND: "polynomial"},
            "and learning_rate 1e-09: ",
        ),
        ({}, {KWARGS: {"foo": 1}}, f"got cosine with {KWARGS} {{'foo': 1}} and "),
        ({}, {KWARGS: {"num_cycles": "two"}}, "got cosine with "),
        ({}, {KIND: "linear", KWARGS: {"num_cycles": 1}}, f"; remove {KWARGS}, or choose another"),
        (
            {"training.training_arguments": [{}, {"lr_scheduler_kwargs": {"foo": 1}}]},
            {KIND: "linear"},
            "{'foo': 1}",
        ),
        ({}, {KIND: "polynomial", KWARGS: {"lr_end": -1}}, ": the rate would be 0.0001, -0."),
        ({}, {KIND: "polynomial", KWARGS: {"power": -1e400}}, "got polynomial"),
        ({"training.warmup_steps": [0, 60]}, {KIND: "inverse_sqrt"}, None),
    ],
)
def test_a_schedule_that_cannot_be_computed_is_refused(
    spec: Make, space: dict[str, Any], fields: dict[str, Any], problem: str | None
) -> None:
    found = schedule_problems(spec(space, **fields), 8)
    if problem is None:
        assert found == []
        return
    [text] = found
    assert text.startswith("training.lr_scheduler_type: must be a schedule that can be computed, ")
    assert problem in text
    assert "\n" not in text


@pytest.mark.parametrize("kind", get_args(Schedule))
def test_the_settings_that_are_named_as_examples_are_taken(spec: Make, kind: str) -> None:
    [text] = schedule_problems(spec(**{KIND: "linear", KWARGS: {"foo": 1}}), 8)
    assert text.endswith(f"; remove {KWARGS}, or choose another schedule")
    example = EXAMPLES.get(kind, "{}").strip("{}").split(": ")
    settings = {example[0]: float(example[1])} if len(example) == 2 else {}
    assert schedule_problems(spec(**{KIND: kind, KWARGS: settings}), 8) == []


def test_a_budget_in_epochs_needs_no_records_to_be_asked(spec: Make) -> None:
    sweep = spec(training={"num_train_epochs": 1, "lr_scheduler_type": "cosine_with_min_lr"})
    assert len(schedule_problems(sweep, 0)) == 1


def test_float16_is_refused_where_no_gpu_is_used(spec: Make) -> None:
    assert dtype_problems(spec(**{"model.dtype": "float16"})) == [
        "model.dtype: must be float32 or bfloat16 where no GPU is used, got float16, which "
        "DeepSpeed does not train on a CPU; set model.dtype: float32"
    ]
    assert dtype_problems(spec(**{"model.dtype": "bfloat16"})) == []
    on_a_gpu = {"model.dtype": "float16", "resources.gpus_per_trial": 1}
    assert dtype_problems(spec(**on_a_gpu)) == []


def test_deepspeed_agrees_with_the_type_that_auto_is_on_a_cpu(spec: Make) -> None:
    assert dtype_problems(spec(deepspeed="zero2")) == []
    [problem] = dtype_problems(spec(deepspeed={"bf16": {"enabled": True}}))
    assert problem.startswith("deepspeed.bf16.enabled: must be auto or agree with model.dtype ")
