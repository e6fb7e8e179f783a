"""Contradictions between fields that are fine by themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.spec.check import is_local_path, spec_problems, sweep_problems
from easyds_tune.spec.check_metrics import NEEDS_HELD_OUT
from easyds_tune.spec.check_search import searchable_paths
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]
JUDGE = {"prompts": "p", "reward": {"model_name_or_path": "someone/a-reward"}}


def test_the_smallest_spec_has_no_problem(spec: Make) -> None:
    assert spec_problems(spec()) == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"judge": JUDGE}, "judge: a reward model writes no replies"),
        ({"objective": {"metric": "eval/reward"}}, "objective.metric: rm does not report eval/rew"),
        ({"objective": {"metric": "x"}}, "rm does not report x; it reports eval/accuracy, eval/lo"),
        ({"algorithm": {"type": "sft"}}, "judge: is required and missing, because the objective"),
        (
            {"training.eval_steps": 31},
            "training.eval_steps: must be at most max_steps, got 31 > 30",
        ),
        (
            {"scheduler.grace_period": 31},
            "scheduler.grace_period: must be within max_steps, got 31",
        ),
        ({"training.training_arguments": {"report_to": "wandb"}}, "cannot be passed through"),
        ({"training.training_arguments": {"optm": "sgd"}}, "unknown argument; did you mean optim?"),
        ({"deepspeed": {"train_batch_size": 9}}, "got 9 != 8; set train_batch_size: 8 or auto"),
        ({"deepspeed": "zero9"}, "deepspeed: must be one of zero0"),
        (
            {"deepspeed": {"bf16": {"enabled": True}}, "model.dtype": "float32"},
            "deepspeed.bf16.enabled: must be auto or agree with model.dtype float32, got true",
        ),
        ({"model.model_name_or_path": "~nobody/x"}, "and '~nobody/x' does not exist"),
        ({"data.train": ["a", "b.jsonl"]}, "data.train: no such file: 'b.jsonl'"),
        ({"data.eval": "./b"}, "data.eval: no such file: './b'"),
    ],
)
def test_a_contradiction_is_named(spec: Make, fields: dict[str, Any], problem: str) -> None:
    [found] = spec_problems(spec(**fields))
    assert problem in found


@pytest.mark.parametrize("metric", ["train/loss", "train/grad_norm", "train/anything"])
def test_what_training_measures_compares_no_trials(spec: Make, metric: str) -> None:
    assert spec_problems(spec(objective={"metric": metric, "mode": "min"})) == [
        f"objective.metric: {metric} cannot compare trials, whose batch, schedule and loss may "
        "differ; use one of eval/accuracy, eval/loss, eval/margin"
    ]


def test_a_held_out_loss_needs_held_out_records(spec: Make) -> None:
    loss = {"algorithm": {"type": "sft"}, "objective": {"metric": "eval/loss"}}
    assert spec_problems(spec(**loss)) == []
    assert spec_problems(spec(**loss, **{"data.eval_fraction": 0})) == [NEEDS_HELD_OUT]
    assert spec_problems(spec(**loss, **{"data.eval": "others"})) == []


@pytest.mark.parametrize(
    ("param", "crosses"),
    [
        ([0, 0.1, 0.2], False),
        ([0, 5, 10], False),
        ([0.1, 10], True),
        (["0.1", 10], True),
        ({"low": 0, "high": 1}, False),
        ({"low": 0, "high": 10}, True),
        ({"low": 0, "high": 10, "step": 2}, False),
        ({"low": 0.5, "high": 10.5, "step": 2}, True),
        ({"low": 0, "high": 10, "type": "int"}, False),
    ],
)
def test_a_searched_warm_up_is_shares_or_steps(spec: Make, param: Any, crosses: bool) -> None:
    found = spec_problems(spec({"training.warmup_steps": param}))
    assert [problem.split(":")[0] for problem in found] == [
        "search_space.training.warmup_steps"
    ] * crosses


def test_trials_without_a_search_space_would_all_be_the_same(spec: Make) -> None:
    assert sweep_problems(spec(**{"search.num_trials": 1})) == []
    assert sweep_problems(spec(**{"search.num_trials": 3})) == [
        "search_space: is empty, so 3 trials would all be the same; "
        "give search_space, or set search.num_trials: 1"
    ]


@pytest.mark.parametrize(
    ("ranks", "there_are"),
    [([4, 16], 4), ([4, 8], 5)],
    ids=["default-listed", "default-besides"],
)
def test_a_space_of_choices_holds_so_many_trials(
    spec: Make, ranks: list[int], there_are: int
) -> None:
    space = {"model.lora_r": ranks, "model.use_rslora": [False, True]}
    assert sweep_problems(spec(space, **{"search.num_trials": there_are})) == []
    [found] = sweep_problems(spec(space, **{"search.num_trials": there_are + 1}))
    assert found.startswith(f"search.num_trials: must be at most {there_are}, as many as")
    wide = {**space, "training.learning_rate": {"low": 1e-5, "high": 1e-3}}
    assert sweep_problems(spec(wide, **{"search.num_trials": 99})) == []


@pytest.mark.parametrize(
    ("path", "param", "problem"),
    [
        ("training.learning_rat", [1], "did you mean training.learning_rate?"),
        (
            "algorithm.beta",
            [1],
            "is no field of the spec; what can be searched there: algorithm.max_",
        ),
        ("model", [1], "names a section; name one of its fields"),
        ("nothing", [1], "is no field of the spec"),
        ("training.max_steps", [1], "cannot be searched: the budget is the scheduler's to cut"),
        ("judge.seed", [1], "cannot be searched; what can be is under algorithm, model, training"),
        ("model.lora_r", [4, 0], "the value 0 is refused: model.lora_r: must be at least 1, got 0"),
        ("model.lora_dropout", {"low": 0.5, "high": 1}, "must be less than 1, got 1.0"),
        ("model.lora_r", {"type": "float", "low": 1, "high": 2}, "the value 1.381966 is refused"),
    ],
)
def test_a_search_path_or_end_point_that_the_spec_refuses_is_named(
    spec: Make, path: str, param: Any, problem: str
) -> None:
    [found] = spec_problems(spec({path: param}))
    assert found.startswith(f"search_space.{path}: ")
    assert problem in found


def test_a_searched_batch_needs_an_automatic_one_in_deepspeed(spec: Make) -> None:
    sweep = spec(
        {"training.per_device_train_batch_size": [4, 8]},
        deepspeed={"train_batch_size": 8, "train_micro_batch_size_per_gpu": "auto"},
    )
    assert spec_problems(sweep) == [
        "deepspeed.train_batch_size: must be auto where the batch is searched"
    ]


def test_what_can_be_searched_depends_on_the_algorithm(spec: Make) -> None:
    paths = searchable_paths(spec())
    assert "algorithm.center_rewards_coefficient" in paths
    assert not {"algorithm.type", "algorithm.beta", "training.max_steps"} & set(paths)


@pytest.mark.parametrize(
    ("name", "local"),
    [("gpt2", False), ("org/model", False), ("./m", True), ("/m", True), ("~/m", True),
     ("a/b/c", True), ("here", True), ("x" * 300, False), ("a\0b", False)],
)  # fmt: skip
def test_a_hub_name_has_one_slash_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, local: bool
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_local_path(name) is local
