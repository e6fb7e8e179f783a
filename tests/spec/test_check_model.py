"""What `plan` reads in a local model's config.json, without loading a library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.spec.check_model import ModelConfig, model_config_problems, read_model_config
from easyds_tune.spec.load import validate


def model(folder: Path, **config: Any) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def problems(policy: str, reward: str, algorithm: dict[str, Any], space: Any = None) -> list[str]:
    """Of a spec with this policy and reward; its data are not read."""
    scored = {"model_name_or_path": reward}
    if algorithm["type"] == "ppo":
        algorithm = {**algorithm, "reward": scored}
    raw = {
        "name": "sweep",
        "algorithm": algorithm,
        "model": {"model_name_or_path": policy},
        "data": {"train": "someone/records"},
        "judge": {"prompts": "someone/prompts", "reward": scored},
        "training": {"max_steps": 10, "eval_steps": 5},
        "search_space": space or {},
    }
    return model_config_problems(validate(raw))


@pytest.fixture
def policy(tmp_path: Path) -> str:
    return model(tmp_path / "policy", architectures=["GPT2LMHeadModel"], n_positions=128)


@pytest.fixture
def reward(tmp_path: Path) -> str:
    names = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    return model(tmp_path / "reward", max_position_embeddings=64, **names)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["A"], "max_position_embeddings": 9}, ModelConfig("A", 9, 2)),
        ({"text_config": {"max_position_embeddings": 7}}, ModelConfig("", 7, 2)),
        ({"architectures": None, "num_labels": 1}, ModelConfig("", None, 1)),
        ([], None),
    ],
)
def test_a_configuration_is_read_as_far_as_it_goes(
    tmp_path: Path, config: Any, expected: ModelConfig | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_model_config(str(tmp_path)) == expected


def test_an_adapter_has_the_configuration_of_its_base(tmp_path: Path, policy: str) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": policy}))
    assert read_model_config(str(adapter)) == ModelConfig("GPT2LMHeadModel", 128, 2)


def test_a_sound_spec_has_no_problems(policy: str, reward: str) -> None:
    assert problems(policy, reward, {"type": "sft", "max_length": 128}) == []


def test_lengths_beyond_the_context_are_refused_written_or_searched(
    policy: str, reward: str
) -> None:
    assert problems(policy, reward, {"type": "dpo"}) == [
        "algorithm.max_length: must be within the model's 128 positions, got 1024, the default; "
        "set algorithm.max_length: 128, or fewer"
    ]
    searched = {"algorithm.max_length": [64, 256]}
    assert [
        p[-40:] for p in problems(policy, reward, {"type": "sft", "max_length": 64}, searched)
    ] == ["got 256; set algorithm.max_length: 128, or fewer"[-40:]]
    assert problems(policy, reward, {"type": "ppo", "response_length": 128}) == [
        "algorithm.response_length: must leave room for a prompt in the model's 128 positions, got "
        "128; lower it"
    ]


def test_a_reward_model_in_the_policy_s_place_is_refused_and_the_other_way_round(
    policy: str, reward: str
) -> None:
    assert problems(reward, policy, {"type": "sft", "max_length": 32}) == [
        f"model.model_name_or_path: {reward}: must be a language model, and it is a "
        "LlamaForSequenceClassification, which writes nothing; a reward model goes under reward",
        f"judge.reward.model_name_or_path: {policy}: a reward model must be a sequence classifier "
        "with one output, got GPT2LMHeadModel with 2; train one with the rm algorithm",
    ]
