"""Every refusal reads as: path, rule, value, remedy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from easyds_tune.spec.messages import did_you_mean, shown, validation_problems
from easyds_tune.spec.sweep import SweepSpec, set_path


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("seed", -1, "seed: must be at least 0, got -1"),
        ("seed", None, "seed: must be a whole number, got null"),
        ("name", 7, "name: must be text, got 7; put it in quotes"),
        ("name", None, "name: must be text, got null"),
        ("training", [], "training: must be a mapping of settings, got []"),
        ("model.model_name_or_path", "", "model.model_name_or_path: must not be empty, got ''"),
        ("model.use_rslora", "maybe", "model.use_rslora: must be true or false, got 'maybe'"),
        ("model.dtype", "float23",
         "model.dtype: must be auto, float32, bfloat16 or float16, got 'float23'; "
         "did you mean float32?"),
        ("deepspeed", 3, "deepspeed: must be text or a mapping, got 3"),
        ("model.lora_target_modules", 3,
         "model.lora_target_modules: must be text or a list, got 3"),
        ("model.lora_target_modules", ["q", 3],
         "model.lora_target_modules.1: must be text, got 3; put it in quotes"),
        ("algorithm.type", "dpoo",
         "algorithm.type: must be sft, rm, dpo or ppo, got 'dpoo'; did you mean dpo?"),
        ("algorithm", {}, "algorithm.type: is required and missing"),
        ("algorithm.vf_coef", 0.1, "algorithm.vf_coef: unknown key; the value head has its own "
         "optimizer now: set value_learning_rate, or remove it"),
        ("training.lora_r", 3, "training.lora_r: unknown key; did you mean model.lora_r?"),
        ("search.trials", 3, "search.trials: unknown key; did you mean num_trials?"),
        ("search.x", 3, "search.x: unknown key; known here: num_trials, sampler, startup_trials, "
         "points, points_from, num_points_from"),
        ("search_space", {"a.b": {"low": 1, "hihg": 2, "high": 3}},
         "search_space.a.b.hihg: unknown key; did you mean high?"),
        ("data.train", [], "data.train: must hold at least 1 value, got []"),
        ("data.train", ["a", {"path": "b", "limit": 0}],
         "data.train.1.limit: must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_refusal_names_path_rule_and_value(
    raw: dict[str, Any], path: str, value: Any, line: str
) -> None:
    set_path(raw, path, value)
    with pytest.raises(ValidationError) as caught:
        SweepSpec.model_validate(raw)
    assert validation_problems(caught.value, raw) == [line]


def test_a_near_miss_is_named_and_a_wild_guess_is_not() -> None:
    assert did_you_mean("betta", ["alpha", "beta"]) == "; did you mean beta?"
    assert did_you_mean("ppo", ["sft", "rm", "dpo"]) == ""


def test_values_are_cut_and_never_fail_to_print() -> None:
    assert shown("x" * 200) == f"'{'x' * 96}..."
    assert shown(10**5000) == "a number of thousands of digits"
    assert [shown(None), shown(True), shown("a")] == ["null", "true", "'a'"]
