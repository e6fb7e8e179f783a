"""Load a base model and its tokenizer, or say plainly why they do not load."""

from __future__ import annotations

import os
from typing import Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from easyds_tune.errors import ModelError
from easyds_tune.spec.model import ModelSpec

ModelKind = Literal["causal", "reward"]


def expand_home(name: str) -> str:
    """A model's name with a leading `~` as the home folder; any other name as it is."""
    return os.path.expanduser(name)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch type of a spec's `dtype`; `auto` is bfloat16 on a GPU that has it, else float32."""
    if dtype != "auto":
        return getattr(torch, dtype)
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def load_tokenizer(
    name: str, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub name, with a padding token.

    Raises ModelError where there is none, or where it has no end-of-sequence token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            expand_home(name), revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # Transformers raises many classes here, all of them about input
        raise ModelError([f"{name}: its tokenizer does not load: {why_not(error)}"]) from error
    if tokenizer.eos_token_id is None:
        raise ModelError([f"{name}: the tokenizer has no eos_token; replies could never end"])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(spec: ModelSpec, kind: ModelKind, device: torch.device) -> PreTrainedModel:
    """The base model of a spec on `device`, in evaluation mode.

    kind: `causal` writes text; `reward` has one scalar output (a fresh head where the folder
    holds a language model). Raises ModelError where it does not load.
    """
    return load_with_fresh(spec, kind, device)[0]


def load_with_fresh(
    spec: ModelSpec, kind: ModelKind, device: torch.device
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """As `load_model`, with the names of the modules whose weights no file holds.

    They are drawn from a fixed seed: each load gives the same bits.
    """
    options = {
        "dtype": resolve_dtype(spec.dtype, device),
        "revision": spec.revision,
        "trust_remote_code": spec.trust_remote_code,
        "attn_implementation": spec.attn_implementation,
    }
    name = spec.model_name_or_path
    try:
        if kind == "reward":
            auto = AutoModelForSequenceClassification
            options["num_labels"] = 1
        else:
            auto = AutoModelForCausalLM
        # Fresh weights are drawn from the global generator: fix it, so that all workers agree.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, loading = auto.from_pretrained(
                expand_home(name), output_loading_info=True, **options
            )
    except Exception as error:
        raise ModelError([f"{name}: the model does not load: {why_not(error)}"]) from error
    missing = sorted(loading["missing_keys"])
    if kind == "causal" and missing:
        raise ModelError(
            [
                f"{name}: must hold all of its weights, and {len(missing)} would be random, the "
                f"first is {missing[0]}; fetch it again, or save it whole"
            ]
        )
    fresh = tuple(sorted({key.rpartition(".")[0] for key in missing}))
    return model.to(device).eval(), fresh


def load_skeleton(
    spec: ModelSpec, kind: ModelKind, attention: str | None = None
) -> PreTrainedModel:
    """The model's modules without their weights (meta device), to check names and sizes.

    attention: as `ModelSpec.attn_implementation`. Raises ModelError where the configuration does
    not load, or the model cannot have this attention.
    """
    auto = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(
            expand_home(spec.model_name_or_path),
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            **({"num_labels": 1} if kind == "reward" else {}),
        )
        with torch.device("meta"):
            return auto.from_config(
                config,
                trust_remote_code=spec.trust_remote_code,
                attn_implementation=attention,
            )
    except Exception as error:
        raise ModelError(
            [f"{spec.model_name_or_path}: the model does not load: {why_not(error)}"]
        ) from error


def context_length(model: PreTrainedModel) -> int | None:
    """Tokens the model has positions for; None where its configuration does not say.

    RoBERTa and its kin number positions from their padding index + 1, so they take that many
    tokens fewer than they have positions.
    """
    config = model.config.get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None:
        positions = getattr(config, "max_seq_len", None)
    if positions is None:
        return None
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if padding is not None and name.rpartition(".")[2] == "position_embeddings":
            return positions - padding - 1
    return positions


def why_not(error: Exception) -> str:
    """The first line of a loading error, with the remedy where a model's own code must run."""
    text = str(error).strip() or type(error).__name__
    if "trust_remote_code" in text:
        return (
            "it needs Python code of its own; read that code, then set trust_remote_code: true "
            "beside its name"
        )
    return text.splitlines()[0]
