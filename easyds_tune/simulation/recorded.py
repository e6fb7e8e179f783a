"""Landscapes from recorded trials: the truth lies between the nearest ones.

What was recorded is one judge's view. Curves are smoothed over their steps, and a configuration's
value is the mean of the nearest trials, weighted by their distance such that it is continuous
(Franke and Nielson 1980, "Smooth interpolation of large sets of scattered data"):
w = ((R - d) / (R · d))², R the distance of the first trial left out. The KL is averaged in
logarithms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from easyds_tune.simulation.noise import Truth, sd_of_kl
from easyds_tune.simulation.space import position, read_space
from easyds_tune.spec.search import ChoiceParam, Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NEIGHBOURS = 6
"""Trials that a configuration's value is the mean of."""
CLOSEST = 0.05
"""Added to distances, in widths of the space: one trial alone is never the truth."""
OTHER_CHOICE = 0.25
"""Distance of two values of a choice."""
LEAST_KL = 1e-6

_METRICS = (
    "eval/reward", "eval/kl", "eval/length", "eval/reward_stderr", "eval/kl_stderr",
    "train/loss", "train/grad_norm",
)  # fmt: skip


@dataclass
class RecordedLandscape:
    """See the module. curves: metric -> (trials, steps), smoothed; eval/kl as a logarithm, its
    standard error relative."""

    space: dict[str, Param]
    steps: list[int]
    tokens_per_step: float
    seconds_per_step: float
    prompts: int
    start_reward: float
    numbers: Floats  # (trials, numeric parameters), from 0 to 1
    choices: Floats  # (trials, choices), places in their lists
    curves: dict[str, Floats]
    _found: dict[str, dict[str, Floats]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> RecordedLandscape:
        """From its JSON. Raises KeyError, TypeError or ValueError where that does not hold one."""
        space = read_space(raw["space"])
        trials = raw["trials"]
        if len(trials) <= NEIGHBOURS:
            raise ValueError(f"trials must hold more than {NEIGHBOURS}, got {len(trials)}")
        recorded = {
            name: np.array([trial["metrics"][name] for trial in trials], dtype=float)
            for name in _METRICS
        }
        kl = np.maximum(recorded["eval/kl"], LEAST_KL)
        recorded["eval/kl_stderr"] = recorded["eval/kl_stderr"] / kl
        recorded["eval/kl"] = np.log(kl)
        places = [_places(space, trial["params"]) for trial in trials]
        return cls(
            space=space,
            steps=[int(step) for step in raw["steps"]],
            tokens_per_step=float(raw["tokens_per_step"]),
            seconds_per_step=float(raw["seconds_per_step"]),
            prompts=int(raw["prompts"]),
            start_reward=float(raw["start"]),
            numbers=np.array([numbers for numbers, _ in places]),
            choices=np.array([choices for _, choices in places]),
            curves={name: _smooth(values) for name, values in recorded.items()},
        )

    @property
    def max_steps(self) -> int:
        """The steps of the recorded trials."""
        return self.steps[-1]

    def start(self) -> float:
        """The reward before the first step."""
        return self.start_reward

    def truth(self, params: Mapping[str, Any], step: int) -> Truth:
        """A configuration after `step` steps, between recorded ones linearly."""
        key = json.dumps(dict(params), sort_keys=True)
        if key not in self._found:
            self._found[key] = self._between(params)
        curve = self._found[key]
        at = {name: float(np.interp(step, self.steps, values)) for name, values in curve.items()}
        return Truth(
            reward=at["eval/reward"],
            kl=float(np.exp(at["eval/kl"])),
            length=at["eval/length"],
            reward_sd=at["eval/reward_stderr"] * self.prompts**0.5,
            kl_sd=sd_of_kl(at["eval/kl_stderr"], self.prompts),
            others={name: at[name] for name in ("train/loss", "train/grad_norm")},
        )

    def _between(self, params: Mapping[str, Any]) -> dict[str, Floats]:
        numbers, choices = _places(self.space, params)
        squares = np.square(self.numbers - np.array(numbers)).sum(axis=1)
        squares += OTHER_CHOICE**2 * (self.choices != np.array(choices)).sum(axis=1)
        distances = np.sqrt(squares + CLOSEST**2)
        order = np.argsort(distances, kind="stable")[: NEIGHBOURS + 1]
        nearest, radius = order[:NEIGHBOURS], distances[order[NEIGHBOURS]]
        weights = np.square((radius - distances[nearest]) / (radius * distances[nearest]))
        if weights.sum() == 0.0:  # all as far as the first one left out
            weights = np.ones(NEIGHBOURS)
        weights = weights / weights.sum()
        return {name: weights @ values[nearest] for name, values in self.curves.items()}


def _places(
    space: Mapping[str, Param], params: Mapping[str, Any]
) -> tuple[list[float], list[float]]:
    numbers: list[float] = []
    choices: list[float] = []
    for path, param in space.items():
        part = choices if isinstance(param, ChoiceParam) else numbers
        part.append(position(param, params[path]))
    return numbers, choices


def _smooth(values: Floats) -> Floats:
    """Each value with a quarter of both neighbours in its row; at the ends with a third of one."""
    padded = np.pad(values, ((0, 0), (1, 1)))
    weights = np.pad(np.ones_like(values), ((0, 0), (1, 1)))

    def spread(rows: Floats) -> Floats:
        return rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]

    return spread(padded) / spread(weights)
