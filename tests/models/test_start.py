"""A model spec leads to its base and adapter, or says why nothing can be stacked there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from easyds_tune.errors import ModelError
from easyds_tune.models import start
from easyds_tune.models.start import Start, load_start_tokenizer, start_of
from easyds_tune.spec.model import ModelSpec
from tests.models.adapters import edit_config, sft_adapter
from tests.models.small_models import byte_tokenizer, qwen


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sft_adapter(tmp_path_factory.mktemp("sft"), base, template="from the adapter")


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    """An adapter folder that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def spec(folder: Path, **changes: Any) -> ModelSpec:
    return ModelSpec(model_name_or_path=str(folder), **changes)


def problems(folder: Path, **changes: Any) -> list[str]:
    with pytest.raises(ModelError) as refusal:
        start_of(spec(folder, **changes))
    return refusal.value.problems


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "no/folder/here"])
def test_a_whole_model_is_its_own_base(base: Path, name: str) -> None:
    for plain in (spec(base, lora_r=None), ModelSpec(model_name_or_path=name)):
        assert start_of(plain) == Start(plain, None)


def test_an_adapter_leads_to_its_base_and_keeps_the_trial_s_settings(
    base: Path, adapter: Path
) -> None:
    start = start_of(spec(adapter, lora_r=5, dtype="bfloat16", revision="of the folder"))
    assert start.adapter == adapter
    assert start.base == spec(base, lora_r=5, dtype="bfloat16")
    edit_config(adapter, revision="v2")
    assert start_of(spec(adapter)).base.revision == "v2"


def test_relative_folders_are_made_absolute(
    base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(adapter.parent)
    edit_config(adapter, base_model_name_or_path=os.path.relpath(base))
    start = start_of(spec(Path("adapter")))
    assert start == Start(spec(base), adapter)


def test_a_home_folder_is_found(base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(adapter.parent))
    assert start_of(spec(Path("~/adapter"))) == Start(spec(base), adapter)


def test_the_adapter_s_tokenizer_comes_before_the_base_s(base: Path, adapter: Path) -> None:
    assert load_start_tokenizer(start_of(spec(adapter))).chat_template == "from the adapter"
    for name in ("tokenizer_config.json", "tokenizer.json", "chat_template.jinja"):
        (adapter / name).unlink()
    assert load_start_tokenizer(start_of(spec(adapter))).chat_template is None
    assert load_start_tokenizer(start_of(spec(base))).eos_token == byte_tokenizer().eos_token


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [3]),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("target_parameters", ["experts.up"]),
        ("init_lora_weights", "pissa"),
        ("a_setting_of_the_next_peft", 1),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_with_a_remedy(
    adapter: Path, setting: str, value: object
) -> None:
    (problem,) = problems(edit_config(adapter, **{setting: value}))
    assert problem.startswith(f"{adapter}: {setting} must be ")
    assert "got" in problem
    assert "export NAME --to DIR --merge" in problem


def test_settings_left_at_nothing_are_no_problem(adapter: Path) -> None:
    edit_config(adapter, a_setting_of_the_next_peft=False, loftq_config=None, modules_to_save=[])
    assert start_of(spec(adapter)).adapter == adapter


@pytest.mark.parametrize(
    "kind", [{"task_type": "SEQ_CLS"}, {"peft_type": "IA3"}, {"task_type": None}]
)
def test_another_kind_of_adapter_is_refused(adapter: Path, kind: dict[str, Any]) -> None:
    (problem,) = problems(edit_config(adapter, **kind))
    assert "must be a LORA adapter of task type CAUSAL_LM" in problem


def test_a_base_cannot_be_trained_whole_under_an_adapter(adapter: Path) -> None:
    (problem,) = problems(adapter, lora_r=None)
    assert problem.startswith("model.lora_r: must be a rank where the model is an adapter")
    assert "got null" in problem


def test_a_base_that_is_gone_quantised_or_an_adapter_is_refused(
    base: Path, made: Path, adapter: Path, tmp_path: Path
) -> None:
    (gone,) = problems(edit_config(adapter, base_model_name_or_path=str(tmp_path / "gone")))
    assert f"its base {tmp_path / 'gone'} does not load" in gone
    (other,) = problems(edit_config(adapter, base_model_name_or_path=str(made)))
    assert f"its base must be a whole model, and {made} is an adapter" in other

    coarse = Path(shutil.copytree(base, tmp_path / "coarse"))
    path = coarse / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    path.write_text(json.dumps(config), encoding="utf-8")
    (quantised,) = problems(edit_config(adapter, base_model_name_or_path=str(coarse)))
    assert f"its base must not be quantised, and {coarse} is" in quantised


def test_weights_that_are_pickled_torn_or_whole_are_refused(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    embedding = "base_model.model.model.embed_tokens.weight"
    save_file(tensors | {embedding: torch.zeros(259, 32)}, weights)
    (whole,) = problems(adapter)
    assert f"must hold LoRA weights alone, and has 1 others, the first is {embedding}" in whole

    weights.write_bytes(weights.read_bytes()[:-1])
    (torn,) = problems(adapter)
    assert "adapter_model.safetensors is not whole" in torn

    weights.unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    (pickled,) = problems(adapter)
    assert "must hold adapter_model.safetensors, and it is not there" in pickled


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"base_model_name_or_path": null}'])
def test_a_configuration_that_cannot_be_used_is_named(adapter: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text, encoding="utf-8")
    (problem,) = problems(adapter)
    assert problem.startswith(f"{adapter}: adapter_config.json ")


@pytest.mark.parametrize("name", [3, 1.5, True, ["a"], {"a": 1}])
def test_a_base_whose_name_is_no_text_is_never_looked_for(
    adapter: Path, name: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start.AutoConfig, "from_pretrained", lambda *_, **__: pytest.fail("asked"))
    assert problems(edit_config(adapter, base_model_name_or_path=name)) == [
        f"{adapter}: adapter_config.json must name its base in base_model_name_or_path, as text, "
        f"got {json.dumps(name)}; write it there"
    ]


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("r", "16", "must be a valid integer"),
        ("r", 0, "must be greater than 0"),
        ("lora_alpha", None, "must be a valid number"),
        ("use_rslora", "yes", "must be a valid boolean"),
        ("rank_pattern", {"q_proj": "4"}, "must be a valid integer"),
        ("alpha_pattern", [1], "must be a valid dictionary"),
        ("target_modules", 7, "must be a valid list"),
        ("revision", 1, "must be a valid string"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_told_in_one_line(
    adapter: Path, setting: str, value: object, rule: str
) -> None:
    assert problems(edit_config(adapter, **{setting: value})) == [
        f"{adapter}: {setting} in adapter_config.json {rule}, got {json.dumps(value)}; correct it, "
        "or export the adapter again"
    ]


def test_all_problems_come_together(adapter: Path, tmp_path: Path) -> None:
    edit_config(adapter, use_dora=True, bias="all", base_model_name_or_path=str(tmp_path / "gone"))
    (adapter / "adapter_model.safetensors").unlink()
    assert len(problems(adapter, lora_r=None)) == 5
