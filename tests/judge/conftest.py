"""A tiny policy and a byte tokenizer with a chat template, built on the spot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ["<pad>", "<end>", "<user>", "<assistant>"]
EOS, PAD = 1, 0


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    symbols = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({symbol: n for n, symbol in enumerate(symbols)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<end>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[2:],
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., Qwen2ForCausalLM]:
    """Builds a policy of random weights; a larger spread makes it more opinionated."""

    def make(seed: int = 0, spread: float = 0.3) -> Qwen2ForCausalLM:
        config = Qwen2Config(
            vocab_size=260,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=spread,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).eval()

    return make
