"""Landscapes written down as a few numbers: how fast trials learn, how much, and how far they move.

With u the place of a parameter from 0 to 1 and s the step, and three surfaces over the space,

    progress = 1 - exp(-s / exp(log_steps))
    KL       = exp(log_kl) · progress
    reward   = start + gain · progress + size · (1 - exp(-KL / scale))

A surface is a base plus one term a parameter: `slope` · u, `-drop` · ((u - best) / width)², or for
a choice one number a value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from easyds_tune.simulation.noise import Truth, sd_of_kl
from easyds_tune.simulation.space import position, read_space
from easyds_tune.spec.search import ChoiceParam, Param

LENGTH = 20.0
"""Tokens of a reply."""


@dataclass(frozen=True)
class Surface:
    """A number for every configuration."""

    base: float
    terms: dict[str, dict[str, float] | list[float]]

    def at(self, space: Mapping[str, Param], params: Mapping[str, Any]) -> float:
        """The surface at a configuration."""
        return self.base + sum(
            _term(term, position(space[path], params[path])) for path, term in self.terms.items()
        )


@dataclass(frozen=True)
class ModelledLandscape:
    """See the module. `size` and `scale` are what moving away is rewarded with."""

    space: dict[str, Param]
    max_steps: int
    tokens_per_step: float
    seconds_per_step: float
    prompts: int
    start_reward: float
    gain: Surface
    log_steps: Surface
    log_kl: Surface
    size: float
    scale: float
    reward_sd: float
    kl_sd: float

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> ModelledLandscape:
        """From its YAML. Raises KeyError, TypeError or ValueError where that does not hold one."""
        space = read_space(raw["space"])
        noise, moved = raw["noise"], raw.get("reward_of_kl", {"size": 0.0, "scale": 1.0})
        prompts = int(noise["prompts"])
        return cls(
            space=space,
            max_steps=int(raw["max_steps"]),
            tokens_per_step=float(raw["tokens_per_step"]),
            seconds_per_step=float(raw["seconds_per_step"]),
            prompts=prompts,
            start_reward=float(raw["start"]),
            gain=_surface(raw["gain"], space),
            log_steps=_surface(raw["log_steps"], space),
            log_kl=_surface(raw["log_kl"], space),
            size=float(moved["size"]),
            scale=float(moved["scale"]),
            reward_sd=float(noise["reward_stderr"]) * prompts**0.5,
            kl_sd=sd_of_kl(float(noise["kl_relative_stderr"]), prompts),
        )

    def start(self) -> float:
        """The reward before the first step."""
        return self.start_reward

    def truth(self, params: Mapping[str, Any], step: int) -> Truth:
        """A configuration after `step` steps."""
        progress = 1.0 - math.exp(-step / math.exp(self.log_steps.at(self.space, params)))
        kl = math.exp(self.log_kl.at(self.space, params)) * progress
        gain = self.gain.at(self.space, params) * progress
        reward = self.start_reward + gain + self.size * (1.0 - math.exp(-kl / self.scale))
        return Truth(
            reward=reward,
            kl=kl,
            length=LENGTH,
            reward_sd=self.reward_sd,
            kl_sd=self.kl_sd,
            others={"train/loss": math.log(2.0) - 0.1 * progress, "train/grad_norm": 0.3},
        )


def _term(term: dict[str, float] | list[float], at: float) -> float:
    if isinstance(term, list):
        return term[int(at)]
    if "slope" in term:
        return term["slope"] * at
    return -term["drop"] * ((at - term["best"]) / term["width"]) ** 2


def _surface(raw: Mapping[str, Any], space: Mapping[str, Param]) -> Surface:
    terms = {path: term for path, term in raw.items() if path != "base"}
    for path, term in terms.items():
        param = space[path]
        if isinstance(param, ChoiceParam) != isinstance(term, list):
            raise ValueError(f"{path} must have a list where it is a choice, and else none")
        if isinstance(param, ChoiceParam) and len(term) != len(param.choice):
            raise ValueError(f"{path} must have a number for each of {param.choice}, got {term}")
    return Surface(float(raw["base"]), terms)
