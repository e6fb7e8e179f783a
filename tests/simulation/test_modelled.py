"""Modelled landscapes by hand, and the three of the benchmark as what they are called."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest

from easyds_tune.simulation.curves import load_landscape
from easyds_tune.simulation.modelled import ModelledLandscape
from tests.simulation.landscapes import LOSS, MODELLED, RATE

LANDSCAPES = Path(__file__).parents[1] / "benchmarks" / "decisions" / "landscapes"
BETA, SMOOTHING, RANK = "algorithm.beta", "algorithm.label_smoothing", "model.lora_r"


def test_a_checkpoint_by_hand() -> None:
    landscape = ModelledLandscape.read(MODELLED | {"reward_of_kl": {"size": 1.0, "scale": 0.5}})
    truth = landscape.truth({RATE: 1e-2, LOSS: "hinge"}, 2)
    progress = 1 - math.exp(-2)
    kl = 1.0 * progress  # exp(-2 + 2)
    assert truth.kl == pytest.approx(kl)
    gain = 0.5 - 0.4 + 0.2  # (1 - 0.5) / 0.5 squared is 1
    assert truth.reward == pytest.approx(-0.1 + gain * progress + 1 - math.exp(-kl / 0.5))
    assert landscape.start() == -0.1


def test_on_the_hacking_landscape_the_best_reward_is_outside_the_bound() -> None:
    landscape = load_landscape(LANDSCAPES / "hacking.yaml")
    found = [
        landscape.truth({RATE: rate, BETA: beta, SMOOTHING: 0.1, RANK: 32}, 54)
        for rate, beta in product((1e-4, 1e-3, 3e-3, 1e-2), (0.03, 0.1, 0.5))
    ]
    best = max(found, key=lambda truth: truth.reward)
    inside = max(truth.reward for truth in found if truth.kl <= 0.2)
    assert best.kl > 0.4
    assert best.reward > inside + 0.3


def test_on_the_crossing_landscape_slow_starters_win() -> None:
    landscape = load_landscape(LANDSCAPES / "crossing.yaml")
    slow, fast = (
        [landscape.truth({RATE: rate, BETA: 0.12, SMOOTHING: 0.06, RANK: 16}, step).reward
         for step in (9, 81)]
        for rate in (1.5e-4, 1.6e-3)
    )  # fmt: skip
    assert slow[0] < fast[0] - 0.1
    assert slow[1] > fast[1] + 0.1


def test_on_the_flat_landscape_nothing_matters() -> None:
    landscape = load_landscape(LANDSCAPES / "flat.yaml")
    found = {
        landscape.truth({RATE: rate, BETA: beta, RANK: rank}, step).reward
        for rate, beta, rank, step in product((1e-4, 1e-2), (0.03, 0.5), (8, 32), (6, 54))
    }
    assert found == {0.3}
