from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from easyds_tune.errors import ModelError
from easyds_tune.rewards.check import ADAPTER_WEIGHTS, check_reward_model
from easyds_tune.rewards.reward_model import RewardModel
from easyds_tune.spec.judge import RewardModelRewardSpec
from tests.models.small_models import qwen, saved
from tests.rewards.adapters import reward_adapter

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


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """The folder of a sound reward adapter; its base stands beside it."""
    reward_adapter(qwen(tmp_path / "base"), tmp_path / "adapter")
    return tmp_path / "adapter"


def rewrite_weights(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Replace tensors of an adapter by name; None takes one out."""
    weights = load_file(folder / ADAPTER_WEIGHTS) | change
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(kept, folder / ADAPTER_WEIGHTS)


def refused_alike(folder: Path) -> str:
    """The one problem of a folder, which is also what loading it says."""
    (problem,) = check_reward_model(spec(folder))
    with pytest.raises(ModelError) as raised:
        RewardModel(spec(folder), torch.device("cpu"))
    assert raised.value.problems[0] == problem
    return problem


def test_an_adapter_with_a_scalar_head_is_a_reward_model(adapter: Path) -> None:
    assert check_reward_model(spec(adapter)) == []


def test_an_adapter_without_its_head_is_refused(adapter: Path) -> None:
    rewrite_weights(adapter, {"base_model.model.score.weight": None})
    problem = refused_alike(adapter)
    assert "must hold its head, and score.weight is missing (it would be random)" in problem


def test_an_adapter_with_several_outputs_is_refused(adapter: Path) -> None:
    rewrite_weights(adapter, {"base_model.model.score.weight": torch.zeros(3, 32)})
    assert "must have exactly one output, got 3; give" in refused_alike(adapter)


def test_an_adapter_whose_base_is_gone_is_refused(adapter: Path) -> None:
    (adapter.parent / "base").rename(adapter.parent / "moved")
    problem = refused_alike(adapter)
    assert f"the adapter's base {adapter.parent / 'base'} does not load" in problem
    assert "or export the reward model with --merge" in problem


def test_an_adapter_without_weights_is_refused(adapter: Path) -> None:
    (adapter / ADAPTER_WEIGHTS).unlink()
    assert f"has no weights, no {ADAPTER_WEIGHTS}; export" in refused_alike(adapter)


def test_an_adapter_file_that_is_cut_off_is_refused(adapter: Path) -> None:
    whole = (adapter / ADAPTER_WEIGHTS).read_bytes()
    (adapter / ADAPTER_WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: is not whole"):
        check_reward_model(spec(adapter))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_an_adapter_configuration_that_is_none_is_refused(adapter: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match="is not a valid adapter configuration"):
        check_reward_model(spec(adapter))


def test_a_whole_model_without_its_head_is_refused(tmp_path: Path) -> None:
    folder = qwen(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["Qwen2ForSequenceClassification"], "num_labels": 1}
    config |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    (problem,) = check_reward_model(spec(folder))
    assert "weights must hold its head, and there is none; train it" in problem


# ---- what a model's files and tokenizer say ----------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The folder of a sound reward model of 259 tokens."""
    folder = qwen(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    return saved(model, tmp_path / "whole")


def test_a_head_of_another_size_than_the_configuration_says_is_refused(whole: Path) -> None:
    weights = load_file(whole / "model.safetensors") | {"score.weight": torch.zeros(3, 32)}
    save_file(weights, whole / "model.safetensors", {"format": "pt"})
    (problem,) = check_reward_model(spec(whole))
    assert "must hold weights of the shapes in its config.json, score.weight of [1, 32]" in problem


def test_a_tokenizer_with_a_token_that_has_no_embedding_is_refused(whole: Path) -> None:
    assert check_reward_model(spec(whole)) == []
    tokenizer = AutoTokenizer.from_pretrained(whole)
    tokenizer.add_special_tokens({"pad_token": "[PADDING]"})
    tokenizer.save_pretrained(whole)
    (problem,) = check_reward_model(spec(whole))
    assert "there are 259, got the tokenizer's pad_token '[PADDING]' with id 2" in problem


def test_a_quantised_reward_model_is_refused(whole: Path) -> None:
    config = json.loads((whole / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq"}
    (whole / "config.json").write_text(json.dumps(config))
    (problem,) = check_reward_model(spec(whole))
    assert f"got {whole}, quantised by awq; name the model that it was made from" in problem


def test_an_adapter_of_another_size_than_its_base_is_refused(adapter: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    rewrite_weights(adapter, {name: torch.zeros(4, 31)})
    (problem,) = check_reward_model(spec(adapter))
    assert f"{name} of [4, 32], got [4, 31]; correct base_model_name_or_path" in problem
