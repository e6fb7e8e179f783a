"""KL of replies: by hand, against the naive formula, and blind to how the work is cut up."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2ForCausalLM

from easyds_tune.models import kl as kl_module
from easyds_tune.models.generate import Sampling, generate, without_adapter
from easyds_tune.models.kl import ReplyKL, reply_kl, token_kl

PAD = 0
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]
REPLIES = [[20, 21, 1], [22, 23, 24, 25, 26], [1], [27, 28, 29, 1]]

MakePolicy = Callable[..., Qwen2ForCausalLM]


def log(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities]).log()


def naive(policy: nn.Module, reference: nn.Module) -> ReplyKL:
    """One sequence at a time, unpadded, the formula as it is written down, in float64."""
    full, k1 = [], []
    for prompt, reply in zip(PROMPTS, REPLIES, strict=True):
        ids = torch.tensor([prompt + reply])
        with torch.no_grad():
            log_p, log_q = (
                model(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
                for model in (policy, reference)
            )
        at = range(len(reply)), reply
        full.append((log_p.exp() * (log_p - log_q)).sum())
        k1.append((log_p[at] - log_q[at]).sum())
    return ReplyKL(torch.stack(full), torch.stack(k1))


def measured(policy: nn.Module, reference: nn.Module, **options: int) -> ReplyKL:
    return reply_kl(
        policy, lambda: nullcontext(reference), PROMPTS, REPLIES, pad_token_id=PAD, **options
    )


def assert_equal_kl(actual: ReplyKL, expected: ReplyKL) -> None:
    torch.testing.assert_close(actual.full, expected.full, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(actual.k1, expected.k1, atol=2e-6, rtol=1e-5)


def test_two_tokens_by_hand() -> None:
    # KL = 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4) = 1/2 ln(4/3); k1 = ln 2 for token 0
    result = token_kl(log(0.5, 0.5), log(0.25, 0.75), torch.tensor([0]))
    assert result.full.item() == pytest.approx(0.5 * math.log(4 / 3))
    assert result.k1.item() == pytest.approx(math.log(2))


def test_k1_may_be_negative_where_the_full_kl_is_not() -> None:
    result = token_kl(log(0.5, 0.5), log(0.25, 0.75), torch.tensor([1]))
    assert result.k1.item() == pytest.approx(math.log(2 / 3))
    assert result.full.item() > 0


def test_a_token_the_policy_cannot_draw_adds_nothing() -> None:
    # 1 · ln(1 / (1/2)), and nothing from the other two
    result = token_kl(log(1.0, 0.0, 0.0), log(0.5, 0.5, 0.0), torch.tensor([0]))
    assert result.full.item() == pytest.approx(math.log(2))


def test_a_token_the_reference_cannot_draw_costs_infinitely_much() -> None:
    assert token_kl(log(0.5, 0.5), log(1.0, 0.0), torch.tensor([0])).full.item() == math.inf


def test_nan_is_not_hidden() -> None:
    assert token_kl(log(math.nan, 0.5), log(0.5, 0.5), torch.tensor([0])).full.isnan().all()


def test_rounding_never_makes_the_kl_negative() -> None:
    torch.manual_seed(0)
    logits = torch.randn(200, 1000) * 4
    nearly = logits + 1e-6 * torch.randn_like(logits)
    assert (token_kl(logits, nearly, torch.zeros(200, dtype=torch.long)).full >= 0).all()


def test_equal_models_have_a_kl_of_exactly_zero(make_policy: MakePolicy) -> None:
    policy = make_policy()
    result = measured(policy, copy.deepcopy(policy))
    assert result.full.tolist() == [0.0] * 4
    assert result.k1.tolist() == [0.0] * 4


def test_the_kl_is_the_naive_formulas(make_policy: MakePolicy) -> None:
    policy, reference = make_policy(0), make_policy(1)
    expected = naive(policy, reference)
    assert expected.full.min() > 0.1
    assert_equal_kl(measured(policy, reference), expected)


def test_learned_positions_are_not_shifted_by_padding() -> None:
    config = GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    torch.manual_seed(0)
    policy, reference = (GPT2LMHeadModel(config).eval() for _ in range(2))
    for model in (policy, reference):
        nn.init.normal_(model.transformer.wpe.weight)
    assert_equal_kl(measured(policy, reference), naive(policy, reference))


class FullLogits(Qwen2ForCausalLM):
    """A model of the old kind: its forward can only return the logits of every position."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Any:
        return super().forward(input_ids, attention_mask, use_cache=use_cache)


@pytest.mark.parametrize("limit", [1, 260 * 12, 260 * 40])
def test_how_the_work_is_cut_up_does_not_matter(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    policy, reference = make_policy(0), make_policy(1)
    expected = naive(policy, reference)
    monkeypatch.setattr(kl_module, "MAX_LOGITS", limit)
    monkeypatch.setattr(kl_module, "MAX_LOG_PROBS", limit)
    assert_equal_kl(measured(policy, reference), expected)
    assert_equal_kl(measured(policy, reference, batch_size=3), expected)
    old = FullLogits(policy.config).eval()
    old.load_state_dict(policy.state_dict())
    assert_equal_kl(measured(old, reference), expected)


def test_a_forward_returns_no_more_logits_than_allowed(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, reference = make_policy(0), make_policy(1)
    sizes: list[int] = []
    for model in (policy, reference):
        model.lm_head.register_forward_hook(lambda _m, _i, logits: sizes.append(logits.numel()))
    limit = 260 * 12
    monkeypatch.setattr(kl_module, "MAX_LOGITS", limit)
    measured(policy, reference)
    # The longest reply has 5 tokens: 6 columns, so two rows at a time.
    assert 0.5 * limit <= max(sizes) <= limit


def adapted(base: Qwen2ForCausalLM, *, trained: bool) -> PeftModel:
    torch.manual_seed(3)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1, init_lora_weights=not trained
    )
    return get_peft_model(base, config)


def test_a_fresh_adapter_has_a_kl_of_exactly_zero_to_its_base(make_policy: MakePolicy) -> None:
    policy = adapted(make_policy(), trained=False)
    policy.train()
    result = reply_kl(policy, lambda: without_adapter(policy), PROMPTS, REPLIES, pad_token_id=PAD)
    assert result.full.tolist() == [0.0] * 4
    assert result.k1.tolist() == [0.0] * 4


def test_an_adapters_kl_is_that_to_a_separate_base(make_policy: MakePolicy) -> None:
    policy = adapted(make_policy(), trained=True)
    policy.train()
    state = [(weight.requires_grad, weight.clone()) for weight in policy.parameters()]
    result = reply_kl(policy, lambda: without_adapter(policy), PROMPTS, REPLIES, pad_token_id=PAD)
    assert result.full.min() > 1e-4
    assert policy.training
    for weight, (requires_grad, before) in zip(policy.parameters(), state, strict=True):
        assert weight.requires_grad is requires_grad
        assert torch.equal(weight, before)
    policy.eval()
    assert_equal_kl(result, naive(policy, make_policy()))


def test_the_reference_may_be_lent_for_the_moment_only(make_policy: MakePolicy) -> None:
    policy, reference = make_policy(0), make_policy(1)
    lent: list[str] = []

    @contextmanager
    def lend() -> Iterator[nn.Module]:
        lent.append("out")
        yield reference
        lent.append("back")

    reply_kl(policy, lend, PROMPTS, REPLIES, pad_token_id=PAD, batch_size=2)
    assert lent == ["out", "back"] * 2


def test_k1_of_drawn_replies_averages_to_the_full_kl(make_policy: MakePolicy) -> None:
    policy, reference = make_policy(0, 0.15), make_policy(1, 0.15)
    prompts = PROMPTS * 100
    replies = generate(policy, prompts, Sampling(10), eos_token_ids=[1], pad_token_id=PAD)
    kl = reply_kl(
        policy, lambda: nullcontext(reference), prompts, replies, pad_token_id=PAD, batch_size=400
    )
    error = (kl.k1 - kl.full).std() / len(prompts) ** 0.5
    assert abs((kl.k1 - kl.full).mean()) < 4 * error
    assert 4 * error < 0.25 * kl.full.mean()
