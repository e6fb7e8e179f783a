"""`train` refuses what is wrong before it trains, and says why a trial failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.cli.main import main
from tests.rewards.adapters import reward_adapter

ROOT = Path(__file__).parents[2]
TUTOR = ROOT / "data" / "models" / "tiny-tutor"
PPO = str(ROOT / "sweeps" / "ppo.yaml")
Refusal = Callable[..., list[str]]


def test_wrong_parameters_are_refused_together(refused: Refusal) -> None:
    assert refused(
        "train",
        "dpo",
        "--params",
        "algorithm.betta=3",
        "training.learning_rate=-1",
        "model.dtype=x",
    ) == [
        "--params model.dtype=x: model.dtype is no parameter of a trial; use --set model.dtype=x",
        "algorithm.betta: is no field of the spec; did you mean algorithm.beta?",
        "training.learning_rate: the value -1 is refused: "
        "training.learning_rate: must be greater than 0, got -1",
    ]


def test_a_parameter_without_a_value_is_refused(refused: Refusal) -> None:
    assert refused("train", "dpo", "--params", "seed") == [
        "--params seed: must look like algorithm.beta=0.2"
    ]


def test_an_occupied_folder_is_refused(refused: Refusal) -> None:
    assert refused("train", "dpo", "--to", "data") == [
        "--to: data exists already; name a new folder"
    ]


@pytest.mark.timeout(180)
def test_a_parameter_and_a_setting_of_one_value_give_the_same_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full fine-tuning changes the base, so the reward must not stand on it, however it is said."""
    reward = reward_adapter(TUTOR, tmp_path / "reward").model_name_or_path
    settings = [
        f"algorithm.reward.model_name_or_path={reward}",
        f"judge.reward.model_name_or_path={reward}",
        "judge.num_prompts=4",
        "training.max_steps=2",
        "training.eval_steps=1",
        "training.learning_rate=0.01",
        "algorithm.rollout_batch_size=4",
        "training.per_device_train_batch_size=4",
        "algorithm.response_length=8",
        "search_space={model.lora_r: [4, null]}",
    ]
    said = []
    for name, last in (("a", ["--params", "model.lora_r=null"]), ("b", [])):
        more = [] if last else ["model.lora_r=null"]
        overrides = [part for text in settings + more for part in ("--set", text)]
        code = main(["train", PPO, "--to", str(tmp_path / name), *overrides, *last])
        lines = capsys.readouterr().out.splitlines()
        said.append([line for line in lines if line.startswith("step ")])
        assert code == 0
    assert len(said[0]) == 2
    assert said[0] == said[1]


def test_the_budget_is_no_parameter_and_the_remedy_is_named(refused: Refusal) -> None:
    assert refused("train", "dpo", "--params", "training.max_steps=3") == [
        "--params training.max_steps=3: training.max_steps is no parameter of a trial; "
        "use --set training.max_steps=3"
    ]


def test_what_the_parameters_make_of_the_spec_is_checked_against_model_and_data(
    refused: Refusal,
) -> None:
    assert refused(
        "train", "dpo", "--params", "algorithm.max_length=8", "model.lora_target_modules=[x_proj]"
    ) == [
        "model.lora_target_modules: the model has no module 'x_proj'; it has down_proj, gate_proj, "
        "k_proj, lm_head, o_proj, q_proj, up_proj, v_proj",
        "algorithm.max_length: 8 tokens leave no training record; raise it",
    ]


def test_an_optimizer_that_does_not_exist_is_rejected_before_the_trial(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = "training.training_arguments.optim=adamv"
    assert main(["train", "dpo", "--set", option, "--to", "alone"]) == 2
    assert "adamv is not a valid OptimizerNames" in capsys.readouterr().err
    assert not (workspace / "alone").exists()


def test_a_failing_trial_ends_in_one_line_and_keeps_its_traceback(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Its loss is not finite after the first update.
    options = ["training.max_steps=2", "training.eval_steps=2", "judge.num_prompts=2",
               "training.learning_rate=1e30", "training.lr_scheduler_type=constant"]  # fmt: skip
    argv = [word for option in options for word in ("--set", option)]
    assert main(["train", "dpo", *argv, "--to", "alone"]) == 1
    *_, line = capsys.readouterr().err.strip().splitlines()
    failure = json.loads((workspace / "alone" / "failure.json").read_text(encoding="utf-8"))
    assert line == (
        f"error: {failure['type']}: {failure['message']}; the traceback is in alone/failure.json"
    )
    assert failure["traceback"].startswith("Traceback (most recent call last)")
