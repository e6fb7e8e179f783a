"""LoRA adapters: put one on a base, take it off again without a trace."""

from __future__ import annotations

from collections.abc import Sequence

from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from easyds_tune.errors import ModelError
from easyds_tune.models.load import ModelKind
from easyds_tune.spec.model import ModelSpec


def lora_config(spec: ModelSpec, kind: ModelKind, fresh_modules: Sequence[str] = ()) -> LoraConfig:
    """PEFT's configuration of the spec's adapter; a reward model trains its head as well.

    fresh_modules: modules that no file holds, such as an encoder's pooler. They are trained whole
    and saved with the adapter, which would otherwise be put on other random weights later.
    """
    return LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=spec.lora_target_modules,
        use_rslora=spec.use_rslora,
        modules_to_save=list(fresh_modules) or None,
        task_type="SEQ_CLS" if kind == "reward" else "CAUSAL_LM",
    )


def target_problems(model: PreTrainedModel, spec: ModelSpec) -> list[str]:
    """LoRA targets that the model has no module for."""
    targets = spec.lora_target_modules
    if spec.lora_r is None or targets == "all-linear":
        return []
    names = [name for name, _ in model.named_modules()]
    leaves = {name.rsplit(".", 1)[-1] for name in names}
    wanted = targets if isinstance(targets, list) else []
    linear = sorted(
        {name.rsplit(".", 1)[-1] for name, module in model.named_modules()
         if type(module).__name__ in ("Linear", "Conv1D")}
    )  # fmt: skip
    return [
        f"model.lora_target_modules: the model has no module {target!r}; it has {', '.join(linear)}"
        for target in wanted
        if target not in leaves and not any(name.endswith(f".{target}") for name in names)
    ]


def trainable_parameters(spec: ModelSpec, kind: ModelKind, skeleton: PreTrainedModel) -> int:
    """Weights a trial changes: of the adapter (and head), or of the whole model.

    Raises ModelError where PEFT cannot place the adapter.
    """
    if spec.lora_r is None:
        return sum(weight.numel() for weight in skeleton.parameters())
    try:
        model = get_peft_model(skeleton, lora_config(spec, kind))
    except ValueError as error:
        raise ModelError([f"model.lora_target_modules: {error}"]) from error
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def give_back(model: nn.Module) -> None:
    """Leave a base as it was before a trial: no LoRA layers, no patched methods, its own head.

    In place. A head that the adapter trained a copy of is the base's untrained one again.
    """
    base = model
    if isinstance(model, PeftModel):
        heads = {
            name: module.original_module
            for name, module in model.get_base_model().named_modules()
            if isinstance(module, ModulesToSaveWrapper)
        }
        base = model.unload()
        for name, head in heads.items():
            parent, _, leaf = name.rpartition(".")
            setattr(base.get_submodule(parent), leaf, head)
    assert isinstance(base, PreTrainedModel)
    if base.is_activation_checkpointing:
        base.activation_checkpointing_disable()
    # Gradient checkpointing hooks the embeddings, several times over; a loaded base has no hooks.
    base.get_input_embeddings()._forward_hooks.clear()
    # TRL patches `forward` on the instance, PEFT leaves its settings there.
    for attribute in ("forward", "peft_config", "_hf_peft_config_loaded", "_require_grads_hooks"):
        base.__dict__.pop(attribute, None)
    base.requires_grad_(True)
    base.eval()
