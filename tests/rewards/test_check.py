from __future__ import annotations

import json
from pathlib import Path

import pytest

from easyds_tune.errors import ModelError
from easyds_tune.rewards.check import check_reward_model
from easyds_tune.spec.judge import RewardModelRewardSpec

BUNDLED = Path(__file__).parents[2] / "data" / "models"


def spec(folder: object) -> RewardModelRewardSpec:
    return RewardModelRewardSpec(model_name_or_path=str(folder))


def test_the_bundled_reward_model_is_one() -> None:
    assert check_reward_model(spec(BUNDLED / "tiny-reward")) == []


def test_a_model_that_writes_is_no_reward_model() -> None:
    (problem,) = check_reward_model(spec(BUNDLED / "tiny-tutor"))
    assert "must be a sequence classifier with one output, got Qwen2ForCausalLM" in problem


def test_an_adapter_of_another_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"task_type": "CAUSAL_LM"}))
    (problem,) = check_reward_model(spec(tmp_path))
    assert "must be of task type SEQ_CLS, got CAUSAL_LM" in problem


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(BUNDLED))
    assert check_reward_model(spec("~/tiny-reward")) == []


def test_a_folder_that_looks_like_a_hub_name_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(name: str) -> None:
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr("easyds_tune.rewards.check.AutoConfig.from_pretrained", offline)
    with pytest.raises(
        ModelError, match=r"results/mine: .* no such folder here, and as a hub name"
    ):
        check_reward_model(spec("results/mine"))
