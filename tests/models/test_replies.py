"""Prompts and replies in one batch give each row what a pass of its own gives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2ForCausalLM

from easyds_tune.models.replies import keeps_tail, kept, reply_batch, reply_logits

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8], [9], [10, 11, 12]]
REPLIES = [[20], [21, 22, 23, 24, 25, 1], [26, 1]]


def test_rows_end_in_one_column() -> None:
    batch = reply_batch([[5, 6, 7], [9]], [[20], [21, 22]], 0, CPU)
    assert batch.input_ids.tolist() == [[5, 6, 7, 20], [0, 9, 21, 22]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]
    assert batch.mask.tolist() == [[False, True], [True, True]]
    assert batch.tokens.tolist() == [[7, 20], [21, 22]]


def test_a_padding_token_inside_a_reply_is_a_token() -> None:
    """Some models pad with their end token."""
    batch = reply_batch([[1, 5], [6]], [[1, 7, 1], [1]], 1, CPU)
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert batch.mask.tolist() == [[True, True, True], [False, False, True]]


def test_what_is_kept_predicts_the_replys_tokens() -> None:
    """Column c predicts the token of column c + 1, so the last column predicts nothing here."""
    batch = reply_batch([[5, 6, 7]], [[20, 21]], 0, CPU)
    columns = torch.arange(5)[None]
    assert kept(columns, batch).tolist() == [[2, 3]]
    assert kept(columns[:, -3:], batch).tolist() == [[2, 3]]  # where only the tail was computed


def learned_positions() -> GPT2LMHeadModel:
    """A model that would notice were positions shifted by padding."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(params=["qwen2", "gpt2"])
def model(
    request: pytest.FixtureRequest, make_policy: Callable[..., Qwen2ForCausalLM]
) -> nn.Module:
    return make_policy() if request.param == "qwen2" else learned_positions()


@torch.no_grad()
def test_logits_are_those_of_each_row_alone(model: nn.Module) -> None:
    batch = reply_batch(PROMPTS, REPLIES, 0, CPU)
    logits = reply_logits(model, batch)
    assert logits.shape[:2] == batch.mask.shape
    for row, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
        alone: Tensor = model(input_ids=torch.tensor([prompt + reply])).logits[0]
        wanted = alone[len(prompt) - 1 : -1]
        torch.testing.assert_close(logits[row, batch.mask[row]], wanted, rtol=1e-5, atol=1e-5)


def test_columns_before_a_short_row_are_finite_and_so_is_the_gradient(model: nn.Module) -> None:
    """A row of 2 tokens beside one of 7: four of its kept columns are padding through and through.

    Were they NaN, the loss could leave them out and its gradient still not.
    """
    batch = reply_batch([[9], [10]], [[20], [21, 22, 23, 24, 25, 1]], 0, CPU)
    logits = reply_logits(model, batch)
    assert logits.isfinite().all()
    loss = torch.where(batch.mask, logits.logsumexp(dim=-1), 0.0).sum()
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_logits_of_the_prompt_are_not_computed_where_the_model_can_leave_them_out(
    make_policy: Callable[..., Qwen2ForCausalLM],
) -> None:
    policy = make_policy()
    assert keeps_tail(policy)
    seen: list[int] = []
    policy.lm_head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0].shape[1]))
    reply_logits(policy, reply_batch([[5] * 40], [[20, 21]], 0, CPU))
    assert seen == [3]  # two that predict the reply, one that predicts beyond it
