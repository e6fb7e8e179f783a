"""A policy's model is checked from its configuration, tokenizer and file headers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from easyds_tune.errors import SpecError
from easyds_tune.sweep.preflight import preflight
from tests.integration.starting import ALGORITHMS, TUTOR, start_spec


def problems(kind: str, **changes: Any) -> list[str]:
    """What a preflight finds; nothing where it passes."""
    try:
        preflight(start_spec(kind, **changes), new_folder=False, is_sweep=False)
    except SpecError as error:
        return error.problems
    return []


def small_base(folder: Path, *, tied: bool = False, pad: str | None = None) -> Path:
    """A random decoder of 2,048 tokens with the tutor's tokenizer."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=2048, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        pad_token_id=0, eos_token_id=2, tie_word_embeddings=tied,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(TUTOR)
    if pad is not None:
        tokenizer.add_special_tokens({"pad_token": pad})
    tokenizer.save_pretrained(folder)
    return folder


# ---- attention --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_attention_whose_package_is_missing_is_refused(kind: str) -> None:
    [problem] = problems(kind, model={"attn_implementation": "flash_attention_2"})
    assert problem.startswith("model.attn_implementation: must be installed here, got flash_")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("flash_atention_2", "must be eager, "),
        ("paged|sdpa", "must be eager, "),
        ("kernels-community/flash-attn", "must be eager, "),
        ("flex_attention", "must be sdpa or eager where no GPU is used"),
    ],
)
def test_attention_that_cannot_train_here_is_refused(name: str, why: str) -> None:
    [problem] = problems("sft", model={"attn_implementation": name})
    assert problem.startswith(f"model.attn_implementation: {why}")


@pytest.mark.parametrize("name", ["eager", "sdpa", None])
def test_the_usual_attention_is_taken(name: str | None) -> None:
    assert problems("sft", model={"attn_implementation": name}) == []


# ---- tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_pad_token_without_an_embedding_is_refused(kind: str, tmp_path: Path) -> None:
    base = small_base(tmp_path, pad="[PADDING]")
    [problem] = problems(kind, base=base)
    assert "there are 2048, got the tokenizer's pad_token '[PADDING]' with id 204" in problem
    assert problem.endswith("or set another pad_token in tokenizer_config.json")


def test_an_added_token_matters_where_the_data_has_it(tmp_path: Path) -> None:
    base = small_base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<mark>"])
    tokenizer.save_pretrained(base)
    assert problems("sft", base=base) == []
    turns = [{"role": "user", "content": "one <mark> two"}, {"role": "assistant", "content": "3"}]
    file = tmp_path / "rows.jsonl"
    file.write_text(2 * (json.dumps({"messages": turns}) + "\n"), encoding="utf-8")
    [problem] = problems("sft", base=base, data={"train": str(file)})
    assert "got the tokenizer's '<mark>' with id " in problem


# ---- weights ----------------------------------------------------------------------------------


def test_weights_of_another_shape_than_the_configuration_says_are_refused(tmp_path: Path) -> None:
    base = small_base(tmp_path)
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(31)
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    [problem] = problems("dpo", base=base)
    assert "shapes in its config.json, model.norm.weight of [32], got [31] in " in problem


def test_a_reward_model_is_not_begun_on_a_head_of_several_outputs(tmp_path: Path) -> None:
    base = small_base(tmp_path)
    weights = load_file(base / "model.safetensors") | {"score.weight": torch.zeros(3, 32)}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    [problem] = problems("rm", base=base)
    assert "score.weight of [1, 32], got [3, 32] in " in problem


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_quantised_base_is_refused(kind: str, tmp_path: Path) -> None:
    base = small_base(tmp_path)
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (base / "config.json").write_text(json.dumps(config))
    [problem] = problems(kind, base=base)
    assert f"weights are not quantised, got {base}, quantised by gptq; name the model" in problem


# ---- adapters on embedding and head -------------------------------------------------------------


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ".*(q_proj|lm_head)"])
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_an_adapter_that_the_loss_does_not_train_is_refused(kind: str, targets: object) -> None:
    [problem] = problems(kind, model={"lora_target_modules": targets})
    assert problem.startswith(f"model.lora_target_modules: must leave out lm_head for {kind}, got ")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_a_tied_tensor_is_refused_since_it_cannot_be_merged(target: str) -> None:
    [problem] = problems("ppo", model={"lora_target_modules": ["q_proj", target]})
    assert f"must leave out {target} for ppo" in problem
    assert "cannot be merged" in problem


def test_an_adapter_on_a_tensor_of_its_own_is_taken(tmp_path: Path) -> None:
    base = small_base(tmp_path)
    assert problems("ppo", base=base, model={"lora_target_modules": ["lm_head"]}) == []
    assert problems("sft", base=base, model={"lora_target_modules": ["embed_tokens"]}) == []
    assert problems("rm", model={"lora_target_modules": ["embed_tokens", "q_proj"]}) == []


def test_searched_targets_are_placed_as_well() -> None:
    space = {"model.lora_target_modules": [["q_proj"], ["lm_head"]]}
    [problem] = problems("sft", search_space=space)
    assert "must leave out lm_head for sft" in problem


# ---- missing weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_base_without_the_weights_of_a_layer_is_refused(kind: str, tmp_path: Path) -> None:
    base = small_base(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    kept = {name: value for name, value in weights.items() if ".mlp." not in name}
    save_file(kept, base / "model.safetensors", metadata={"format": "pt"})
    [problem] = problems(kind, model={"model_name_or_path": str(base)})
    assert problem.startswith(
        "model.model_name_or_path: must hold the weights of all its layers, got "
    )
    assert "without model.layers.0.mlp.down_proj.weight (3 of 12 are missing)" in problem


def test_a_shard_that_the_index_names_and_that_is_absent_is_refused(tmp_path: Path) -> None:
    base = small_base(tmp_path / "base")
    weight_map = {"model.norm.weight": "model.safetensors", "x": "model-00002-of-00002.safetensors"}
    index = json.dumps({"weight_map": weight_map})
    (base / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    [problem] = problems("sft", model={"model_name_or_path": str(base)})
    assert "has no model-00002-of-00002.safetensors, which model.safetensors.index.json" in problem
