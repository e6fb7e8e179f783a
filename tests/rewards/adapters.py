"""Reward models of random weights that are adapters, saved as the rm algorithm saves one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import AutoModelForSequenceClassification

from easyds_tune.models.lora import lora_config
from easyds_tune.spec.judge import RewardModelRewardSpec
from easyds_tune.spec.model import ModelSpec


def model_spec(base: Path, **changes: Any) -> ModelSpec:
    """The base as a policy trains an adapter on it."""
    fields = {"dtype": "float32", "lora_r": 4, "lora_alpha": 8, **changes}
    return ModelSpec(model_name_or_path=str(base), **fields)


def reward_adapter(base: Path, folder: Path, **changes: Any) -> RewardModelRewardSpec:
    """An adapter and head far from zero; `changes` are fields of PEFT's configuration."""
    torch.manual_seed(1)
    classifier = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    config = lora_config(model_spec(base), "reward")
    for name, value in changes.items():
        setattr(config, name, value)
    trained = get_peft_model(classifier, config)
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.normal_(std=0.3)
    trained.save_pretrained(folder)
    return RewardModelRewardSpec(model_name_or_path=str(folder), max_length=64)
