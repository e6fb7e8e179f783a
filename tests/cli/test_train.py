"""`train` refuses what is wrong before it trains, and says why a trial failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.cli.main import main

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


def test_a_failing_trial_ends_in_one_line_and_keeps_its_traceback(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The schedule needs an argument that is not given; Transformers says so once the trial runs.
    options = ["training.max_steps=1", "training.eval_steps=1", "judge.num_prompts=2",
               "training.lr_scheduler_type=cosine_with_min_lr"]  # fmt: skip
    argv = [word for option in options for word in ("--set", option)]
    assert main(["train", "dpo", *argv, "--to", "alone"]) == 1
    *_, line = capsys.readouterr().err.strip().splitlines()
    failure = json.loads((workspace / "alone" / "failure.json").read_text(encoding="utf-8"))
    assert line == (
        f"error: {failure['type']}: {failure['message']}; the traceback is in alone/failure.json"
    )
    assert failure["traceback"].startswith("Traceback (most recent call last)")
