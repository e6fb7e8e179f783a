"""Adapters go on a base and come off again, and carry what no file of the base holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from easyds_tune.errors import ModelError
from easyds_tune.models.load import ModelKind, load_model, load_skeleton, load_with_fresh
from easyds_tune.models.lora import (
    give_back,
    lora_config,
    target_problems,
    trainable_parameters,
)
from easyds_tune.spec.model import ModelSpec
from tests.models.small_models import bert, deberta, qwen

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 77, 130, 9, 200, 2]])


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen(tmp_path_factory.mktemp("qwen"))


def spec(folder: Path, **changes: object) -> ModelSpec:
    return ModelSpec(model_name_or_path=str(folder), **changes)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def trained(model: PeftModel) -> PeftModel:
    """The model with every trainable weight moved."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1
    return model


def snapshot(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_spec_names_peft_s_settings(qwen_folder: Path) -> None:
    config = lora_config(
        spec(qwen_folder, lora_r=3, lora_alpha=5, lora_dropout=0.2, use_rslora=True,
             lora_target_modules=["q_proj"]),
        "reward", ("pooler.dense",),
    )  # fmt: skip
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5, 0.2)
    assert config.use_rslora
    assert config.target_modules == {"q_proj"}
    assert config.task_type == "SEQ_CLS"
    assert config.modules_to_save == ["pooler.dense"]
    assert lora_config(spec(qwen_folder), "causal").modules_to_save is None


@pytest.mark.parametrize("kind", ["causal", "reward"])
def test_a_base_given_back_is_the_base_it_was(qwen_folder: Path, kind: ModelKind) -> None:
    base, fresh = load_with_fresh(spec(qwen_folder), kind, CPU)
    before, wanted = snapshot(base), logits(base)
    names = [(name, type(module)) for name, module in base.named_modules()]

    model = trained(get_peft_model(base, lora_config(spec(qwen_folder), kind, fresh)))
    model.train()
    assert not torch.equal(logits(model), wanted)
    give_back(model)

    assert [(name, type(module)) for name, module in base.named_modules()] == names
    assert torch.equal(logits(base), wanted)
    assert snapshot(base).keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert not base.training
    assert all(weight.requires_grad for weight in base.parameters())


@pytest.mark.parametrize("make", [deberta, bert])
def test_an_encoder_given_back_has_its_fresh_modules_again(tmp_path: Path, make: object) -> None:
    base = spec(make(tmp_path))  # type: ignore[operator]
    model, fresh = load_with_fresh(base, "reward", CPU)
    before, wanted = snapshot(model), logits(model)
    give_back(trained(get_peft_model(model, lora_config(base, "reward", fresh))))
    assert torch.equal(logits(model), wanted)
    assert snapshot(model).keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("make", [qwen, deberta, bert])
def test_a_reward_adapter_holds_all_it_needs_on_a_base_with_other_fresh_weights(
    tmp_path: Path, make: object
) -> None:
    base = spec(make(tmp_path / "base"))  # type: ignore[operator]
    plain, fresh = load_with_fresh(base, "reward", CPU)
    model = trained(get_peft_model(plain, lora_config(base, "reward", fresh))).eval()
    wanted = logits(model)
    model.save_pretrained(tmp_path / "adapter")

    other = load_model(base, "reward", CPU)
    with torch.no_grad():
        for name in fresh:
            for weight in other.get_submodule(name).parameters():
                weight.normal_()
    loaded = PeftModel.from_pretrained(other, tmp_path / "adapter").eval()
    assert torch.equal(logits(loaded), wanted)


def test_full_fine_tuning_is_given_back_trainable(qwen_folder: Path) -> None:
    model = load_model(spec(qwen_folder), "causal", CPU).train()
    give_back(model)
    assert not model.training


def test_targets_that_the_model_lacks_are_named(qwen_folder: Path) -> None:
    wrong = spec(qwen_folder, lora_target_modules=["q_proj", "query", "w2"])
    problems = target_problems(load_skeleton(wrong, "causal"), wrong)
    assert [problem.partition(";")[0] for problem in problems] == [
        "model.lora_target_modules: the model has no module 'query'",
        "model.lora_target_modules: the model has no module 'w2'",
    ]
    assert "q_proj" in problems[0]
    for right in ("all-linear", ["q_proj", "mlp.up_proj"]):
        known = spec(qwen_folder, lora_target_modules=right)
        assert target_problems(load_skeleton(known, "causal"), known) == []


def test_trainable_parameters_are_counted(qwen_folder: Path) -> None:
    """Rank 2 on q_proj, 32 to 32, of two layers: 2 x 2 x (32 + 32); the head has 32."""
    one = spec(qwen_folder, lora_r=2, lora_target_modules=["q_proj"])
    assert trainable_parameters(one, "causal", load_skeleton(one, "causal")) == 256
    assert trainable_parameters(one, "reward", load_skeleton(one, "reward")) == 256 + 32
    whole = spec(qwen_folder, lora_r=None)
    skeleton = load_skeleton(whole, "causal")
    every = sum(weight.numel() for weight in skeleton.parameters())
    assert trainable_parameters(whole, "causal", skeleton) == every


def test_an_adapter_that_cannot_be_placed_is_refused(qwen_folder: Path) -> None:
    wrong = spec(qwen_folder, lora_target_modules=["input_layernorm"])
    with pytest.raises(ModelError, match=r"model\.lora_target_modules"):
        trainable_parameters(wrong, "causal", load_skeleton(wrong, "causal"))
