"""KL(policy ‖ reference) over replies, from the full distributions, in nats at temperature 1.

A reply position is one that predicts a token of the reply, the end token included. The sampled
estimate k1 = log p(token) - log q(token) stands beside the full sum: same expectation where
replies were drawn at temperature 1, more noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from easyds_tune import progress
from easyds_tune.models.generate import evaluating, unwrap
from easyds_tune.models.replies import keeps_tail, reply_batch, reply_logits

Reference = Callable[[], AbstractContextManager[nn.Module]]
"""`with reference() as model:` gives the model to compare with; for LoRA that is
`lambda: without_adapter(policy)`."""

MAX_LOGITS = 2**26
"""Logits that one forward pass may return, per model (one row of prompts at the least)."""

MAX_LOG_PROBS = 2**20
"""Log-probabilities in float32 at a time, per model; small enough to stay in the cache."""


class ReplyKL(NamedTuple):
    """Sums over each reply's positions, in nats; each of shape (replies,), float64, on the CPU."""

    full: Tensor
    k1: Tensor


def token_kl(policy_logits: Tensor, reference_logits: Tensor, tokens: Tensor) -> ReplyKL:
    """Full KL and k1 at each position.

    logits: (positions, vocab); tokens: (positions,), what was drawn. Both results (positions,).
    A token that the policy cannot draw adds nothing, whatever the reference says.
    """
    log_p = policy_logits.float().log_softmax(dim=-1)
    log_q = reference_logits.float().log_softmax(dim=-1)
    p = log_p.exp()
    terms = torch.where(p == 0, 0.0, p * (log_p - log_q))
    drawn = tokens[:, None]
    k1 = log_p.gather(-1, drawn) - log_q.gather(-1, drawn)
    # KL is never negative; what is left of rounding is cut off. NaN passes through.
    return ReplyKL(terms.sum(dim=-1).clamp_min(0.0), k1.squeeze(-1))


def reply_kl(
    policy: nn.Module,
    reference: Reference,
    prompt_ids: Sequence[Sequence[int]],
    reply_ids: Sequence[Sequence[int]],
    *,
    pad_token_id: int,
    batch_size: int = 32,
) -> ReplyKL:
    """KL and k1 summed over each reply, in the given order.

    Every reply has at least one token. Memory: the logits of both models for as many rows as stay
    under MAX_LOGITS each (and batch_size), plus about ten float32 blocks of MAX_LOG_PROBS.
    """
    # Rows of one length share a batch: less padding.
    order = sorted(
        range(len(prompt_ids)), key=lambda index: -len(prompt_ids[index]) - len(reply_ids[index])
    )
    full = torch.zeros(len(order), dtype=torch.float64)
    k1 = torch.zeros(len(order), dtype=torch.float64)
    vocab = unwrap(policy).config.get_text_config().vocab_size
    has_tail = keeps_tail(policy)
    start = 0
    with torch.no_grad(), evaluating(policy):
        while start < len(order):
            rows = order[start : start + batch_size]
            width = max(len(reply_ids[index]) for index in rows) + 1
            if not has_tail:
                width += max(len(prompt_ids[index]) for index in rows)
            rows = rows[: max(1, MAX_LOGITS // (width * vocab))]
            sums = _batch_kl(
                policy,
                reference,
                [prompt_ids[index] for index in rows],
                [reply_ids[index] for index in rows],
                pad_token_id,
            )
            full[rows], k1[rows] = sums.full, sums.k1
            start += len(rows)
            progress.made()
    return ReplyKL(full, k1)


def _batch_kl(
    policy: nn.Module,
    reference: Reference,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    pad_token_id: int,
) -> ReplyKL:
    """`reply_kl` of rows that fit in one forward pass."""
    batch = reply_batch(prompts, replies, pad_token_id, unwrap(policy).device)
    policy_logits = reply_logits(policy, batch)
    with reference() as model, evaluating(model):
        reference_logits = reply_logits(model, batch)

    row, column = batch.mask.nonzero(as_tuple=True)
    tokens = batch.tokens[row, column]
    block = max(1, MAX_LOG_PROBS // policy_logits.shape[-1])
    pieces = [
        token_kl(
            policy_logits[row[at : at + block], column[at : at + block]],
            reference_logits[row[at : at + block], column[at : at + block]],
            tokens[at : at + block],
        )
        for at in range(0, len(tokens), block)
    ]
    # Summed on the CPU: in a fixed order, which a GPU's atomics do not promise.
    sums = torch.zeros(2, len(prompts), dtype=torch.float64)
    sums[0].index_add_(0, row.cpu(), torch.cat([piece.full for piece in pieces]).cpu().double())
    sums[1].index_add_(0, row.cpu(), torch.cat([piece.k1 for piece in pieces]).cpu().double())
    return ReplyKL(sums[0], sums[1])
