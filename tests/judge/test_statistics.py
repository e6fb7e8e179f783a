"""Estimates and standard errors against numbers computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from easyds_tune.judge.statistics import mean, ratio


def test_mean_and_its_standard_error() -> None:
    # s² = (2.25 + 0.25 + 0.25 + 2.25) / 3 = 5/3; error = sqrt(5/3 / 4)
    estimate = mean(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert estimate.value == 2.5
    assert estimate.stderr == pytest.approx(math.sqrt(5 / 12))


def test_pooled_ratio_and_its_standard_error() -> None:
    # R = 6 / 4; residuals 0 - 1.5, 6 - 4.5; error = sqrt(2 / 1 * (2.25 + 2.25)) / 4 = 3 / 4
    estimate = ratio(torch.tensor([0.0, 6.0]), torch.tensor([1, 3]))
    assert estimate.value == 1.5
    assert estimate.stderr == pytest.approx(0.75)


def test_with_equal_lengths_the_ratio_is_the_mean_per_token() -> None:
    nats = torch.tensor([3.0, 1.0, 7.0, 2.0])
    estimate, by_mean = ratio(nats, torch.full((4,), 10)), mean(nats / 10)
    assert estimate.value == pytest.approx(by_mean.value)
    assert estimate.stderr == pytest.approx(by_mean.stderr)


def test_the_ratios_standard_error_is_its_spread_over_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 50, (4000, 64), generator=generator)
    # A reply's level is shared by all its tokens: they are not independent.
    levels = 0.1 + 0.05 * torch.randn(4000, 64, generator=generator)
    estimates = [ratio(levels[n] * lengths[n], lengths[n]) for n in range(4000)]
    spread = torch.tensor([estimate.value for estimate in estimates]).std().item()
    told = sum(estimate.stderr for estimate in estimates) / 4000
    assert told == pytest.approx(spread, rel=0.05)


def test_a_value_that_is_not_finite_is_not_hidden() -> None:
    assert math.isnan(mean(torch.tensor([1.0, math.nan])).value)
    assert math.isnan(ratio(torch.tensor([1.0, math.nan]), torch.tensor([1, 1])).value)
