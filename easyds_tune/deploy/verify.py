"""Does an exported model compute what its checkpoint computes? Logits of fixed token sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from easyds_tune.models.load import ModelKind, context_length

LENGTHS = (1, 7, 16, 33)
"""Tokens of each compared sequence, where the model's context allows."""


def compared_sequences(model: PreTrainedModel) -> list[list[int]]:
    """Token sequences that depend on the model's vocabulary and context alone.

    They step through the vocabulary by a large prime, so that few embeddings are met twice.
    """
    vocabulary = model.config.get_text_config().vocab_size
    room = context_length(model) or max(LENGTHS)
    return [
        [(1 + 31 * row + 7919 * place) % vocabulary for place in range(min(length, room))]
        for row, length in enumerate(LENGTHS)
    ]


@torch.no_grad()
def logits(model: nn.Module, sequences: list[list[int]]) -> list[Tensor]:
    """Logits of each sequence in float32: (1, tokens, vocabulary), or (1, 1) of a reward model.

    One sequence at a time, so that no padding takes part.
    """
    model.train(False)
    return [model(input_ids=torch.tensor([sequence])).logits.float() for sequence in sequences]


def largest_difference(got: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest absolute difference of two lists of logits; NaN where either holds one."""
    pairs = zip(got, wanted, strict=True)
    return torch.stack([(left - right).abs().max() for left, right in pairs]).max().item()


def rms_difference(got: list[Tensor], wanted: list[Tensor]) -> float:
    """The root mean square difference of two lists of logits."""
    differences = [(left - right).flatten() for left, right in zip(got, wanted, strict=True)]
    return torch.cat(differences).pow(2).mean().sqrt().item()


def load_as_stranger(name: str, kind: ModelKind, **options: Any) -> PreTrainedModel:
    """Load a model as someone does who has only its folder or name: plain Transformers.

    options: of `from_pretrained`. Weights that the folder lacks are drawn at random, from another
    seed than this package's own, so that a comparison notices them.
    """
    auto = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20_241)
        model: PreTrainedModel = auto.from_pretrained(name, **options)
    model.train(False)
    return model


def adapter_gaps(model: PeftModel, weights: Path) -> list[str]:
    """Tensors of an adapter file that its base has no place for, and places it does not fill.

    PEFT only warns of them and goes on with a fresh adapter, which computes what the base does.
    """
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    with safe_open(weights, "pt") as file:
        found = set(file.keys())
    spare = {name for name in found - wanted if "lora_" in name}
    return sorted(wanted - found) + sorted(spare)
