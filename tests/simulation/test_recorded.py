"""Recorded landscapes: near a recorded trial its own smoothed curve, in between no jumps."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from easyds_tune.simulation.recorded import NEIGHBOURS, RecordedLandscape

RATE, RANK = "training.learning_rate", "model.lora_r"


def recorded(values: list[float], ranks: list[int] | None = None) -> dict[str, Any]:
    """Trials along one parameter, each with a flat curve of its value and a rising KL."""
    count = len(values)
    return {
        "space": {RATE: {"low": 0.0, "high": 1.0}, RANK: [8, 16]},
        "steps": [2, 4, 6],
        "tokens_per_step": 10.0,
        "seconds_per_step": 1.0,
        "prompts": 64,
        "start": -0.2,
        "trials": [
            {
                "params": {RATE: index / (count - 1), RANK: (ranks or [8] * count)[index]},
                "metrics": {
                    "eval/reward": [value] * 3,
                    "eval/reward_stderr": [0.1] * 3,
                    "eval/kl": [0.01, 0.02, 0.04],
                    "eval/kl_stderr": [0.001, 0.002, 0.004],
                    "eval/length": [20.0] * 3,
                    "train/loss": [0.6] * 3,
                    "train/grad_norm": [0.3] * 3,
                },
            }
            for index, value in enumerate(values)
        ],
    }


def test_flat_data_give_flat_truth_with_the_recorded_errors() -> None:
    landscape = RecordedLandscape.read(recorded([0.5] * 12))
    truth = landscape.truth({RATE: 0.37, RANK: 8}, 4)
    assert truth.reward == pytest.approx(0.5)
    assert truth.reward_sd == pytest.approx(0.1 * 64**0.5)
    assert landscape.max_steps == 6
    # A quarter of both neighbours, in logarithms: the middle of a geometric row stays.
    assert truth.kl == pytest.approx(0.02)
    # At the ends a third of one neighbour.
    assert landscape.truth({RATE: 0.37, RANK: 8}, 6).kl == pytest.approx(
        math.exp((2 * math.log(0.04) + math.log(0.02)) / 3)
    )


def test_the_truth_follows_the_trials_and_never_leaves_their_range() -> None:
    values = [index / 20 for index in range(21)]
    landscape = RecordedLandscape.read(recorded(values))
    at = [landscape.truth({RATE: place, RANK: 8}, 4).reward for place in np.linspace(0, 1, 101)]
    assert min(at) >= 0.0
    assert max(at) <= 1.0
    assert at[50] == pytest.approx(0.5, abs=0.03)
    assert max(abs(b - a) for a, b in pairwise(at)) < 0.06  # no jump


def test_another_choice_is_farther_away() -> None:
    ranks = [8, 16] * 10
    values = [1.0 if rank == 16 else 0.0 for rank in ranks]
    landscape = RecordedLandscape.read(recorded(values, ranks))
    assert landscape.truth({RATE: 0.5, RANK: 16}, 4).reward > 0.9
    assert landscape.truth({RATE: 0.5, RANK: 8}, 4).reward < 0.1


def test_too_few_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="more than"):
        RecordedLandscape.read(recorded([0.5] * NEIGHBOURS))
