"""Tiny random models of many architectures, with the tutor's tokenizer of 2,048 tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

TUTOR = Path(__file__).parents[2] / "data" / "models" / "tiny-tutor"

USUAL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
WRITERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "opt": {
        "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "word_embed_proj_dim": 32, "max_position_embeddings": 512,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "llama": USUAL,
    "mistral": USUAL,
    "gemma2": USUAL | {"head_dim": 8},
    "phi3": USUAL,
    "qwen3_moe": USUAL | {
        "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8,
    },
    "glm4": USUAL | {"head_dim": 8},
}  # fmt: skip
"""Model type -> the sizes of a language model."""
ENCODERS: dict[str, dict[str, Any]] = {
    "deberta-v2": {name: USUAL[name] for name in USUAL if name != "num_key_value_heads"},
    "roberta": {name: USUAL[name] for name in USUAL if name != "num_key_value_heads"},
}
"""Model type -> the sizes of an encoder that a reward model is trained on."""


def small_model(kind: str, folder: Path) -> Path:
    """The folder of a random model of one architecture."""
    torch.manual_seed(0)
    sizes = WRITERS.get(kind) or ENCODERS[kind]
    config = AutoConfig.for_model(
        kind, **sizes, vocab_size=2048, bos_token_id=None, eos_token_id=2, pad_token_id=0,
        num_labels=1,
    )  # fmt: skip
    auto = AutoModelForCausalLM if kind in WRITERS else AutoModelForSequenceClassification
    auto.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TUTOR).save_pretrained(folder)
    return folder
