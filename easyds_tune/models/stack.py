"""A policy's adapter on its base, fresh or stacked on a frozen one; its reference; its plain form.

    policy    = base + start + fresh LoRA     (the fresh one alone is trained)
    reference = base + start
    saved     = base + one adapter: [A_start; A_fresh] and [s_start B_start, s_fresh B_fresh]

`start` is the frozen adapter of a trial that starts from one, else it is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from easyds_tune.errors import ModelError
from easyds_tune.models.generate import without_adapter
from easyds_tune.models.lora import lora_config
from easyds_tune.models.start import CONFIG, WEIGHTS
from easyds_tune.spec.model import ModelSpec

POLICY = "default"
START = "start"
OTHER_BASE = f"name the model that it was trained on as base_model_name_or_path in {CONFIG}"


def with_policy_adapter(
    base: PreTrainedModel,
    spec: ModelSpec,
    start: Path | None = None,
    fresh_modules: Sequence[str] = (),
) -> PeftModel:
    """The base with a fresh adapter, POLICY, on it, and under that START from a folder, frozen.

    The fresh weights are drawn from the global generator, the same ones with a start and without,
    and START leaves that generator as it was. Both adapters are active; before the first update
    the model computes what its reference does, bit for bit. In evaluation mode.

    fresh_modules: trained whole beside the adapter, as for `lora_config`.
    Raises ModelError where either adapter does not fit the base, which is then not to be used.
    """
    try:
        model = get_peft_model(base, lora_config(spec, "causal", fresh_modules))
    except ValueError as error:
        raise ModelError([f"model.lora_target_modules: {error}"]) from error
    if start is not None:
        _add_start(model, start)
    return model.eval()


def with_saved_policy(base: PreTrainedModel, folder: Path, start: Path | None = None) -> PeftModel:
    """The base with the adapter of a checkpoint on it, as POLICY; `reference_of` gives its start.

    start: the frozen adapter that the trial started from. The checkpoint's one adapter holds it
    already, so it is active for the reference alone. In evaluation mode, nothing trainable.
    Raises ModelError where an adapter does not fit the base, which is then not to be used.
    """
    model: PeftModel | None = None
    for name, adapter in ((POLICY, folder), (START, start)):
        if adapter is None:
            continue
        with _misfits_told(adapter), torch.random.fork_rng(devices=[]):
            config = PeftConfig.from_pretrained(str(adapter))
            if model is None:
                model = get_peft_model(base, config)
            else:
                model.add_adapter(name, config)
            _load_weights(model, name, adapter)
    assert model is not None
    _activate(model, [POLICY])
    model.requires_grad_(False)
    return model.eval()


@contextmanager
def reference_of(model: PeftModel) -> Iterator[PeftModel]:
    """The model as it was at the trial's start inside; afterwards exactly as before.

    Without gradients: what is differentiated later would be another model's.
    """
    with torch.no_grad():
        if not is_stacked(model):
            with without_adapter(model):
                yield model
            return
        policy = list(model.active_adapters)
        _activate(model, [START])
        try:
            yield model
        finally:
            _activate(model, policy)


def is_stacked(model: PeftModel) -> bool:
    """Whether the policy's adapter stands on a frozen one."""
    return START in model.peft_config


def plain_adapter_state(model: PeftModel) -> tuple[dict[str, Tensor], LoraConfig]:
    """The policy as one adapter on the plain base: tensors by PEFT's names, and its configuration.

    Copies on the CPU; the model is only read. Of ZeRO-3's shards call it on gathered weights.
    A stacked policy's tensors are float32, `lora_A` (rank, in) and `lora_B` (out, rank), with one
    rank for all modules: the largest sum of the two; what a module has less of is zeros.
    """
    policy = _state(model, POLICY)
    config = replace(model.peft_config[POLICY], inference_mode=True)
    if not is_stacked(model):
        return policy, config
    start = _state(model, START)
    layers = _lora_layers(model)
    rank = max(sum(layer.r.values()) for layer in layers.values())
    state = {name: value for name, value in policy.items() if ".lora_" not in name}
    for name in sorted({name for name in policy.keys() | start.keys() if ".lora_" in name}):
        layer = layers[name.partition(".lora_")[0].removeprefix("base_model.model.")]
        parts = [
            values[name].float() * (layer.scaling[adapter] if _is_b(name) else 1.0)
            for adapter, values in ((START, start), (POLICY, policy))
            if name in values
        ]
        state[name] = _padded(torch.cat(parts, dim=int(_is_b(name))), rank, int(_is_b(name)))
    return state, replace(
        config,
        r=rank,
        lora_alpha=rank,
        use_rslora=False,
        target_modules=_targets(model, set(layers)),
    )


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the policy as one plain PEFT adapter, `adapter_model.safetensors` and its config."""
    state, config = plain_adapter_state(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def _add_start(model: PeftModel, folder: Path) -> None:
    trainable = [(weight, weight.requires_grad) for weight in model.parameters()]
    with _misfits_told(folder):
        # Its dropout ended with its own training; the policy must not differ from itself.
        config = replace(
            LoraConfig.from_pretrained(str(folder)), lora_dropout=0.0, inference_mode=True
        )
        with torch.random.fork_rng(devices=[]):
            model.add_adapter(START, config)
            _load_weights(model, START, folder)
    _activate(model, [POLICY, START])
    model.requires_grad_(False)
    for weight, requires_grad in trainable:
        weight.requires_grad_(requires_grad)


@contextmanager
def _misfits_told(folder: Path) -> Iterator[None]:
    """What PEFT and torch raise of an adapter that does not fit, as a ModelError of its folder."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelError([f"{folder}: the adapter does not fit its base: {_why(error)}"]) from error


def _load_weights(model: PeftModel, adapter: str, folder: Path) -> None:
    """The weights of a folder for an adapter that is on the model; ModelError for any gap."""
    loaded = model.load_adapter(str(folder), adapter, torch_device="cpu")
    strays = [*loaded.missing_keys, *loaded.unexpected_keys]
    if strays:
        raise ModelError(
            [
                f"{folder}: the adapter does not fit its base: all tensors must have a "
                f"counterpart, {len(strays)} have none, the first is {strays[0]}; {OTHER_BASE}"
            ]
        )


def _why(error: Exception) -> str:
    """What PEFT said in one line; torch's list of tensors of another size as their number."""
    text = str(error).strip()
    sizes = re.findall(
        r"size mismatch for (\S+): .*? shape torch\.Size\((.*?)\) .* torch\.Size\((.*?)\)", text
    )
    if not sizes:
        first_line = (text.splitlines() or [""])[0]
        return f"{CONFIG} is refused ({type(error).__name__}: {first_line}); export it again"
    name, has, needs = sizes[0]
    return (
        f"all tensors must have the sizes of its modules, {len(sizes)} have others, the first is "
        f"{name}, {has} for {needs}; {OTHER_BASE}"
    )


def _activate(model: PeftModel, adapters: list[str]) -> None:
    """Switch adapters on; PEFT sets every `requires_grad` on the way, so that is put back."""
    trainable = [(weight, weight.requires_grad) for weight in model.parameters()]
    model.base_model.set_adapter(adapters)
    for weight, requires_grad in trainable:
        weight.requires_grad_(requires_grad)


def _state(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    # PEFT would ask the hub whether the vocabulary grew, were it left to find out.
    found = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in found.items()}


def _lora_layers(model: PeftModel) -> dict[str, LoraLayer]:
    """Module name in the base -> its LoRA layer."""
    named = model.get_base_model().named_modules()
    return {name: module for name, module in named if isinstance(module, LoraLayer)}


def _is_b(name: str) -> bool:
    return ".lora_B" in name or ".lora_embedding_B" in name


def _padded(values: Tensor, rank: int, dim: int) -> Tensor:
    missing = list(values.shape)
    missing[dim] = rank - values.shape[dim]
    return torch.cat([values, values.new_zeros(missing)], dim=dim)


def _targets(model: nn.Module, adapted: set[str]) -> set[str]:
    """The adapted modules by their last names where those fit no other module, else in full."""
    last_names = {name.rpartition(".")[2] for name in adapted}
    alike = {
        name
        for name, _ in model.get_base_model().named_modules()
        if name.rpartition(".")[2] in last_names
    }
    return last_names if alike == adapted else adapted
