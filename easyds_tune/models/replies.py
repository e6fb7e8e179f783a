"""Prompts with their replies as one batch, and the forward pass that sees just the replies.

All rows end in one column, so the last columns hold every reply position, the logits of all the
others need not be computed, and a row is padded for its whole length only, not for prompt and reply
apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from easyds_tune.models.generate import pad_left, unwrap


@dataclass(frozen=True, slots=True)
class ReplyBatch:
    """Rows of prompt and reply, padded on the left.

    B rows, L tokens of the longest row, T of the longest reply.
    """

    input_ids: Tensor
    """(B, L), int64."""
    attention_mask: Tensor
    """(B, L), 1 where a token is."""
    mask: Tensor
    """(B, T), True where a reply's token is: at the end of its row."""

    @property
    def tokens(self) -> Tensor:
        """The replies' tokens, (B, T)."""
        return self.input_ids[:, -self.mask.shape[1] :]


def reply_batch(
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    pad_token_id: int,
    device: torch.device,
) -> ReplyBatch:
    """Put prompts and their replies together; every reply has at least one token."""
    rows = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    input_ids, attention_mask = pad_left(rows, pad_token_id)
    lengths = torch.tensor([len(reply) for reply in replies])
    longest = int(lengths.max())
    mask = torch.arange(longest) >= longest - lengths[:, None]
    return ReplyBatch(input_ids.to(device), attention_mask.to(device), mask.to(device))


def reply_logits(model: nn.Module, batch: ReplyBatch) -> Tensor:
    """Logits that predict each reply's tokens, (B, T, vocabulary), in the model's own type."""
    causal_lm = unwrap(model)
    logits: Tensor = causal_lm(**forward_inputs(causal_lm, batch)).logits
    return kept(logits, batch)


def forward_inputs(causal_lm: nn.Module, batch: ReplyBatch) -> dict[str, Any]:
    """Arguments of the model's forward, as far as it knows them."""
    accepted = inspect.signature(type(causal_lm).forward).parameters
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "use_cache": False,
    }
    if "position_ids" in accepted:
        # Left padding must not shift positions, learned ones above all.
        inputs["position_ids"] = (batch.attention_mask.cumsum(dim=1) - 1).clamp_min(0)
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = batch.mask.shape[1] + 1
    return inputs


def kept(outputs: Tensor, batch: ReplyBatch) -> Tensor:
    """Of (B, columns, …) the columns that predict reply tokens; the last predicts beyond them."""
    return outputs[:, -batch.mask.shape[1] - 1 : -1]


def keeps_tail(model: nn.Module) -> bool:
    """Whether the model computes the logits of the last columns alone when asked to."""
    return "logits_to_keep" in inspect.signature(type(unwrap(model)).forward).parameters
