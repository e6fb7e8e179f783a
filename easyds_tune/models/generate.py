"""Replies to prompts: the one function behind which generation sits.

Random numbers are a function of (seed, prompt, place in the reply): the global random state plays
no part, and the batch a prompt sits in matters only as far as floating-point rounding does. There
are two ways to turn them into tokens of the same distribution.

Coupled draws are common random numbers (Glasserman, Monte Carlo Methods in Financial Engineering,
2003, section 7.1): the Gumbel noise on token v at place t of prompt i depends on (seed, i, t, v)
alone. Two policies are thus compared on the same luck, and policies that hardly differ write the
same replies but for a few tokens. Inverting the distribution function instead needs one number a
token rather than one for every token of the vocabulary, but there one tiny change of an early
token's probability shifts all that come after it: right for rollouts, which nobody compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from easyds_tune import progress


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are drawn."""

    max_new_tokens: int
    """Longest reply, in tokens, the end token included."""
    temperature: float = 1.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    """Only the likeliest tokens up to this total probability can be drawn."""
    seed: int | tuple[int, ...] = 0
    """Together with a prompt's index it fixes that prompt's random numbers."""
    coupled: bool = True
    """Draw so that similar policies write alike (the judge); off, drawing is several times
    cheaper (rollouts)."""
    batch_size: int = 32
    """Prompts a forward pass; changes memory and speed only."""


def generate(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
) -> list[list[int]]:
    """One reply per prompt, in the given order, with its end token where one was written.

    model: a causal language model, or a PEFT model around one, with its adapter on or off.
    Its training mode and generation settings are as before afterwards. Where several ranks hold
    shards of its weights (ZeRO-3), all of them call this with as many prompts.
    """
    causal_lm = unwrap(model)
    settings = _settings(sampling, eos_token_ids, pad_token_id)
    # Neighbours in length share a batch, which saves padding; the longest come first, so that
    # a batch too large for the memory fails at once.
    order = sorted(range(len(prompt_ids)), key=lambda index: -len(prompt_ids[index]))
    replies: dict[int, list[int]] = {}
    with torch.no_grad(), evaluating(model), _own_settings(causal_lm):
        for start in range(0, len(order), sampling.batch_size):
            batch = order[start : start + sampling.batch_size]
            input_ids, mask = pad_left([prompt_ids[index] for index in batch], pad_token_id)
            width = input_ids.shape[1]
            written = causal_lm.generate(
                input_ids=input_ids.to(causal_lm.device),
                attention_mask=mask.to(causal_lm.device),
                generation_config=settings,
                logits_processor=_processors(sampling, batch, width, causal_lm.device),
                # A rank whose replies have ended must still take part in gathering the weights.
                synced_gpus=_is_sharded_over_ranks(causal_lm),
            )
            for index, row in zip(batch, written[:, width:].tolist(), strict=True):
                replies[index] = _until_end(row, eos_token_ids)
            progress.made()
    return [replies[index] for index in range(len(prompt_ids))]


def end_token_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a reply: the tokenizer's, and those of the model's own settings."""
    declared = unwrap(model).generation_config.eos_token_id
    declared = [] if declared is None else declared
    declared = [declared] if isinstance(declared, int) else list(declared)
    return sorted({tokenizer.eos_token_id, *declared})


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The language model inside a PEFT model (its layers hold the adapter), else the model."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def without_adapter(model: PeftModel) -> Iterator[PeftModel]:
    """The model as its frozen base inside; afterwards exactly as before.

    PEFT switches the adapter's `requires_grad` when it disables or enables it, so that is put
    back weight by weight.
    """
    trainable = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        with model.disable_adapter():
            yield model
    finally:
        for weight, requires_grad in trainable:
            weight.requires_grad_(requires_grad)


def pad_left(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Rows of ids as `input_ids` and `attention_mask`, each (rows, longest), aligned at the end."""
    width = max(map(len, rows))
    ids = [[pad_token_id] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def noise_keys(seed: int | tuple[int, ...], prompt_index: int, count: int) -> numpy.ndarray:
    """`count` 64-bit keys of this prompt, int64; a longer request continues a shorter one."""
    parts = (seed,) if isinstance(seed, int) else seed
    # Philox's stream is fixed by NumPy's compatibility promise, default_rng's choice is not.
    bits = numpy.random.Philox(numpy.random.SeedSequence([*parts, prompt_index]))
    return bits.random_raw(count).view(numpy.int64)


def gumbel_noise(keys: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel numbers that depend on a key and a token id alone; (batch, vocabulary).

    keys: (batch,), int64. Token v of a row gets the v-th output of SplitMix64 started at its key
    (Steele, Lea and Flood, OOPSLA 2014), on whatever device the keys are; float64.
    """
    tokens = torch.arange(1, vocabulary + 1, device=keys.device)
    state = keys[:, None] + tokens * _signed(0x9E3779B97F4A7C15)  # int64 wraps around, as wanted
    state = (state ^ _shifted(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shifted(state, 27)) * _signed(0x94D049BB133111EB)
    return _gumbel(state ^ _shifted(state, 31))


def draw(scores: Tensor, keys: Tensor) -> Tensor:
    """A token of softmax(scores) for each row, the one its key decides; shape (batch,).

    scores: (batch, vocab); keys: (batch,), int64. The Gumbel-max trick.
    """
    return (scores + gumbel_noise(keys, scores.shape[1])).argmax(dim=-1)


def draw_by_inversion(scores: Tensor, keys: Tensor) -> Tensor:
    """As `draw`, by one uniform number a row: the token whose share of [0, 1) it falls in."""
    # In float32 the sums over a large vocabulary would lose its rare tokens.
    upper = scores.softmax(dim=-1, dtype=torch.float32).cumsum(dim=-1, dtype=torch.float64)
    # 48 bits and a half: the product stays below the total, which is not exactly 1.
    uniform = (_shifted(keys, 16).double() + 0.5) * 2.0**-48
    # The first sum above the number: never that of a token without probability.
    token = torch.searchsorted(upper, uniform[:, None] * upper[:, -1:], right=True)
    # No sum is above it where the scores are not finite; whoever looks at them will say so.
    return token.squeeze(1).clamp_max(scores.shape[1] - 1)


def _gumbel(bits: Tensor) -> Tensor:
    """Uniform int64 bits as standard Gumbel numbers, float64, always finite."""
    # 52 bits and a half fill the 53 of a double: never 0, and never rounded up to 1.
    uniform = (_shifted(bits, 12).double() + 0.5) * 2.0**-52
    return -(-uniform.log()).log()


def _signed(constant: int) -> int:
    return constant - 2**64


def _shifted(bits: Tensor, count: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


class _Drawn(LogitsProcessor):
    """Leaves one token per row possible, the drawn one, so that greedy decoding takes it."""

    def __init__(self, keys: Tensor, prompt_width: int, coupled: bool) -> None:
        """keys: (batch, max_new_tokens)."""
        self.keys = keys
        self.prompt_width = prompt_width
        self.draw = draw if coupled else draw_by_inversion

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self.draw(scores, self.keys[:, input_ids.shape[1] - self.prompt_width])
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def _processors(
    sampling: Sampling, prompt_indices: Sequence[int], prompt_width: int, device: torch.device
) -> LogitsProcessorList:
    if sampling.temperature == 0:
        return LogitsProcessorList()
    processors = LogitsProcessorList()
    if sampling.temperature != 1:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    keys = numpy.stack(
        [noise_keys(sampling.seed, index, sampling.max_new_tokens) for index in prompt_indices]
    )
    processors.append(
        _Drawn(torch.from_numpy(keys).to(device), prompt_width, coupled=sampling.coupled)
    )
    return processors


def _is_sharded_over_ranks(model: PreTrainedModel) -> bool:
    """Whether a forward pass gathers weights from other ranks (ZeRO-3, not gathered already)."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return False
    return any(
        hasattr(weight, "ds_numel") and weight.numel() < weight.ds_numel
        for weight in model.parameters()
    )


def _settings(
    sampling: Sampling, eos_token_ids: Sequence[int], pad_token_id: int
) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=list(eos_token_ids),
        pad_token_id=pad_token_id,
    )


@contextmanager
def _own_settings(model: PreTrainedModel) -> Iterator[None]:
    """Hides the model's generation settings and its router logits inside.

    What a call leaves open is filled in from the settings: a repetition penalty there would change
    the policy that is judged. TRL switches a mixture of experts' router logits on for training;
    with them a cached step computes a load-balancing loss, whose mask does not fit.
    """
    settings, config = model.generation_config, model.config.get_text_config()
    routers = getattr(config, "output_router_logits", None)
    model.generation_config = GenerationConfig()
    if routers:
        config.output_router_logits = False
    try:
        yield
    finally:
        model.generation_config = settings
        if routers:
            config.output_router_logits = routers


def _until_end(row: list[int], eos_token_ids: Sequence[int]) -> list[int]:
    for position, token in enumerate(row):
        if token in eos_token_ids:
            return row[: position + 1]
    return row
