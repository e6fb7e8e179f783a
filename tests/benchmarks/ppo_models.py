"""Models of random weights and any size, for benchmarks: no training, no download, no meaning."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from string import ascii_lowercase

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

ABOUT_100M = {
    "vocab_size": 32_000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_key_value_heads": 4, "tie_word_embeddings": True,
}  # fmt: skip
"""100 million parameters, a quarter of them in the embedding."""

QWEN2_HALF_B = {
    "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"},
}  # fmt: skip
"""The sizes of Qwen2-0.5B: 494 million parameters."""

PAD, EOS = 0, 1
EOS_TOKEN = "<|endoftext|>"
"""What Qwen2's tokenizer class would add itself."""
SPACE = "Ġ"
"""How byte-level tokenizers write the space before a word."""
TEMPLATE = "{% for message in messages %} {{ message['content'].strip() }}{% endfor %}"


def make_models(folder: Path, sizes: dict[str, object], dtype: str, device: str) -> tuple[str, str]:
    """Folders of a causal model and of a reward model of these sizes, tokenizers included."""
    config = Qwen2Config(
        **sizes, max_position_embeddings=2048, pad_token_id=PAD, eos_token_id=EOS, num_labels=1,
        dtype=getattr(torch, dtype),
    )  # fmt: skip
    tokenizer = word_tokenizer(config.vocab_size)
    torch.manual_seed(0)
    names = []
    for kind in (Qwen2ForCausalLM, Qwen2ForSequenceClassification):
        with torch.device(device):
            model = kind(config).to(config.dtype)
        name = str(folder / kind.__name__)
        model.save_pretrained(name)
        tokenizer.save_pretrained(name)
        names.append(name)
        del model
    return names[0], names[1]


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose tokens are made-up words, each with the space before it.

    Words grow by one letter a merge, so what is decoded and encoded again has the same ids.
    """
    ids = {"<pad>": PAD, EOS_TOKEN: EOS}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        ids[byte] = len(ids)
    merges = list(islice(_merges(), vocabulary - len(ids)))
    for word, letter in merges:
        ids[word + letter] = len(ids)
    inner = Tokenizer(models.BPE(ids, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token=EOS_TOKEN, chat_template=TEMPLATE
    )


def _merges() -> Iterator[tuple[str, str]]:
    """Every word and the letter that makes it a longer one, shortest words first."""
    words = [SPACE]
    for word in words:  # it grows on the way
        for letter in ascii_lowercase:
            yield word, letter
            words.append(word + letter)


def write_prompts(path: Path, tokenizer_of: str, count: int, length: int) -> Path:
    """JSON lines with `count` prompts of `length` random words of the tokenizer in that folder."""
    words = AutoTokenizer.from_pretrained(tokenizer_of)
    draw = random.Random(0)
    first, last = EOS + 1 + 256, len(words) - 1
    prompts = [[draw.randint(first, last) for _ in range(length)] for _ in range(count)]
    rows = [{"input": words.decode(ids)} for ids in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
