"""Does an exported model compute what its checkpoint computes, from the same tokens?

Compared are the logits of fixed token sequences, and the tokens of a fixed chat.
"""

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

from easyds_tune.data.records import Conversation, assistant, user
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.errors import ExportError
from easyds_tune.models.load import ModelKind, context_length, load_tokenizer

LENGTHS = (1, 7, 16, 33)
"""Tokens of each compared sequence, where the model's context allows."""
CHAT = (
    user("What is a queue?"),
    assistant("First in, first out."),
    user("那栈呢？"),
    assistant("后进先出。"),
)


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


def refuse_other_text(folder: Path, trained: Encoder, trust_remote_code: bool) -> None:
    """ExportError unless the folder's tokenizer puts a chat into the tokens that training saw.

    trained: training's own encoder. The chat is encoded as this package does, and, where there is
    a template, as plain Transformers does.
    """
    tokenizer = load_tokenizer(str(folder), trust_remote_code=trust_remote_code)
    exported = Encoder(tokenizer, choose_template(tokenizer, None))
    wanted = trained.prompt_ids(CHAT[:-1])
    alike = (
        exported.prompt_ids(CHAT[:-1]) == wanted
        and exported.conversation(Conversation(CHAT)) == trained.conversation(Conversation(CHAT))
        and (exported.template.text is None) == (trained.template.text is None)
    )
    if alike and trained.template.text is not None:
        plain = tokenizer.apply_chat_template(
            list(CHAT[:-1]), add_generation_prompt=True, return_dict=False
        )
        alike = plain == wanted
    if not alike:
        raise ExportError(
            "the exported tokenizer must put a chat into the tokens that training saw, and it does "
            f"not (chat template from {trained.template.source}); nothing was kept"
        )


def adapter_gaps(model: PeftModel, weights: Path) -> list[str]:
    """Tensors of an adapter file that its base has no place for, and places it does not fill.

    PEFT only warns of them and goes on with a fresh adapter, which computes what the base does.
    """
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    with safe_open(weights, "pt") as file:
        found = set(file.keys())
    spare = {name for name in found - wanted if "lora_" in name}
    return sorted(wanted - found) + sorted(spare)
