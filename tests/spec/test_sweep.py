"""Names, parameters and budgets; the numbers are worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from easyds_tune.spec.search import FloatParam, IntParam
from easyds_tune.spec.sweep import Budget, SweepSpec, get_path, set_path, trial_spec

Make = Callable[..., SweepSpec]
BATCH = "training.per_device_train_batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"


@pytest.mark.parametrize("name", ["a", "dpo-2", "2026.11_x", "x" * 80])
def test_a_folder_name_is_a_name(spec: Make, name: str) -> None:
    assert spec(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "-a", "a\n", "栈", "x" * 81]
)
def test_what_is_no_folder_name_is_no_name(spec: Make, name: str) -> None:
    with pytest.raises(ValidationError, match="must be 1 to 80 letters"):
        spec(name=name)


@pytest.mark.parametrize("folder", ["", "~/x", "a\0b"])
def test_an_output_folder_is_a_path_written_out(spec: Make, folder: str) -> None:
    with pytest.raises(ValidationError):
        spec(**{"output.folder": folder})


def test_the_objective_follows_the_algorithm(raw: dict[str, Any]) -> None:
    assert SweepSpec.model_validate(raw).objective.metric == "eval/accuracy"
    raw["algorithm"] = {"type": "sft"}
    assert SweepSpec.model_validate(raw).objective.metric == "eval/reward"


def test_whole_bounds_take_the_kind_of_their_field(spec: Make) -> None:
    bounds = {"low": 1, "high": 2}
    space = spec({"training.weight_decay": bounds, "model.lora_r": bounds}).search_space
    assert isinstance(space["training.weight_decay"], FloatParam)
    assert isinstance(space["model.lora_r"], IntParam)


def test_trial_zero_is_the_spec_itself(spec: Make) -> None:
    sweep = spec({"model.lora_r": [4, None], "training.learning_rate": {"low": 1e-5, "high": 1}})
    assert sweep.default_params() == {"model.lora_r": 16, "training.learning_rate": 1e-4}


def test_parameters_replace_fields_and_nothing_else(spec: Make) -> None:
    sweep = spec()
    changed = sweep.with_params({"model.lora_r": None, "training.learning_rate": 0.5})
    assert (changed.model.lora_r, changed.training.learning_rate) == (None, 0.5)
    assert changed.with_params({"model.lora_r": 16, "training.learning_rate": 1e-4}) == sweep
    with pytest.raises(ValidationError):
        sweep.with_params({"model.lora_r": 0})


def test_a_budget_in_steps_is_taken_as_written(spec: Make) -> None:
    assert spec().budget() == Budget(max_steps=30, eval_steps=10)


def test_a_budget_in_epochs_counts_the_records_up_to_a_whole_step(spec: Make) -> None:
    training = {"num_train_epochs": 1.5, "per_device_train_batch_size": 8,
                "gradient_accumulation_steps": 2}  # fmt: skip
    sweep = spec(training=training)
    # 1.5 × 100 / (8 × 2) = 9.4 steps; a fifth of 10 is 2.
    assert sweep.budget(100) == Budget(max_steps=10, eval_steps=2)
    assert sweep.budget(1) == Budget(max_steps=1, eval_steps=1)
    with pytest.raises(ValueError, match="needs the number of training records"):
        sweep.budget()


@pytest.mark.parametrize(("steps", "every"), [(30, 6), (31, 7), (4, 1), (0, 1)])
def test_a_fifth_of_the_budget_is_the_default_between_evaluations(
    spec: Make, steps: int, every: int
) -> None:
    assert spec(training={"max_steps": steps}).budget() == Budget(max_steps=steps, eval_steps=every)


@pytest.mark.parametrize(
    ("batch", "accumulation", "budget"),
    [
        # 30 steps of 8 are 240 examples, evaluated every 80.
        (8, 1, Budget(max_steps=30, eval_steps=10)),
        (16, 1, Budget(max_steps=15, eval_steps=5)),
        (8, 2, Budget(max_steps=15, eval_steps=5)),
        (2, 1, Budget(max_steps=120, eval_steps=40)),
        (24, 4, Budget(max_steps=2, eval_steps=1)),  # 2.5 and 0.8 steps
        (1024, 1, Budget(max_steps=1, eval_steps=1)),
    ],
)
def test_a_searched_batch_keeps_the_number_of_examples(
    spec: Make, batch: int, accumulation: int, budget: Budget
) -> None:
    sweep = spec({BATCH: [2, 8], ACCUMULATION: [1, 2]})
    assert sweep.searches_batch
    assert sweep.time_attr == "examples"
    trial = trial_spec(sweep, "t", {BATCH: batch, ACCUMULATION: accumulation})
    assert trial.budget == budget


def test_a_fixed_batch_counts_in_steps(spec: Make) -> None:
    sweep = spec({"model.lora_r": [4, 8]}, **{BATCH: 32})
    assert not sweep.searches_batch
    assert sweep.time_attr == "global_step"
    trial = trial_spec(sweep, "007", {"model.lora_r": 4})
    assert trial.budget == Budget(max_steps=30, eval_steps=10)
    assert (trial.trial_id, trial.params, trial.model.lora_r) == ("007", {"model.lora_r": 4}, 4)


def test_no_steps_stay_no_steps_at_any_batch(spec: Make) -> None:
    sweep = spec({BATCH: [2, 8]}, **{"training.max_steps": 0, "training.eval_steps": 1})
    assert trial_spec(sweep, "t", {BATCH: 2}).budget.max_steps == 0


def test_paths_read_and_write_nested_mappings() -> None:
    tree: dict[str, Any] = {"a": {"b": 1}}
    set_path(tree, "a.c", 2)
    set_path(tree, "d.e.f", 3)
    assert tree == {"a": {"b": 1, "c": 2}, "d": {"e": {"f": 3}}}
    assert get_path(tree, "d.e.f") == 3
    for path in ("a.b.x", "a.x"):
        with pytest.raises(KeyError):
            get_path(tree, path)
    with pytest.raises(KeyError):
        set_path(tree, "a.b.x", 1)


def test_a_set_value_is_a_copy() -> None:
    modules = ["q_proj"]
    tree: dict[str, Any] = {}
    set_path(tree, "m", modules)
    modules.append("v_proj")
    assert tree == {"m": ["q_proj"]}


@pytest.mark.parametrize(
    ("written", "size"),
    [(20_000, 20_000), ("20GB", 20 * 10**9), ("500MiB", 500 * 2**20), ("1.5 kB", 1500),
     ("3TiB", 3 * 2**40), ("7b", 7), (None, None)],
)  # fmt: skip
def test_a_disk_limit_is_bytes_or_text_with_a_unit(spec: Make, written: Any, size: Any) -> None:
    made = spec(**{"output.disk_limit": written})
    assert made.output.disk_limit == size
    assert SweepSpec.model_validate(made.model_dump()).output.disk_limit == size


@pytest.mark.parametrize("written", ["20", "GB", "20 apples", "-1GB", "1e9", True, 0, -5, "0.1B",
                                     "9" * 400 + "GB", "99999999999PB", 1.5, ""])  # fmt: skip
def test_what_is_no_size_is_no_disk_limit(spec: Make, written: Any) -> None:
    with pytest.raises(ValidationError, match=r"output\.disk_limit"):
        spec(**{"output.disk_limit": written})


@pytest.mark.parametrize("written", [0, -1, True, 2**31, "ten"])
def test_at_least_one_checkpoint_is_kept(spec: Make, written: Any) -> None:
    with pytest.raises(ValidationError, match=r"output\.keep"):
        spec(**{"output.keep": written})
