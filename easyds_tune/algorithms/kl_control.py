"""The coefficient of PPO's KL penalty, moved so that the measured KL meets its target.

Two controllers: `LookAhead`, the default, and `Ziegler`, the one of Ziegler et al. 2019
(arXiv 1909.08593, section 2.2). Plain numbers: no tensors, no I/O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from easyds_tune.spec.algorithm import (
    CORRECTION,
    LARGEST_KL_RATIO,
    MAX_KL_ERROR,
    PPOSpec,
    kl_horizon,
)

PATIENCE = 4
"""Horizons within which a rising KL may reach its target without a lower coefficient."""


class KLController(Protocol):
    """Holds the coefficient; `update` it once a rollout."""

    coef: float
    """What the KL of a token is multiplied by and taken off the reward."""

    def update(self, kl: float) -> None:
        """Move the coefficient after a rollout of `kl` nats per token."""

    def state(self) -> dict[str, Any]:
        """What a resumed trial needs, as JSON holds it."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state()`."""


def controller_of(ppo: PPOSpec, max_steps: int) -> KLController:
    """The controller of a trial of `max_steps` rollouts."""
    if ppo.kl_controller == "adaptive":
        return LookAhead(
            ppo.kl_coef, ppo.kl_target, kl_horizon(ppo, max_steps),
            low=ppo.kl_coef / ppo.kl_coef_limit, high=ppo.kl_coef * ppo.kl_coef_limit,
        )  # fmt: skip
    horizon = math.inf if ppo.kl_controller == "fixed" else kl_horizon(ppo, max_steps)
    return Ziegler(ppo.kl_coef, ppo.kl_target, horizon)


@dataclass
class LookAhead:
    """A controller of the coefficient's logarithm that acts on where the KL is heading.

    The square root of the KL is a distance. Adam moves the policy at a nearly constant speed, so
    the distance in `horizon` rollouts is about d + horizon × (d - d before), and its square the KL
    that is ahead. Each rollout adds `CORRECTION` parts in `horizon` of log(KL ahead / target) to
    the coefficient's logarithm; the ratio is cut off at a factor of 4 either way.

    Anti-windup: a policy that nears its target from below is not held back by the penalty, so the
    coefficient stays where the target is reached within `PATIENCE` horizons. There is no integral
    besides the coefficient, so nothing winds up at its limits.

    target: nats per token. horizon: rollouts, at least 1. low, high: limits of the coefficient.
    """

    coef: float
    target: float
    horizon: float
    low: float
    high: float
    distance: float | None = None
    """Square root of the KL of the rollout before; None before the first one."""

    def update(self, kl: float) -> None:
        """Move the coefficient; the first rollout shows no movement yet and moves nothing."""
        distance = math.sqrt(max(kl, 0.0))
        before, self.distance = self.distance, distance
        if before is None:
            return
        ahead = distance + self.horizon * (distance - before)
        ratio = max(ahead, 0.0) ** 2 / self.target
        later = distance + PATIENCE * self.horizon * (distance - before)
        if ratio < 1 and later >= math.sqrt(self.target):
            return
        ratio = min(max(ratio, 1 / LARGEST_KL_RATIO), LARGEST_KL_RATIO)
        self.coef *= ratio ** (CORRECTION / self.horizon)
        self.coef = min(max(self.coef, self.low), self.high)

    def state(self) -> dict[str, Any]:
        """Coefficient and last distance."""
        return {"coef": self.coef, "distance": self.distance}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state()`."""
        self.coef, self.distance = state["coef"], state["distance"]


@dataclass
class Ziegler:
    """Ziegler et al., section 2.2: proportional to the error, which is cut off at ± 20 %.

    target: nats per token. horizon: rollouts; over one horizon at the largest error the coefficient
    moves by a factor of about 1.2. At least 1; infinite for a fixed coefficient.
    """

    coef: float
    target: float
    horizon: float

    def update(self, kl: float) -> None:
        """Move the coefficient by one rollout."""
        error = max(-MAX_KL_ERROR, min(MAX_KL_ERROR, kl / self.target - 1))
        self.coef *= 1 + error / self.horizon

    def state(self) -> dict[str, Any]:
        """The coefficient."""
        return {"coef": self.coef}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state()`."""
        self.coef = state["coef"]
