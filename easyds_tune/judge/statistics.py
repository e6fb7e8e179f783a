"""Estimates with their standard errors, over prompts. Pure numbers: no model, no text."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """A value and its standard error, in the value's unit."""

    value: float
    stderr: float


def mean(values: Tensor) -> Estimate:
    """Mean of n >= 2 independent values, shape (n,), and s / sqrt(n) with s² over n - 1."""
    values = values.double()
    return Estimate(values.mean().item(), values.std().item() / len(values) ** 0.5)


def ratio(numerators: Tensor, denominators: Tensor) -> Estimate:
    """Pooled ratio R = Σy / Σx over n >= 2 clusters, and its standard error.

    y, x: (n,), the clusters' totals, say nats and tokens of a prompt's reply. Tokens of one reply
    are not independent, replies are; so the error is the ratio estimator's by linearisation,
    sqrt(n / (n - 1) · Σ (y - R·x)²) / Σx  (Cochran, Sampling Techniques, 3rd ed., 1977, ch. 6,
    without the finite-population factor).
    """
    y, x = numerators.double(), denominators.double()
    count = len(y)
    value = y.sum() / x.sum()
    residual = (y - value * x).square().sum()
    stderr = (residual * count / (count - 1)).sqrt() / x.sum()
    return Estimate(value.item(), stderr.item())
