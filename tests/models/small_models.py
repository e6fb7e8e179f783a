"""Tiny models of random weights on disk, with a byte tokenizer made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SPECIAL = ["[PAD]", "[CLS]", "[SEP]"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, wrapped in [CLS] and [SEP] as encoders want it: 259 in all."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({name: n for n, name in enumerate(SPECIAL + letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[SEP]",
    )  # fmt: skip


SIZES = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip


def deberta(folder: Path) -> Path:
    """An encoder as published: no classifier and no pooler."""
    torch.manual_seed(0)
    return saved(DebertaV2Model(DebertaV2Config(**SIZES, type_vocab_size=0)), folder)


def bert(folder: Path) -> Path:
    """A masked language model: its own head is of no use, classifier and pooler are missing."""
    torch.manual_seed(0)
    return saved(BertForMaskedLM(BertConfig(**SIZES)), folder)


def qwen(folder: Path) -> Path:
    """A decoder that writes text."""
    torch.manual_seed(0)
    config = Qwen2Config(**SIZES, num_key_value_heads=2, eos_token_id=2)
    return saved(Qwen2ForCausalLM(config), folder)


def saved(model: PreTrainedModel, folder: Path) -> Path:
    """The folder of a model with its tokenizer."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
