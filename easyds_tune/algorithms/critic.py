"""PPO's critic: a value head on the policy's hidden states, with its own scale and optimizer.

The head learns returns in units of their own spread, so one learning rate serves rewards of any
scale (PopArt: van Hasselt et al. 2016, arXiv 1602.07714). It reads detached states and is no part
of the policy's engine, so neither its gradient nor its norm reaches the policy.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from easyds_tune.algorithms.ppo_math import ValueLoss, value_loss

DECAY = 0.9
"""What is kept of the running moments of returns at each rollout."""
SMALLEST_SPREAD = 1e-6


class Critic:
    """Predicts returns; `scale_to` the returns of a rollout before learning from them.

    Values are `mean + spread × head(state)`. H numbers a state; B replies, T tokens.
    """

    def __init__(
        self, state_size: int, device: torch.device, learning_rate: float, max_grad_norm: float
    ) -> None:
        """Start with a value of 0 for every state.

        learning_rate: about how far one update can move a value, in spreads of the returns: a
        step of Adam moves each of the H weights, so each moves by 1/H of it.
        max_grad_norm: the head's gradient is clipped to it, apart from the policy's; 0 does not.
        """
        self._head = nn.Linear(state_size, 1, dtype=torch.float32, device=device)
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [self._head.weight], "lr": learning_rate / state_size},
                {"params": [self._head.bias], "lr": learning_rate},
            ],
            betas=(0.9, 0.95),
            weight_decay=0.0,
        )
        self._max_grad_norm = max_grad_norm
        self._moments: tuple[float, float] | None = None
        """Running mean of returns and of their squared spread; None before the first rollout."""

    def values(self, states: Tensor) -> Tensor:
        """What each state (B, T, H) is worth, in the rewards' unit; (B, T), float32."""
        mean, spread = self._scale()
        return mean + spread * self._scaled(states)

    def scale_to(self, returns: Tensor, mask: Tensor) -> None:
        """Take in a rollout's returns (N, T); what the head predicts stays the same."""
        seen = returns[mask].double()
        mean, variance = seen.mean().item(), seen.var(correction=0).item()
        if self._moments is None:
            # Around the values of 0 that stand yet, so the first losses are of size 1 as well.
            variance += mean**2
        else:
            old_mean, old_variance = self._moments
            shift = mean - old_mean
            variance = DECAY * old_variance + (1 - DECAY) * (variance + DECAY * shift**2)
            mean = old_mean + (1 - DECAY) * shift
        before = self._scale()
        self._moments = mean, variance
        after = self._scale()
        with torch.no_grad():
            self._head.weight *= before[1] / after[1]
            self._head.bias.copy_((before[0] + before[1] * self._head.bias - after[0]) / after[1])

    def loss(
        self,
        states: Tensor,
        old_values: Tensor,
        returns: Tensor,
        mask: Tensor,
        cliprange: float,
        tokens: int,
    ) -> ValueLoss:
        """The clipped value loss of `ppo_math.value_loss`, all of it in spreads of the returns."""
        mean, spread = self._scale()
        return value_loss(
            self._scaled(states),
            (old_values - mean) / spread,
            (returns - mean) / spread,
            mask,
            cliprange,
            tokens,
        )

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a part of the mini-batch's loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> float:
        """Make one update from the gradients that stand; their norm before clipping."""
        limit = self._max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self._head.parameters(), limit)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return norm.item()

    def state(self) -> dict[str, Any]:
        """What a resumed trial needs, as `torch.save` takes it."""
        return {
            "head": self._head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "moments": self._moments,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state()`."""
        self._head.load_state_dict(state["head"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._moments = state["moments"]

    def _scaled(self, states: Tensor) -> Tensor:
        """Values in spreads of the returns, of states brought to a root mean square of 1."""
        normed = nn.functional.rms_norm(states, states.shape[-1:])
        found: Tensor = self._head(normed).squeeze(-1)
        return found

    def _scale(self) -> tuple[float, float]:
        """Mean and spread of the returns; 0 and 1 before any are known."""
        if self._moments is None:
            return 0.0, 1.0
        mean, variance = self._moments
        return mean, max(math.sqrt(variance), SMALLEST_SPREAD)
