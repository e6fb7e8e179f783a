"""PPO's formulas with numbers worked out by hand; the comments show the sums."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from easyds_tune.algorithms.ppo_math import (
    RunningMoments,
    gae,
    grpo,
    kl_penalty,
    masked_mean,
    masked_whiten,
    policy_loss,
    rloo,
    shaped_rewards,
    token_entropy,
    value_loss,
)

NAN, INF = math.nan, math.inf

# Two replies of 3 and 1 tokens. A reply may stand anywhere in its row; the loop puts it at the end.
RIGHT = torch.tensor([[True, True, True], [False, False, True]])
LEFT = torch.tensor([[True, True, True], [True, False, False]])


def near(values: Tensor, wanted: Sequence[object]) -> None:
    torch.testing.assert_close(values, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


# ---- means ----------------------------------------------------------------------------------


def test_a_masked_mean_counts_the_tokens_of_replies_alone() -> None:
    values = torch.tensor([[1.0, 2.0, 6.0], [NAN, INF, 3.0]])
    near(masked_mean(values, RIGHT), 3.0)  # (1 + 2 + 6 + 3) / 4


def test_the_parts_of_a_mini_batch_add_up_to_its_mean() -> None:
    """The mini-batch has 4 tokens, 3 in one part and 1 in the other: 9 / 4 + 3 / 4."""
    values = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    parts = [masked_mean(values[row : row + 1], RIGHT[row : row + 1], 4) for row in (0, 1)]
    near(torch.stack(parts), [2.25, 0.75])
    near(sum(parts), masked_mean(values, RIGHT).item())


def test_whitened_values_have_mean_0_and_variance_1_over_the_mask() -> None:
    # Of 1, 2, 6, 3 the mean is 3 and the unbiased variance (4 + 1 + 9 + 0) / 3.
    values = torch.tensor([[1.0, 2.0, 6.0], [NAN, INF, 3.0]])
    spread = math.sqrt(14 / 3)
    near(masked_whiten(values, RIGHT), [[-2 / spread, -1 / spread, 3 / spread], [0.0, 0.0, 0.0]])


def test_whitening_values_that_are_all_alike_gives_zeros() -> None:
    near(masked_whiten(torch.full((2, 3), 7.0), RIGHT), [[0.0] * 3] * 2)
    near(masked_whiten(torch.full((1, 1), 7.0), torch.ones(1, 1).bool()), [[0.0]])


# ---- KL estimators --------------------------------------------------------------------------


def test_the_estimators_at_a_token_twice_as_likely_under_the_policy() -> None:
    # log-ratio ln 2: k1 = ln 2; k2 = ln² 2 / 2; k3 = 1/2 - 1 + ln 2.
    log_p, log_q = torch.tensor([[0.5]]).log(), torch.tensor([[0.25]]).log()
    near(kl_penalty(log_p, log_q, "k1"), [[0.6931472]])
    near(kl_penalty(log_p, log_q, "k2"), [[0.2402265]])
    near(kl_penalty(log_p, log_q, "k3"), [[0.1931472]])


def test_k1_can_be_negative_and_k3_never_is() -> None:
    # log-ratio -ln 2: k1 = -ln 2; k3 = 2 - 1 - ln 2.
    log_p, log_q = torch.tensor([[0.25]]).log(), torch.tensor([[0.5]]).log()
    near(kl_penalty(log_p, log_q, "k1"), [[-0.6931472]])
    near(kl_penalty(log_p, log_q, "k3"), [[0.3068528]])


def test_k1_and_k3_are_unbiased_and_k2_is_nearly_so() -> None:
    """Expected values over a vocabulary of three, summed up in full."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2])
    # 0.5 ln(5/4) + 0.3 ln(3/4) + 0.2 ln 1 = 0.1115718 - 0.0863046
    kl = 0.0252672
    assert (p * kl_penalty(p.log(), q.log(), "k1")).sum().item() == pytest.approx(kl, abs=1e-6)
    assert (p * kl_penalty(p.log(), q.log(), "k3")).sum().item() == pytest.approx(kl, abs=1e-6)
    # 0.5 ln²(5/4) / 2 + 0.3 ln²(3/4) / 2 = 0.0124482 + 0.0124142
    k2 = (p * kl_penalty(p.log(), q.log(), "k2")).sum().item()
    assert k2 == pytest.approx(0.0248624, abs=1e-6)


@given(st.floats(-12, 12))
def test_k2_and_k3_are_never_negative(log_ratio: float) -> None:
    log_p, log_q = torch.tensor([log_ratio]), torch.zeros(1)
    assert kl_penalty(log_p, log_q, "k2") >= 0
    # Of a tiny log-ratio rounding leaves a trace: k3 = x² / 2 is below float32's 1e-7 of x.
    assert kl_penalty(log_p, log_q, "k3") >= -1e-7 * abs(log_ratio)


# ---- rewards --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "wanted"),
    [
        # -0.1 × KL for each token, and the scores 2 and -1 on the last ones.
        (RIGHT, [[-0.01, -0.02, 1.97], [0.0, 0.0, -1.03]]),
        (LEFT, [[-0.01, -0.02, 1.97], [-1.01, 0.0, 0.0]]),
    ],
)
def test_the_score_stands_on_a_replys_last_token_and_the_kl_on_each(
    mask: Tensor, wanted: list[list[float]]
) -> None:
    kl = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    kl = torch.where(mask, kl, NAN)
    near(shaped_rewards(torch.tensor([2.0, -1.0]), kl, mask, 0.1), wanted)


# ---- advantages -----------------------------------------------------------------------------

REWARDS = torch.tensor([[-0.1, -0.2, 1.0], [0.0, 0.0, 2.0]])
VALUES = torch.tensor([[0.5, 0.4, 0.6], [0.0, 0.0, 0.5]])


def test_advantages_by_hand() -> None:
    # gamma 0.9, lambda 0.5; deltas of the first reply:
    #   -0.1 + 0.9 × 0.4 - 0.5 = -0.24;  -0.2 + 0.9 × 0.6 - 0.4 = -0.06;  1 + 0 - 0.6 = 0.4
    # backwards with gamma × lambda = 0.45:
    #   0.4;  -0.06 + 0.45 × 0.4 = 0.12;  -0.24 + 0.45 × 0.12 = -0.186
    # the second reply: 2 + 0 - 0.5 = 1.5
    advantages, returns = gae(REWARDS, VALUES, RIGHT, gamma=0.9, lam=0.5)
    near(advantages, [[-0.186, 0.12, 0.4], [0.0, 0.0, 1.5]])
    near(returns, [[0.314, 0.52, 1.0], [0.0, 0.0, 2.0]])


def test_without_discount_and_lambda_1_they_are_the_rewards_to_come_less_the_value() -> None:
    advantages, returns = gae(REWARDS, VALUES, RIGHT, gamma=1.0, lam=1.0)
    # To come: -0.1 - 0.2 + 1 = 0.7;  -0.2 + 1 = 0.8;  1.
    near(returns, [[0.7, 0.8, 1.0], [0.0, 0.0, 2.0]])
    near(advantages, [[0.2, 0.4, 0.4], [0.0, 0.0, 1.5]])


def test_with_lambda_0_they_are_one_step_errors() -> None:
    # -0.1 + 0.4 - 0.5;  -0.2 + 0.6 - 0.4;  1 - 0.6
    advantages, _ = gae(REWARDS, VALUES, RIGHT, gamma=1.0, lam=0.0)
    near(advantages, [[-0.2, 0.0, 0.4], [0.0, 0.0, 1.5]])


@pytest.mark.parametrize("mask", [RIGHT, LEFT])
@pytest.mark.parametrize("outside", [NAN, INF, 100.0])
def test_what_stands_outside_of_the_mask_changes_no_advantage(mask: Tensor, outside: float) -> None:
    clean = [torch.where(mask, values, 0.0) for values in (REWARDS, VALUES)]
    dirty = [torch.where(mask, values, outside) for values in (REWARDS, VALUES)]
    for one, other in zip(
        gae(*clean, mask, gamma=0.9, lam=0.5), gae(*dirty, mask, gamma=0.9, lam=0.5), strict=True
    ):
        assert torch.equal(one, other)


def test_rloo_compares_with_the_mean_of_the_others() -> None:
    # Of 1, 2, 6: 1 - (2 + 6) / 2;  2 - (1 + 6) / 2;  6 - (1 + 2) / 2.  Of 5, 5, 5: nothing.
    totals = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    near(rloo(totals, 3), [-3.0, -1.5, 4.5, 0.0, 0.0, 0.0])


def test_grpo_scales_by_the_groups_spread() -> None:
    # Of 1, 2, 6 the mean is 3, the spread sqrt((4 + 1 + 9) / 2) = sqrt 7.
    spread = math.sqrt(7) + 1e-4
    totals = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    near(grpo(totals, 3), [-2 / spread, -1 / spread, 3 / spread, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("estimate", [rloo, grpo])
def test_groups_do_not_see_each_other(estimate: Callable[[Tensor, int], Tensor]) -> None:
    one, two = torch.tensor([1.0, 4.0]), torch.tensor([-7.0, 8.0])
    together = estimate(torch.cat([one, two]), 2)
    assert torch.equal(together, torch.cat([estimate(one, 2), estimate(two, 2)]))


# ---- policy loss ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped"),
    [
        # Cut at 0.8 and 1.2, only where the ratio has gone the way that the advantage wants.
        (1.5, 2.0, -2.4, True),  # -2 × 1.2, not -2 × 1.5
        (0.5, 2.0, -1.0, False),  # -2 × 0.5: it must still be raised
        (1.5, -2.0, 3.0, False),  # 2 × 1.5: it must still be lowered
        (0.5, -2.0, 1.6, True),  # 2 × 0.8, not 2 × 0.5
        (1.1, 2.0, -2.2, False),
    ],
)
def test_the_ratio_stops_counting_where_it_has_gone_far_enough(
    ratio: float, advantage: float, loss: float, is_clipped: bool
) -> None:
    log_p = torch.tensor([[math.log(ratio)]], requires_grad=True)
    found = policy_loss(
        log_p, torch.zeros(1, 1), torch.tensor([[advantage]]), torch.ones(1, 1).bool(), 0.2
    )
    found.loss.backward()
    near(found.loss.detach(), loss)
    assert found.clip_fraction == float(is_clipped)
    # The gradient of -advantage × ratio by log p is itself; where clipped there is none.
    near(log_p.grad, [[0.0 if is_clipped else loss]])
    assert found.approx_kl.item() == pytest.approx(math.log(ratio) ** 2 / 2, abs=1e-6)
    assert not found.clip_fraction.requires_grad
    assert not found.approx_kl.requires_grad


def test_before_any_update_the_loss_is_minus_the_mean_advantage() -> None:
    log_p = torch.tensor([[-1.0, -2.0, -0.5], [0.0, 0.0, -3.0]], requires_grad=True)
    advantages = torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.0, 2.0]])
    found = policy_loss(log_p, log_p.detach(), advantages, RIGHT, 0.2)
    found.loss.backward()
    near(found.loss.detach(), -1.0)  # -(1 - 2 + 3 + 2) / 4
    assert found.approx_kl == found.clip_fraction == 0
    near(log_p.grad, (-advantages / 4).tolist())


# ---- value loss -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "aim", "loss", "is_clipped"),
    [
        # Old value 1, so the prediction counts from 0.8 to 1.2.
        (1.1, 2.0, 0.405, False),  # 0.9² / 2
        (1.5, 2.0, 0.32, True),  # it counts as 1.2: 0.8² / 2, more than 0.5² / 2
        (1.5, 0.0, 1.125, False),  # the wrong way: 1.5² / 2, more than 1.2² / 2
        (0.5, 0.0, 0.32, True),  # it counts as 0.8
    ],
)
def test_a_prediction_stops_counting_once_far_from_the_old_one(
    value: float, aim: float, loss: float, is_clipped: bool
) -> None:
    values = torch.tensor([[value]], requires_grad=True)
    found = value_loss(
        values, torch.ones(1, 1), torch.tensor([[aim]]), torch.ones(1, 1).bool(), 0.2
    )
    found.loss.backward()
    near(found.loss.detach(), loss)
    assert found.clip_fraction == float(is_clipped)
    near(values.grad, [[0.0 if is_clipped else value - aim]])


# ---- both losses ----------------------------------------------------------------------------


def random_batch(seed: int = 0) -> tuple[Tensor, ...]:
    """log p, advantages and mask of five replies in eight columns."""
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, 5, 8, generator=generator)
    lengths = torch.randint(1, 9, (5, 1), generator=generator)
    return one, other, torch.arange(8) >= 8 - lengths


@pytest.mark.parametrize("loss", [policy_loss, lambda v, o, r, *rest: value_loss(v, o, r, *rest)])
def test_the_parts_of_a_mini_batch_add_up_in_losses_and_gradients(
    loss: Callable[..., tuple[Tensor, ...]],
) -> None:
    new, aims, mask = random_batch()
    old = torch.zeros_like(new)
    whole = new.clone().requires_grad_()
    in_parts = new.clone().requires_grad_()
    wanted = loss(whole, old, aims, mask, 0.2)
    wanted[0].backward()
    sums = [torch.zeros(()) for _ in wanted]
    for rows in ([0, 3], [1], [2, 4]):
        found = loss(in_parts[rows], old[rows], aims[rows], mask[rows], 0.2, mask.sum())
        found[0].backward()
        sums = [total + part.detach() for total, part in zip(sums, found, strict=True)]
    torch.testing.assert_close(torch.stack(sums), torch.stack([*wanted]).detach())
    torch.testing.assert_close(in_parts.grad, whole.grad)


@pytest.mark.parametrize("outside", [NAN, INF, -INF])
@pytest.mark.parametrize("loss", [policy_loss, value_loss])
def test_what_stands_outside_of_the_mask_changes_no_loss_and_no_gradient(
    loss: Callable[..., tuple[Tensor, ...]], outside: float
) -> None:
    new, aims, mask = random_batch(1)
    clean = torch.where(mask, new, 0.0).requires_grad_()
    dirty = torch.where(mask, new, outside).requires_grad_()
    wanted = loss(clean, torch.zeros_like(new), torch.where(mask, aims, 0.0), mask, 0.2)
    found = loss(dirty, torch.zeros_like(new), torch.where(mask, aims, outside), mask, 0.2)
    assert torch.equal(torch.stack([*found]), torch.stack([*wanted]))
    wanted[0].backward()
    found[0].backward()
    assert torch.equal(dirty.grad, clean.grad)


# ---- entropy --------------------------------------------------------------------------------


def test_the_entropy_of_equal_chances_is_the_logarithm_of_their_number() -> None:
    near(token_entropy(torch.full((2, 7), -3.0)), [math.log(7)] * 2)


def test_the_entropy_by_hand() -> None:
    # 1/2 ln 2 + 2 × 1/4 ln 4 = 1.5 ln 2
    near(token_entropy(torch.tensor([0.5, 0.25, 0.25]).log()), 1.5 * math.log(2))


def test_a_token_that_cannot_be_drawn_adds_no_entropy_and_no_gradient() -> None:
    logits = torch.tensor([0.0, math.log(3), -INF], requires_grad=True)
    entropy = token_entropy(logits)
    entropy.backward()
    near(entropy.detach(), 0.5623351)  # 1/4 ln 4 + 3/4 ln 4/3
    # dH / dlogit = -p × (ln p + H): -1/4 × (-1.3862944 + 0.5623351), and its counterpart.
    near(logits.grad, [0.2059898, -0.2059898, 0.0])


# ---- moments --------------------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6), min_size=1,
                max_size=6))  # fmt: skip
def test_moments_are_those_of_all_scores_however_they_come(batches: list[list[float]]) -> None:
    moments = RunningMoments()
    for batch in batches:
        moments.update(torch.tensor(batch))
    scores = numpy.array([score for batch in batches for score in batch])
    assert moments.count == len(scores)
    assert moments.mean == pytest.approx(scores.mean(), abs=1e-9)
    if scores.std() > 2e-6:
        assert moments.std == pytest.approx(scores.std(), rel=1e-6, abs=1e-9)


def test_moments_keep_a_small_spread_far_from_zero() -> None:
    """A sum of squares would have lost it."""
    moments = RunningMoments()
    for score in (1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3):
        moments.update(torch.tensor([score]))
    assert moments.std == pytest.approx(math.sqrt(1.25))  # (2.25 + 0.25 + 0.25 + 2.25) / 4


def test_scores_without_spread_are_left_at_their_scale() -> None:
    moments = RunningMoments()
    assert moments.std == 1.0
    moments.update(torch.tensor([0.3]))
    assert (moments.mean, moments.std) == (pytest.approx(0.3), 1.0)
    moments.update(torch.tensor([0.3, 0.3]))
    assert moments.std == 1.0


def test_moments_go_on_from_their_state_through_json() -> None:
    one, other = RunningMoments(), RunningMoments()
    one.update(torch.tensor([0.1, 0.7, 1.3]))
    other.restore(json.loads(json.dumps(one.state())))
    one.update(torch.tensor([2.0]))
    other.update(torch.tensor([2.0]))
    assert other == one
