"""A reward model on the policy's own base: one copy of the frozen weights in memory.

The classifier is a second tree of modules whose parameters are the very objects of the causal
model's. Each tree carries its own adapter, so neither has to be switched off for the other, and
nothing flips `requires_grad` in the policy (PEFT's adapter switching does, in the middle of a
joint step).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from easyds_tune.models.load import expand_home, load_skeleton
from easyds_tune.spec.judge import RewardModelRewardSpec
from easyds_tune.spec.model import ModelSpec


def shares_base(reward: RewardModelRewardSpec, model: ModelSpec) -> bool:
    """Whether the reward model can stand on the base that `model` trains an adapter on.

    So it is where the reward model is a LoRA adapter (as `export` writes it) that was trained on
    that very base. A whole model, an adapter of another base, and a base that training changes
    (`lora_r: null`) need a reward model of its own. Raises ModelError where the base's
    configuration does not load.
    """
    file = Path(expand_home(reward.model_name_or_path)) / "adapter_config.json"
    # Code that comes with a model is run for the policy only.
    if model.lora_r is None or model.trust_remote_code or not file.is_file():
        return False
    adapter = json.loads(file.read_text(encoding="utf-8"))
    of_this_base = _weights_named(
        str(adapter.get("base_model_name_or_path")), adapter.get("revision")
    ) == _weights_named(model.model_name_or_path, model.revision)
    return of_this_base and _leaves_its_base_alone(adapter) and _same_trunk(model)


def classifier_on(base: PreTrainedModel) -> PreTrainedModel:
    """A classifier with one output whose trunk holds the parameters and buffers of `base`.

    base: a causal language model without an adapter; it may get one later, which the classifier
    does not see. The classifier's head is unset: it is for an adapter that brings one.
    """
    trunk = base.base_model
    assert not any(isinstance(module, BaseTunerLayer) for module in trunk.modules())
    config = copy.deepcopy(base.config)
    config.num_labels = 1
    with torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(
            config, dtype=base.dtype, trust_remote_code=False
        )
    assert type(classifier.base_model) is type(trunk)
    kept = {id(tensor): tensor for tensor in [*trunk.parameters(), *trunk.buffers()]}
    twin = copy.deepcopy(trunk, kept | {id(trunk.config): config})
    for name, child in classifier.named_children():
        if name == classifier.base_model_prefix:
            setattr(classifier, name, twin)
        else:
            child.to_empty(device=base.device)
    return classifier


def _weights_named(name: str, revision: str | None) -> tuple[str, str | None]:
    """What a base's name means: a folder's absolute path (which has no revision), or a hub name."""
    folder = Path(expand_home(name))
    if folder.is_dir():
        return str(folder.resolve()), None
    return name, revision or "main"


def _leaves_its_base_alone(adapter: dict[str, object]) -> bool:
    """Whether loading the adapter writes nothing into the base's own weights.

    Biases are trained in place, and some initialisations take a part of each weight out of it.
    """
    return (
        (adapter.get("peft_type"), adapter.get("task_type")) == ("LORA", "SEQ_CLS")
        and adapter.get("bias", "none") == "none"
        and isinstance(adapter.get("init_lora_weights", True), bool)
    )


def _same_trunk(model: ModelSpec) -> bool:
    """Some architectures put another module under their classifier than under their writer."""
    causal, classifier = load_skeleton(model, "causal"), load_skeleton(model, "reward")
    return type(causal.base_model) is type(classifier.base_model)
