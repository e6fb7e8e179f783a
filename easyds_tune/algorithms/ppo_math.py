"""KL-shaped rewards, advantages, clipped losses. Pure tensors: no engine, no I/O.

Letters: B replies, T tokens of the longest reply. A `mask` is (B, T) and True where a token is
part of its reply, the end token included: one run of columns in each row, wherever it begins. What
stands elsewhere never matters. All of it float32.

Sources: PPO, Schulman et al. 2017 (arXiv 1707.06347); GAE, Schulman et al. 2015 (1506.02438); the
KL-shaped reward, Ziegler et al. 2019 (1909.08593); RLOO, Ahmadian et
al. 2024 (2402.14740); GRPO, Shao et al. 2024 (2402.03300); the KL estimators k1, k2 and k3,
Schulman's note "Approximating KL divergence" of 2020.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from easyds_tune.spec.algorithm import KLEstimator


def masked_mean(values: Tensor, mask: Tensor, tokens: Tensor | int | None = None) -> Tensor:
    """Sum of `values` (B, T) over the mask, divided by its number of tokens; a scalar.

    tokens: what to divide by instead, where these rows are one part of a mini-batch.
    """
    total = torch.where(mask, values, 0.0).sum()
    return total / (mask.sum() if tokens is None else tokens)


def masked_whiten(values: Tensor, mask: Tensor) -> Tensor:
    """`values` (B, T) brought to mean 0 and variance 1 over the mask, and 0 outside of it."""
    mean = masked_mean(values, mask)
    deviations = torch.where(mask, values - mean, 0.0)
    variance = deviations.square().sum() / (mask.sum() - 1).clamp_min(1)
    return deviations * torch.rsqrt(variance + 1e-8)


# ---- rewards --------------------------------------------------------------------------------


def kl_penalty(log_p: Tensor, log_q: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimate of KL(p ‖ q) at each drawn token, in nats; shapes all (B, T).

    log_p, log_q: log-probability of the drawn token under the policy that drew it and under the
    reference. k1 is unbiased and can be negative; k2 has a small bias and less noise; k3 is
    unbiased and never negative.
    """
    log_ratio = log_p - log_q
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return torch.expm1(-log_ratio) + log_ratio


def shaped_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Reward of each token, (B, T): -kl_coef × kl, and the score (B,) on the reply's last token.

    Ziegler et al., equation 2, spread over the tokens.
    """
    rewards = torch.where(mask, -kl_coef * kl, 0.0)
    columns = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, columns, -1).amax(dim=1)
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))


# ---- advantages -----------------------------------------------------------------------------


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns, each (B, T) and 0 outside of the mask.

    values: of the state before each token. After the last token the value is 0: a reply ends
    there, by its end token or by its length. Equations 11 and 16 of the paper.
    """
    rewards = torch.where(mask, rewards, 0.0)
    values = torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(rewards)
    next_advantage = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * lam * next_advantage
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    advantages = torch.where(mask, advantages, 0.0)
    return advantages, advantages + values


def rloo(totals: Tensor, group_size: int) -> Tensor:
    """Each reply's reward less the mean of the others to its prompt; (B,).

    totals: (B,), the sum of a reply's shaped rewards; replies to one prompt are neighbours.
    """
    groups = totals.view(-1, group_size)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).view(-1)


def grpo(totals: Tensor, group_size: int) -> Tensor:
    """Each reply's reward, shifted and scaled by mean and spread of its prompt's replies; (B,).

    totals: as for `rloo`. Unlike in the paper the KL is part of the reward, as for the other
    estimators, and not a term of the loss; and the loss is a mean over tokens, not over replies.
    Where all replies earn the same, the advantage is 0.
    """
    groups = totals.view(-1, group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred / (groups.std(dim=1, keepdim=True) + 1e-4)).view(-1)


# ---- losses ---------------------------------------------------------------------------------


class PolicyLoss(NamedTuple):
    """Scalars of one (part of a) mini-batch; `loss` alone carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor
    """Share of tokens at which the clipped term is the larger loss: they push no further."""
    approx_kl: Tensor
    """Half the mean squared log-ratio: how far this update's policy is from the rollout's."""


class ValueLoss(NamedTuple):
    """Scalars of one (part of a) mini-batch; `loss` alone carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor


def policy_loss(
    log_p: Tensor,
    old_log_p: Tensor,
    advantages: Tensor,
    mask: Tensor,
    cliprange: float,
    tokens: Tensor | int | None = None,
) -> PolicyLoss:
    """The clipped surrogate objective as a loss (equation 7 of the paper, negated).

    log_p: (B, T), of the drawn tokens under the policy in training; old_log_p: under the policy
    that drew them. tokens: as for `masked_mean`; the parts of a mini-batch then add up.
    """
    # Outside of the mask nothing may overflow: the gradient of where() would carry NaN.
    log_ratio = torch.where(mask, log_p - old_log_p, 0.0)
    ratio = log_ratio.exp()
    free = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    with torch.no_grad():
        clip_fraction = masked_mean((clipped > free).float(), mask, tokens)
        approx_kl = masked_mean(log_ratio.square() / 2, mask, tokens)
    return PolicyLoss(
        masked_mean(torch.maximum(free, clipped), mask, tokens), clip_fraction, approx_kl
    )


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    cliprange_value: float,
    tokens: Tensor | int | None = None,
) -> ValueLoss:
    """Half the squared error, the larger of the free and the clipped prediction's; all (B, T).

    old_values: predicted when the replies were drawn; a prediction may leave them by
    `cliprange_value` (Engstrom et al. 2020, arXiv 2005.12729, section 3).
    """
    # As for the log-probabilities: nothing outside of the mask may reach the gradient.
    values = torch.where(mask, values, old_values)
    kept_near = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    free = (values - returns).square()
    clipped = (kept_near - returns).square()
    with torch.no_grad():
        clip_fraction = masked_mean((clipped > free).float(), mask, tokens)
    return ValueLoss(masked_mean(torch.maximum(free, clipped) / 2, mask, tokens), clip_fraction)


def token_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the distribution at each position; (…, vocabulary) -> (…)."""
    log_p = logits.float().log_softmax(dim=-1)
    # A token that cannot be drawn adds nothing: 0 × -inf would be NaN, and so would its gradient.
    finite = torch.where(log_p.isneginf(), 0.0, log_p)
    return -(log_p.exp() * finite).sum(dim=-1)


# ---- what lives on between steps --------------------------------------------------------------


@dataclass
class RunningMoments:
    """Mean and spread of all scores so far, to bring rewards to one scale over a trial.

    Chan, Golub and LeVeque's update (1979), exact for batches of any size.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared deviations from the mean."""

    @property
    def std(self) -> float:
        """Standard deviation so far; 1 while there is none to speak of."""
        spread = math.sqrt(self.squares / self.count) if self.count > 1 else 0.0
        return spread if spread > 1e-6 else 1.0

    def update(self, scores: Tensor) -> None:
        """Take in a batch of scores (B,)."""
        batch = scores.double()
        count = self.count + len(batch)
        mean = batch.mean().item()
        shift = mean - self.mean
        self.squares += (batch - mean).square().sum().item()
        self.squares += shift**2 * self.count * len(batch) / count
        self.mean += shift * len(batch) / count
        self.count = count

    def state(self) -> dict[str, float]:
        """What a resumed trial needs."""
        return asdict(self)

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a `state()`."""
        self.count, self.mean, self.squares = (
            int(state["count"]), state["mean"], state["squares"],
        )  # fmt: skip
