"""Intervals hold what they promise: with known truth, for skewed numbers, ratios and shares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from easyds_tune.results.bootstrap import Estimate, Sample, difference, estimate

RUNS = 800
Draw = Callable[[np.random.Generator, int], Sample]


def normal(rng: np.random.Generator, count: int) -> Sample:
    return Sample("m", rng.normal(0.4, 1.0, count).tolist())


def skewed(rng: np.random.Generator, count: int) -> Sample:
    return Sample("m", rng.exponential(1.0, count).tolist())


def two_sided(rng: np.random.Generator, count: int) -> Sample:
    """As the demo's rewards are: most replies good, some bad, little between."""
    side = np.where(rng.random(count) < 0.85, 1.0, -1.0)
    return Sample("m", (side + rng.normal(0, 0.2, count)).tolist())


def nats(rng: np.random.Generator, count: int) -> Sample:
    tokens = rng.integers(5, 48, count).astype(float)
    return Sample("kl", (tokens * rng.gamma(1.5, 0.1, count)).tolist(), tokens.tolist())


def share(rng: np.random.Generator, count: int) -> Sample:
    return Sample("eval/accuracy", (rng.random(count) < 0.93).astype(float).tolist())


@pytest.mark.parametrize("count", [32, 64, 128])
@pytest.mark.parametrize(
    ("draw", "truth"), [(normal, 0.4), (skewed, 1.0), (two_sided, 0.7), (nats, 0.15), (share, 0.93)]
)
def test_a_95_percent_interval_covers_the_truth_in_90_to_99_percent(
    draw: Draw, truth: float, count: int
) -> None:
    rng = np.random.default_rng(count)
    found = [estimate(draw(rng, count)) for _ in range(RUNS)]
    assert 0.90 <= np.mean([e.low <= truth <= e.high for e in found]) <= 0.99


@pytest.mark.parametrize("count", [32, 64])
def test_a_paired_difference_covers_the_truth_and_is_narrower_than_unpaired(count: int) -> None:
    rng = np.random.default_rng(count)
    covered, widths, alone = 0, [], []
    for _ in range(RUNS):
        prompts = rng.exponential(1.0, count)
        one = Sample("m", (prompts + 0.2 + rng.normal(0, 0.3, count)).tolist())
        other = Sample("m", (prompts + rng.normal(0, 0.3, count)).tolist())
        gap = difference(one, other)
        covered += gap.low <= 0.2 <= gap.high
        widths.append(gap.high - gap.low)
        alone.append(estimate(one).high - estimate(one).low)
    assert 0.90 <= covered / RUNS <= 0.99
    assert np.mean(widths) < 0.6 * np.mean(alone)


def test_a_paired_difference_of_ratios_covers_the_truth() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(RUNS):
        tokens = [rng.integers(5, 48, 64).astype(float) for _ in range(2)]
        rate = rng.gamma(2.0, 0.05, 64)  # what the two have in common
        one, other = (
            Sample("kl", (t * rate * scale).tolist(), t.tolist())
            for t, scale in zip(tokens, (1.5, 1.0), strict=True)
        )
        gap = difference(one, other)
        covered += gap.low <= 0.05 <= gap.high
    assert 0.90 <= covered / RUNS <= 0.99


def test_accuracies_of_pairs_differ_by_what_their_pairs_say() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(RUNS):
        one, other = (rng.random(40) < share for share in (0.95, 0.85))
        gap = difference(
            Sample("eval/accuracy", one.astype(float).tolist()),
            Sample("eval/accuracy", other.astype(float).tolist()),
        )
        covered += gap.low <= 0.10 <= gap.high
    assert 0.90 <= covered / RUNS <= 0.99


def test_the_value_is_the_mean_or_the_pooled_ratio_and_bits_repeat() -> None:
    ratio = Sample("kl", [1.0, 2.0, 6.0], [10.0, 10.0, 40.0])
    assert (ratio.value, estimate(ratio).value) == (0.15, pytest.approx(0.15))
    mean = Sample("m", [1.0, 2.0, 6.0, 4.0])
    assert (mean.value, estimate(mean).value) == (3.25, 3.25)
    assert estimate(mean) == estimate(Sample("m", (1.0, 2.0, 6.0, 4.0)))
    assert mean.part(0).values == [1.0, 6.0]
    assert ratio.part(1) == Sample("kl", [2.0], [10.0])


def test_without_spread_the_interval_is_a_point_and_shares_are_never_certain() -> None:
    assert estimate(Sample("m", [2.0] * 8)) == Estimate(2.0, 2.0, 2.0)
    same = Sample("m", [1.0, 3.0, 2.0])
    assert difference(same, same) == Estimate(0.0, 0.0, 0.0)
    assert difference(same, same).holds_zero
    all_right = estimate(Sample("eval/accuracy", [1.0] * 43))
    assert (all_right.value, all_right.high) == (1.0, pytest.approx(1.0))
    assert 0.9 < all_right.low < 0.95
    right = Sample("eval/accuracy", [1.0] * 43)
    assert difference(right, right).low < 0 < difference(right, right).high


def test_few_values_that_hardly_differ_still_give_finite_ends() -> None:
    for values in ([0.0] * 15 + [1.0], [0.0, 1.0], [0.0, 0.0, 0.0, 1e-12]):
        found = estimate(Sample("m", values))
        assert -2 < found.low <= found.value <= found.high < 2
