"""95 % intervals of what was measured prompt by prompt, and of paired differences.

Studentised bootstrap over prompts (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
section 12.5): rewards and KL are skewed, where ± 1.96 standard errors and plain percentiles cover
too little. Shares such as an accuracy, of which a small sample may be all ones, get Wilson's
interval, and their paired differences that of Agresti and Min (Statistics in Medicine 24, 2005).
Fixed random numbers: the same sample gives the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from easyds_tune.journal.intervals import SHARES

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000
_SEED = 20_260_901
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Sample:
    """One metric of one checkpoint, prompt by prompt: Σ values / Σ weights, or the mean."""

    metric: str
    values: Sequence[float]
    weights: Sequence[float] | None = None

    def part(self, offset: int) -> Sample:
        """Every second prompt: those with an even index for offset 0, an odd one for 1."""
        weights = None if self.weights is None else self.weights[offset::2]
        return Sample(self.metric, self.values[offset::2], weights)

    @property
    def value(self) -> float:
        """The metric itself."""
        total = math.fsum(self.values)
        return total / (len(self.values) if self.weights is None else math.fsum(self.weights))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether 0 lies inside the interval."""
        return self.low <= 0 <= self.high


def estimate(sample: Sample) -> Estimate:
    """The value of a metric with its interval; at least two prompts."""
    if sample.weights is None and sample.metric.endswith(SHARES):
        return _wilson(sample.values)
    return _studentised([sample])


def difference(one: Sample, other: Sample) -> Estimate:
    """`one` minus `other`, measured on the same prompts in the same order, with its interval."""
    assert len(one.values) == len(other.values)
    if one.weights is None and one.metric.endswith(SHARES):
        return _agresti_min([a - b for a, b in zip(one.values, other.values, strict=True)])
    return _studentised([one, other])


def _studentised(samples: Sequence[Sample]) -> Estimate:
    """Interval of the first sample's ratio, minus the second's if there is one.

    Ratios are linearised: a resample of the prompts has the influences u = (y - R x) / mean(x),
    whose spread is the standard error that its own deviation is divided by.
    """
    import numpy as np

    count = len(samples[0].values)
    assert count >= 2, "an interval needs two prompts"
    weights = [np.asarray(s.weights if s.weights is not None else [1.0] * count) for s in samples]
    ratios = [float(np.sum(s.values) / w.sum()) for s, w in zip(samples, weights, strict=True)]
    value = ratios[0] - (ratios[1] if len(ratios) > 1 else 0.0)
    # Residuals keep the sums of squares below free of cancellation.
    residuals = [
        np.asarray(s.values) - ratio * w
        for s, ratio, w in zip(samples, ratios, weights, strict=True)
    ]
    columns = [column for pair in zip(residuals, weights, strict=True) for column in pair]
    signs = [1.0, -1.0][: len(samples)]
    draws = _draws(count)  # (resamples, prompts): how often each prompt is drawn
    sums = draws @ np.stack(columns, axis=1)
    shifts = [sums[:, 2 * k] / sums[:, 2 * k + 1] for k in range(len(samples))]
    deviation = sum(sign * shift for sign, shift in zip(signs, shifts, strict=True))

    # u = Σ_k sign_k / mean(x_k) · (residual_k - shift_k · x_k): its coefficients on the columns.
    coefficients = []
    for k, (sign, shift) in enumerate(zip(signs, shifts, strict=True)):
        scale = sign * count / sums[:, 2 * k + 1]
        coefficients += [scale, -scale * shift]
    squares = np.zeros(len(draws))
    for i, left in enumerate(columns):
        for j, right in enumerate(columns):
            squares += coefficients[i] * coefficients[j] * (draws @ (left * right))
    errors = np.sqrt(np.maximum(squares, 0.0) / (count - 1) / count)

    influence = sum(
        sign * residual / w.mean()
        for sign, residual, w in zip(signs, residuals, weights, strict=True)
    )
    error = float(np.sqrt(np.sum(np.square(influence)) / (count - 1) / count))
    if error == 0:
        return Estimate(value, value, value)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(errors > 1e-9 * error, deviation / errors, np.sign(deviation) * np.inf)
    lower, upper = np.quantile(
        np.where(np.isnan(ratio), 0.0, ratio), [0.025, 0.975], method="nearest"
    )
    # A sample of few different values has resamples without any spread; those say nothing.
    lower, upper = (float(t) if math.isfinite(t) else math.copysign(_Z, t) for t in (lower, upper))
    return Estimate(value, value - upper * error, value - lower * error)


@lru_cache(maxsize=16)
def _draws(count: int) -> NDArray[Any]:
    import numpy as np

    rng = np.random.Generator(np.random.Philox(_SEED))
    return rng.multinomial(count, [1 / count] * count, size=RESAMPLES).astype(np.float64)


def _wilson(values: Sequence[float]) -> Estimate:
    count = len(values)
    share = math.fsum(values) / count
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    spread = (share * (1 - share) / count + _Z**2 / (4 * count**2)) ** 0.5
    half = _Z * spread / (1 + _Z**2 / count)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def _agresti_min(differences: Sequence[float]) -> Estimate:
    """Half a prompt is added to each of the four outcomes of a pair, then ± 1.96 errors."""
    count = len(differences) + 2
    mean = math.fsum(differences) / count
    square = (math.fsum(d * d for d in differences) + 1.0) / count
    half = _Z * ((square - mean**2) / count) ** 0.5
    value = math.fsum(differences) / len(differences)
    return Estimate(value, max(-1.0, mean - half), min(1.0, mean + half))
