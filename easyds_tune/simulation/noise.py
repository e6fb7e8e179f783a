"""The noise of a simulated judge, prompt by prompt, as a real one's: same prompts, same draws.

A reply's reward differs from the policy's true mean for three reasons: the prompt (shared by all
trials of a sweep), the trial's own replies (which it keeps while it changes little), and what is
new at a step. Their shares of the variance are `SHARES`. On the bundled tutor the prompt accounts
for a tenth and the drawing of replies for the rest; the same draws give policies close to each
other the same replies, and so a trial much of its noise again at its next step.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SHARES = (0.2, 0.5, 0.3)
"""Of the variance of a prompt's value: the prompt's, the trial's, the step's."""
LENGTH_SPREAD = 0.3
"""Standard deviation of the logarithm of a reply's length."""

_REWARD, _KL, _LENGTH = 0, 1, 2
_SEARCH, _FINALS = 0, 1


@dataclass(frozen=True, slots=True)
class Truth:
    """What a checkpoint is worth, without noise, and how much replies differ.

    reward_sd: of the reward of single replies. kl_sd: of the KL of single replies, relative to
    their mean. `others` are metrics without noise.
    """

    reward: float
    kl: float
    length: float
    reward_sd: float
    kl_sd: float
    others: Mapping[str, float]


class Replies(NamedTuple):
    """One number a prompt each: rewards, nats of the whole reply, and its tokens."""

    rewards: Floats
    nats: Floats
    tokens: Floats


def draw_replies(
    truth: Truth, params: Mapping[str, Any], step: int, *, judge: int, trial: int, prompts: int,
    finals: bool = False,
) -> Replies:  # fmt: skip
    """Judge a checkpoint on `prompts` prompts.

    judge: the seed that the prompts and draws come from; trial: the trial's own. finals: use
    other prompts than the search, the same ones for every finalist.
    """
    kind = _FINALS if finals else _SEARCH
    key = zlib.crc32(json.dumps(dict(params), sort_keys=True).encode())
    shared = _normals((judge, kind), prompts)
    own = _normals((judge, kind, trial, key), prompts)
    fresh = _normals((judge, kind, trial, key, step), prompts)
    parts = zip(SHARES, (shared, own, fresh), strict=True)
    normals = sum(share**0.5 * part for share, part in parts)
    assert not isinstance(normals, int)
    spread = np.log1p(truth.kl_sd**2) ** 0.5
    lengths = truth.length * np.exp(
        LENGTH_SPREAD * shared[_LENGTH] - LENGTH_SPREAD**2 / 2
    )  # the prompt decides
    tokens = np.maximum(1.0, np.rint(lengths))
    rates = truth.kl * np.exp(spread * normals[_KL] - spread**2 / 2)
    return Replies(truth.reward + truth.reward_sd * normals[_REWARD], rates * tokens, tokens)


def mean_and_error(values: Floats) -> tuple[float, float]:
    """Mean of independent values and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def ratio_and_error(numerators: Floats, denominators: Floats) -> tuple[float, float]:
    """Pooled ratio over replies and its standard error, by linearisation as the judge has it."""
    count, total = len(numerators), float(denominators.sum())
    value = float(numerators.sum()) / total
    residual = float(np.square(numerators - value * denominators).sum())
    return value, (residual * count / (count - 1)) ** 0.5 / total


def sd_of_kl(relative_error: float, prompts: int) -> float:
    """The `kl_sd` that gives a relative standard error on so many prompts."""
    return float(relative_error * (prompts / np.exp(LENGTH_SPREAD**2)) ** 0.5)


@lru_cache(maxsize=4096)
def _normals(seed: tuple[int, ...], prompts: int) -> Floats:
    drawn = np.random.default_rng(seed).standard_normal((3, prompts))
    drawn.flags.writeable = False
    return drawn
