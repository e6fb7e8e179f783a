"""Tiny real models, tokenizers and checkpoint folders for the tests of deploy."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    DebertaV2Config,
    DebertaV2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from easyds_tune.deploy.card import ModelCard
from easyds_tune.trial.checkpoint import write_checkpoint

SPECIAL = ["<|end|>", "<|pad|>"]


def byte_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """One token a byte, an end token and a padding token: 258 in all."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({name: i for i, name in enumerate(letters + SPECIAL)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def qwen_config(**changes: object) -> Qwen2Config:
    """A Qwen2 of two layers, 32 wide."""
    settings = {
        "vocab_size": 258, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "eos_token_id": 256, "pad_token_id": None, "initializer_range": 0.2,
    }  # fmt: skip
    return Qwen2Config(**(settings | changes))


def causal_base(folder: Path, dtype: torch.dtype = torch.float32, **changes: object) -> Path:
    """A language model on disk, with its tokenizer."""
    torch.manual_seed(0)
    return _saved(Qwen2ForCausalLM(qwen_config(**changes)).to(dtype), folder)


def encoder_base(folder: Path) -> Path:
    """A DeBERTa without any head on disk: a classifier draws its pooler at random."""
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, type_vocab_size=0,
    )  # fmt: skip
    return _saved(DebertaV2Model(config), folder)


def _saved(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def adapter_checkpoint(folder: Path, model: PreTrainedModel, task: str, size: float = 0.1) -> Path:
    """A LoRA checkpoint as a trial writes it, with weights of about `size` that do something."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type=task)
    torch.manual_seed(1)
    with_adapter = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in with_adapter.named_parameters():
            if weight.requires_grad and "lora_A" not in name:
                weight.copy_(torch.randn_like(weight) * size)
    return checkpoint_of(folder, with_adapter)


def checkpoint_of(folder: Path, model: PreTrainedModel | PeftModel) -> Path:
    """A checkpoint of step 30, with an optimizer's state beside the weights."""

    def save(unfinished: Path) -> None:
        model.save_pretrained(unfinished)
        (unfinished / "README.md").unlink(missing_ok=True)
        (unfinished / "trainer").mkdir()
        torch.save({"state": torch.zeros(8)}, unfinished / "trainer" / "optimizer.pt")

    return write_checkpoint(folder, "003", 30, save).path


def reward_model(base: Path) -> Qwen2ForSequenceClassification:
    """A scalar head on a language model, as a reward trial starts from it."""
    model = Qwen2ForSequenceClassification.from_pretrained(base, num_labels=1)
    model.config.pad_token_id = 257
    return model


CARD = ModelCard(
    sweep="quickstart",
    algorithm="dpo",
    trial="003",
    step=30,
    params={"algorithm.beta": 0.05, "model.lora_target_modules": ["q_proj", "v_proj"]},
    metrics={"eval/reward": 1.25, "eval/reward_stderr": 0.1, "eval/kl": 0.04},
    data_hash="ab" * 32,
    bounds={"eval/kl": (None, 0.1)},
)
