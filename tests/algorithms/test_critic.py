"""The value head: its scale, its own optimizer, and what its loss is in."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from easyds_tune.algorithms.critic import Critic

CPU = torch.device("cpu")
MASK = torch.tensor([[False, True, True], [True, True, True]])


def critic_of(size: int = 8, **changes: Any) -> Critic:
    return Critic(size, CPU, **{"learning_rate": 0.1, "max_grad_norm": 1.0} | changes)


def states_of(size: int = 8, rows: int = 2, tokens: int = 3) -> Tensor:
    return torch.randn(rows, tokens, size, generator=torch.Generator().manual_seed(1))


def learn(critic: Critic, states: Tensor, returns: Tensor, mask: Tensor, updates: int) -> None:
    """As the loop does: one rollout at a time, the values as they were when it was drawn."""
    for _ in range(updates):
        old_values = critic.values(states).detach()
        critic.scale_to(returns, mask)
        loss = critic.loss(states, old_values, returns, mask, 0.2, int(mask.sum()))
        critic.backward(loss.loss)
        critic.step()


def test_every_value_is_0_at_the_start() -> None:
    assert torch.equal(critic_of().values(states_of()), torch.zeros(2, 3))


def test_rescaling_leaves_every_value_as_it_was() -> None:
    critic, states = critic_of(), states_of()
    learn(critic, states, torch.tensor([[0.0, 3.0, 5.0], [1.0, 2.0, 4.0]]), MASK, 3)
    before = critic.values(states)
    critic.scale_to(torch.tensor([[0.0, 900.0, -70.0], [10.0, 200.0, 4.0]]), MASK)
    torch.testing.assert_close(critic.values(states), before)


def test_the_first_scale_is_that_of_the_first_returns_and_others_come_in_by_a_tenth() -> None:
    critic = critic_of()
    critic.scale_to(torch.tensor([[99.0, 1.0, 1.0], [3.0, 5.0, 5.0]]), MASK)
    # 1, 1, 3, 5, 5: mean 3, and 61 / 5 the mean square around the values of 0. Masked ones not.
    assert critic.state()["moments"] == pytest.approx((3.0, 12.2))
    critic.scale_to(torch.full((2, 3), 13.0), MASK)
    # Mean 3 + 0.1 × 10; variance 0.9 × 12.2 + 0.09 × 10².
    assert critic.state()["moments"] == pytest.approx((4.0, 19.98))


def test_the_loss_is_in_spreads_of_the_returns() -> None:
    critic, states = critic_of(), states_of()
    returns = torch.tensor([[0.0, 10.0, 10.0], [30.0, 50.0, 50.0]])
    critic.scale_to(returns, MASK)  # a mean square of 1220; every value is 0 still
    found = critic.loss(states, torch.zeros(2, 3), returns, MASK, 0.2, 5)
    # Half the mean of 10² 10² 30² 50² 50² over 1220.
    assert found.loss.item() == pytest.approx(0.5)
    assert found.clip_fraction == 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_returns_of_any_scale_are_learnt_alike(scale: float) -> None:
    states = states_of(rows=64)
    mask = torch.ones(64, 3, dtype=torch.bool)
    returns = scale * (5.0 + states[..., 0] - 2 * states[..., 3])
    critic = critic_of(learning_rate=0.5)
    learn(critic, states, returns, mask, 150)
    missed = (critic.values(states) - returns).var() / returns.var()
    assert missed < 0.2


@pytest.mark.parametrize("size", [8, 512])
def test_one_update_moves_a_value_by_about_the_learning_rate_whatever_the_width(size: int) -> None:
    """States all alike, so every weight pulls one way: the most that an update can move."""
    critic, states = critic_of(size), torch.ones(2, 3, size)
    learn(critic, states, torch.tensor([[0.0, 9.0, 9.0], [9.0, 9.0, 11.0]]), MASK, 1)
    spread = critic.state()["moments"][1] ** 0.5
    # The weights together move it by the learning rate, and the bias as much again.
    assert critic.values(states).mean().item() == pytest.approx(0.2 * spread, rel=0.01)


def test_the_norm_is_told_before_clipping_and_the_next_update_starts_from_no_gradient() -> None:
    critic, states = critic_of(max_grad_norm=1e-3), states_of()
    returns = torch.tensor([[0.0, 3.0, 5.0], [1.0, 2.0, 4.0]])
    critic.scale_to(returns, MASK)
    for _ in range(2):
        critic.backward(critic.loss(states, torch.zeros(2, 3), returns, MASK, 0.2, 5).loss)
        norm = critic.step()
        assert 0.5 < norm < 20
    assert critic.step() == 0.0


def test_returns_without_a_spread_are_learnt_too() -> None:
    critic, states, returns = critic_of(), states_of(), torch.full((2, 3), -2.0)
    critic.scale_to(returns, MASK)
    found = critic.loss(states, torch.zeros(2, 3), returns, MASK, 0.2, 5)
    assert found.loss.item() == pytest.approx(0.5)
    learn(critic, states, returns, MASK, 30)
    torch.testing.assert_close(critic.values(states)[MASK], returns[MASK], rtol=0.2, atol=0.0)


def test_a_critic_continues_from_its_file_with_the_same_bits() -> None:
    states, returns = states_of(), torch.tensor([[0.0, 3.0, 5.0], [1.0, 2.0, 4.0]])
    one, other = critic_of(), critic_of()
    learn(one, states, returns, MASK, 2)
    file = io.BytesIO()
    torch.save(one.state(), file)
    file.seek(0)
    other.restore(torch.load(file, weights_only=True))
    for critic in (one, other):
        learn(critic, states, returns, MASK, 2)
    assert torch.equal(other.values(states), one.values(states))
