"""A fresh adapter on a frozen one: the reference it starts as, and the one adapter it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from easyds_tune.errors import ModelError
from easyds_tune.models.deepspeed import (
    end_of_engine,
    gathered,
    release,
    start_distributed,
    start_engine,
)
from easyds_tune.models.load import load_model, load_skeleton
from easyds_tune.models.lora import give_back, lora_config
from easyds_tune.models.stack import (
    POLICY,
    START,
    is_stacked,
    plain_adapter_state,
    reference_of,
    save_adapter,
    with_policy_adapter,
)
from easyds_tune.spec.deepspeed import deepspeed_config
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.training import TrainingSpec
from tests.models.adapters import edit_config, logits, moved, sft_adapter
from tests.models.small_models import qwen

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sft_adapter(tmp_path_factory.mktemp("sft"), base, lora_dropout=0.5)


def spec(base: Path, **changes: object) -> ModelSpec:
    return ModelSpec(model_name_or_path=str(base), **({"lora_r": 4, "lora_alpha": 8} | changes))


def stacked(base: Path, adapter: Path | None, **changes: object) -> PeftModel:
    wanted = spec(base, **changes)
    torch.manual_seed(3)
    return with_policy_adapter(load_model(wanted, "causal", CPU), wanted, adapter)


def as_loaded(base: Path, adapter: Path) -> PeftModel:
    """An adapter folder on its base, as plain PEFT loads it."""
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()


def trainable(model: PeftModel) -> dict[str, bool]:
    return {name: weight.requires_grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("training", [False, True])
def test_a_policy_starts_as_its_reference_bit_for_bit(
    base: Path, adapter: Path, training: bool
) -> None:
    """Not even the dropout that the adapter was trained with takes part."""
    model = stacked(base, adapter).train(training)
    wanted = logits(as_loaded(base, adapter))
    assert (wanted - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 0.01
    assert torch.equal(logits(model), wanted)
    with reference_of(model) as reference:
        assert torch.equal(logits(reference), wanted)


def test_in_bfloat16_the_policy_starts_as_its_reference_too(base: Path, adapter: Path) -> None:
    model = stacked(base, adapter, dtype="bfloat16")
    assert model.get_base_model().dtype == torch.bfloat16
    policy = logits(model)
    with reference_of(model) as reference:
        assert torch.equal(logits(reference), policy)


def test_the_fresh_weights_and_the_generator_are_the_same_with_a_start_and_without(
    base: Path, adapter: Path
) -> None:
    torch.manual_seed(3)
    plain = get_peft_model(load_model(spec(base), "causal", CPU), lora_config(spec(base), "causal"))
    wanted, wanted_next = plain_adapter_state(plain)[0], torch.rand(3)

    for start in (None, adapter):
        model = stacked(base, start)
        assert torch.equal(torch.rand(3), wanted_next)
        found = {
            name.replace(f".{POLICY}.", "."): weight
            for name, weight in model.named_parameters()
            if f".{POLICY}." in name
        }
        assert found.keys() == wanted.keys()
        assert all(torch.equal(weight, wanted[name]) for name, weight in found.items())


def test_the_fresh_adapter_alone_is_trained(base: Path, adapter: Path) -> None:
    model = stacked(base, adapter)
    assert {name for name, on in trainable(model).items() if on} == {
        name for name, _ in model.named_parameters() if f".{POLICY}." in name
    }
    model(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([[5, 6]])).loss.backward()
    with_gradient = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert with_gradient == {name for name, on in trainable(model).items() if on}


@pytest.mark.parametrize("with_start", [False, True])
def test_the_reference_stays_the_start_and_leaves_the_policy_as_it_was(
    base: Path, adapter: Path, with_start: bool
) -> None:
    model = stacked(base, adapter if with_start else None)
    start = logits(model)
    moved(model, 0.1)
    policy, switches = logits(model), trainable(model)
    modes = [module.training for module in model.modules()]
    assert (policy - start).abs().max() > 0.01

    with reference_of(model) as reference:
        assert torch.equal(logits(reference), start)
        assert not torch.is_grad_enabled()
    with pytest.raises(KeyError), reference_of(model):
        raise KeyError

    assert torch.is_grad_enabled()
    assert torch.equal(logits(model), policy)
    assert trainable(model) == switches
    assert [module.training for module in model.modules()] == modes


def test_a_module_trained_whole_is_the_base_s_own_in_the_reference(
    base: Path, adapter: Path
) -> None:
    torch.manual_seed(3)
    plain = load_model(spec(base), "causal", CPU)
    model = with_policy_adapter(plain, spec(base), adapter, fresh_modules=["model.norm"])
    start = logits(model)
    policy = logits(moved(model, 0.1))
    with reference_of(model) as reference:
        assert torch.equal(logits(reference), start)
    assert torch.equal(logits(model), policy)
    state, config = plain_adapter_state(model)
    assert config.modules_to_save == ["model.norm"]
    assert "base_model.model.model.norm.weight" in state


def test_an_unstacked_policy_is_saved_as_peft_saves_it(base: Path, tmp_path: Path) -> None:
    model = moved(stacked(base, None, use_rslora=True, lora_target_modules=["q_proj"]), 0.1)
    assert not is_stacked(model)
    model.save_pretrained(tmp_path / "peft", save_embedding_layers=False)
    save_adapter(model, tmp_path / "ours")

    (tmp_path / "peft" / "README.md").unlink()
    for wanted in (tmp_path / "peft").iterdir():
        assert (tmp_path / "ours" / wanted.name).read_bytes() == wanted.read_bytes()
    assert len(list((tmp_path / "ours").iterdir())) == 2
    assert not model.peft_config[POLICY].inference_mode


STARTS = {
    "other targets": {"target_modules": ["v_proj", "down_proj"], "r": 2, "lora_alpha": 5},
    "rslora": {"use_rslora": True, "r": 5, "lora_alpha": 3},
    "patterns": {
        "target_modules": ["q_proj", "k_proj"],
        "rank_pattern": {"q_proj": 6},
        "alpha_pattern": {"k_proj": 1},
    },
    "all-linear": {"target_modules": "all-linear", "r": 1, "lora_alpha": 1},
    "the output layer": {"target_modules": ["lm_head", "o_proj"]},
    "one layer": {"layers_to_transform": [1], "target_modules": ["gate_proj"]},
    "a pattern": {"target_modules": r".*\.0\..*(q|k)_proj"},
    "embeddings": {"target_modules": ["embed_tokens"]},
}


@pytest.mark.parametrize("start", list(STARTS))
@pytest.mark.parametrize(
    "policy", [{}, {"lora_target_modules": ["q_proj", "o_proj"], "use_rslora": True, "lora_r": 7}]
)
def test_a_stacked_policy_is_saved_as_one_plain_adapter(
    base: Path, tmp_path: Path, start: str, policy: dict[str, object]
) -> None:
    folder = sft_adapter(tmp_path / "sft", base, **STARTS[start])
    model = moved(stacked(base, folder, **policy), 0.1)
    wanted = logits(model)
    names = list(trainable(model).items())
    weights = {name: weight.clone() for name, weight in model.named_parameters()}

    save_adapter(model, tmp_path / "saved")

    # A DeepSpeed engine holds these very weights.
    assert list(trainable(model).items()) == names
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())
    loaded = as_loaded(base, tmp_path / "saved")
    torch.testing.assert_close(logits(loaded), wanted, atol=5e-5, rtol=0)
    start_alone = logits(as_loaded(base, folder))
    assert (wanted - start_alone).abs().max() > 0.01
    assert loaded.peft_config["default"].base_model_name_or_path == str(base)


def test_the_plain_adapter_has_the_sum_of_ranks_and_scale_one(base: Path, adapter: Path) -> None:
    """Rank 3 on q_proj and up_proj under rank 4 on q_proj alone: up_proj is filled with zeros."""
    model = moved(stacked(base, adapter, lora_target_modules=["q_proj"]), 0.1)
    state, config = plain_adapter_state(model)
    assert (config.r, config.lora_alpha, config.use_rslora) == (7, 7, False)
    assert config.target_modules == {"q_proj", "up_proj"}
    prefix = "base_model.model.model.layers.0"
    start = load_file(adapter / "adapter_model.safetensors")
    up_a, up_b = (state[f"{prefix}.mlp.up_proj.lora_{letter}.weight"] for letter in "AB")
    assert up_a.shape == (7, 32)
    assert up_b.shape == (48, 7)
    assert torch.equal(up_b[:, :3], 2 * start[f"{prefix}.mlp.up_proj.lora_B.weight"])
    assert not up_b[:, 3:].any()
    assert torch.equal(up_a[:3], start[f"{prefix}.mlp.up_proj.lora_A.weight"])
    assert state[f"{prefix}.self_attn.q_proj.lora_A.weight"].shape == (7, 32)


def test_modules_that_share_a_name_with_others_are_targeted_in_full(
    base: Path, tmp_path: Path
) -> None:
    folder = sft_adapter(tmp_path, base, layers_to_transform=[1], target_modules=["q_proj"])
    model = stacked(base, folder, lora_target_modules=["layers.0.mlp.up_proj"])
    assert plain_adapter_state(model)[1].target_modules == {
        "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj",
    }  # fmt: skip


def test_a_saved_state_does_not_move_with_the_model(base: Path, adapter: Path) -> None:
    for start in (None, adapter):
        model = stacked(base, start)
        state = plain_adapter_state(model)[0]
        before = {name: value.clone() for name, value in state.items()}
        moved(model, 0.1)
        assert all(torch.equal(value, before[name]) for name, value in state.items())


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_an_engine_trains_the_fresh_adapter_alone(
    base: Path, adapter: Path, tmp_path: Path, stage: int
) -> None:
    start_distributed(CPU)
    model = stacked(base, adapter)
    start = logits(model)
    training = TrainingSpec(max_steps=3, learning_rate=1e-2, per_device_train_batch_size=1)
    ids = torch.tensor([[5, 6, 7, 8]])
    with end_of_engine():
        engine = start_engine(model, deepspeed_config(f"zero{stage}"), training)
        try:
            for _ in range(3):
                engine.backward(engine(input_ids=ids, labels=ids).loss)
                engine.step()
                with gathered(engine), reference_of(model) as reference:
                    torch.testing.assert_close(logits(reference), start, atol=1e-5, rtol=0)
            with gathered(engine):
                policy = logits(model)
                save_adapter(model, tmp_path)
        finally:
            release(engine)
    assert (policy - start).abs().max() > 0.01
    torch.testing.assert_close(logits(as_loaded(base, tmp_path)), policy, atol=5e-5, rtol=0)


@pytest.mark.parametrize("fresh", [(), ("model.norm",)])
def test_a_base_given_back_has_no_trace_of_either_adapter(
    base: Path, adapter: Path, fresh: tuple[str, ...]
) -> None:
    plain = load_model(spec(base), "causal", CPU)
    wanted = logits(plain)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    modules = [(name, type(module)) for name, module in plain.named_modules()]
    settings = set(plain.__dict__)

    for _ in range(2):  # the second trial starts as the first one did
        torch.manual_seed(3)
        model = moved(with_policy_adapter(plain, spec(base), adapter, fresh), 0.1).train()
        with reference_of(model) as reference:
            logits(reference)
        give_back(model)

        assert [(name, type(module)) for name, module in plain.named_modules()] == modules
        assert plain.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())
        assert torch.equal(logits(plain), wanted)
        assert set(plain.__dict__) == settings
        assert not any(module.training for module in plain.modules())
        assert all(weight.requires_grad for weight in plain.parameters())


def test_an_adapter_of_another_model_is_refused_on_its_skeleton_already(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    wrong_shape = sft_adapter(tmp_path / "shape", base)
    edit_config(wrong_shape, r=5)
    spare = edit_config(sft_adapter(tmp_path / "spare", base), target_modules=["q_proj"])
    short = edit_config(sft_adapter(tmp_path / "short", base), target_modules=["q_proj", "k_proj"])
    nowhere = edit_config(sft_adapter(tmp_path / "nowhere", base), target_modules=["c_attn"])
    for folder in (wrong_shape, spare, short, nowhere):
        with pytest.raises(ModelError, match="does not fit its base"):
            with_policy_adapter(load_skeleton(spec(base), "causal"), spec(base), folder)
        with pytest.raises(ModelError, match="does not fit its base"):
            stacked(base, folder)
    model = with_policy_adapter(load_skeleton(spec(base), "causal"), spec(base), adapter)
    assert START in model.peft_config


def test_an_adapter_that_does_not_fit_is_told_in_one_line(base: Path, tmp_path: Path) -> None:
    def problem(**settings: Any) -> str:
        folder = edit_config(sft_adapter(tmp_path / str(len(settings)), base), **settings)
        with pytest.raises(ModelError) as refusal:
            with_policy_adapter(load_skeleton(spec(base), "causal"), spec(base), folder)
        [text] = refusal.value.problems
        assert "\n" not in text
        return text.removeprefix(f"{folder}: the adapter does not fit its base: ")

    remedy = (
        "; name the model that it was trained on as base_model_name_or_path in adapter_config.json"
    )
    # Two modules in each of the model's layers, A and B of each: the rank is 5 and not 3.
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.start.weight"
    assert problem(r=5) == (
        "all tensors must have the sizes of its modules, 8 have others, the first is "
        f"{first}, [3, 32] for [5, 32]{remedy}"
    )
    stray = problem(r=3, target_modules=["q_proj"])
    assert stray.startswith("all tensors must have a counterpart, 4 have none, the first is ")
    assert stray.endswith(remedy)
    broken = problem(r="three", lora_alpha=6, use_rslora=False)
    assert broken.startswith("adapter_config.json is refused (TypeError: ")
    assert broken.endswith("); export it again")


def test_fresh_targets_that_the_base_lacks_are_refused(base: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.lora_target_modules"):
        stacked(base, None, lora_target_modules=["input_layernorm"])
