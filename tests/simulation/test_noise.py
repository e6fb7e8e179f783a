"""A simulated judge is wrong as a real one is: unbiased, by its standard error, and stubbornly."""

from __future__ import annotations

import numpy as np
import pytest

from easyds_tune.simulation.noise import (
    SHARES,
    Truth,
    draw_replies,
    mean_and_error,
    ratio_and_error,
    sd_of_kl,
)

TRUTH = Truth(
    reward=0.3, kl=0.1, length=20.0, reward_sd=0.08 * 128**0.5, kl_sd=sd_of_kl(0.1, 128), others={}
)
PARAMS = {"training.learning_rate": 1e-3}


def judged(
    judge: int, *, params: dict[str, float] = PARAMS, step: int = 6, finals: bool = False
) -> tuple[tuple[float, float], tuple[float, float]]:
    replies = draw_replies(TRUTH, params, step, judge=judge, trial=0, prompts=128, finals=finals)
    return mean_and_error(replies.rewards), ratio_and_error(replies.nats, replies.tokens)


def test_over_many_judges_the_mean_is_true_and_the_spread_is_the_standard_error() -> None:
    found = [judged(judge) for judge in range(250)]
    rewards = np.array([reward for reward, _ in found])
    kls = np.array([kl for _, kl in found])
    assert rewards[:, 0].mean() == pytest.approx(0.3, abs=0.016)
    assert rewards[:, 0].std() == pytest.approx(0.08, rel=0.15)
    assert rewards[:, 1].mean() == pytest.approx(0.08, rel=0.02)
    assert kls[:, 0].mean() == pytest.approx(0.1, rel=0.02)
    assert kls[:, 0].std() == pytest.approx(0.01, rel=0.15)
    assert kls[:, 1].mean() == pytest.approx(0.01, rel=0.1)


def test_the_same_arguments_give_the_same_replies() -> None:
    assert judged(3) == judged(3)
    assert judged(3) != judged(4)
    assert judged(3) != judged(3, finals=True)


def test_a_trial_keeps_most_of_its_error_at_its_next_step_and_another_shares_little() -> None:
    first, next_step, other_trial = (
        np.array([judged(judge, **changed)[0][0] for judge in range(250)])
        for changed in ({}, {"step": 12}, {"params": {"training.learning_rate": 2e-3}})
    )
    prompt, trial, _ = SHARES
    assert np.corrcoef(first, next_step)[0, 1] == pytest.approx(prompt + trial, abs=0.1)
    assert np.corrcoef(first, other_trial)[0, 1] == pytest.approx(prompt, abs=0.15)


def test_a_ratio_by_hand() -> None:
    # 3 / 6 = 0.5; residuals 0, 0.5, -0.5: sqrt(0.5 * 3 / 2) / 6.
    value, error = ratio_and_error(np.array([1.0, 1.5, 0.5]), np.array([2.0, 2.0, 2.0]))
    assert (value, error) == pytest.approx((0.5, 0.75**0.5 / 6))
