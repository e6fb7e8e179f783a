"""PPO's formulas on rollouts of TRL 1.12.0's PPOTrainer: the same numbers to 1e-5.

`ppo_1_12_0.json` holds what TRL's own training loop computed (`make_fixture.py` beside it). Two
differences are known and accounted for:

- TRL's rewards and values reach one position past a reply's last token (`padding_one_later`), and
  the score stands there; ours end with the reply. Where replies end early the advantages, returns
  and value losses are therefore computed with TRL's rewards and TRL's wider mask. Where all
  replies have full length the two masks are one, and ours are computed from the scores on.
- TRL averages the approximate KL over padding too, where its terms are 0; ours averages over the
  replies' tokens. Ours times the share of those tokens is TRL's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from easyds_tune.algorithms.ppo_math import (
    gae,
    kl_penalty,
    masked_whiten,
    policy_loss,
    shaped_rewards,
    value_loss,
)

FIXTURE = json.loads(Path(__file__).with_name("ppo_1_12_0.json").read_text(encoding="utf-8"))
CASES = sorted(FIXTURE["cases"])
FULL_LENGTH = [name for name in CASES if name.startswith("full_length")]


class Recorded:
    """One update of TRL's: (B, T) tensors by name, its masks and its settings."""

    def __init__(self, name: str) -> None:
        self._case: dict[str, Any] = FIXTURE["cases"][name]
        self.settings: dict[str, Any] = self._case["settings"]
        self.micro_batches: list[dict[str, Any]] = self._case["micro_batches"]
        self.mask = ~torch.tensor(self._case["padding"]).bool()
        self.wide_mask = ~torch.tensor(self._case["padding_one_later"]).bool()

    def __getitem__(self, name: str) -> Tensor:
        return torch.tensor(self._case[name])

    @property
    def kl(self) -> Tensor:
        """Our estimate, (B, T), on TRL's log-probabilities."""
        estimator = self.settings["kl_estimator"]
        return kl_penalty(self["log_probs"], self["reference_log_probs"], estimator)

    def advantages_and_returns(self, rewards: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ours, unwhitened, on TRL's values."""
        return gae(rewards, self["values"], mask, self.settings["gamma"], self.settings["lam"])


@pytest.fixture(params=CASES)
def trl(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


@pytest.fixture(params=FULL_LENGTH)
def full_length(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_fixture_is_of_the_last_release_with_ppo_and_leaves_the_clip_ranges() -> None:
    assert FIXTURE["versions"]["trl"] == "1.12.0"
    for name in CASES:
        trl = Recorded(name)
        assert (trl["log_probs"] - trl["reference_log_probs"])[trl.mask].abs().mean() > 0.1
        assert all(batch["clip_fraction"] > 0 for batch in trl.micro_batches[2:])
        assert all(batch["value_clip_fraction"] > 0 for batch in trl.micro_batches[2:])


def test_the_ragged_case_has_replies_that_end_early_and_one_that_never_ends() -> None:
    lengths = Recorded("ragged_k1").mask.sum(dim=1)
    assert lengths.min() < 6
    assert lengths.max() == 12
    assert len(set(lengths.tolist())) > 3
    for name in FULL_LENGTH:
        assert Recorded(name).mask.all()


def test_the_kl_shaped_rewards_are_equal_where_replies_have_full_length(
    full_length: Recorded,
) -> None:
    coef = full_length.settings["kl_coef"]
    rewards = shaped_rewards(full_length["scores"], full_length.kl, full_length.mask, coef)
    assert_equal(rewards, full_length["rewards"])


def test_the_kl_shaped_rewards_of_ragged_replies_differ_in_the_place_of_the_score_alone() -> None:
    trl = Recorded("ragged_k1")
    rewards = shaped_rewards(trl["scores"], trl.kl, trl.mask, trl.settings["kl_coef"])
    assert_equal(rewards.sum(dim=1), trl["rewards"].sum(dim=1))
    before_the_last = trl.mask[:, 1:] & trl.mask[:, :-1]
    assert_equal(rewards[:, :-1][before_the_last], trl["rewards"][:, :-1][before_the_last])


def test_advantages_and_returns_are_equal_from_the_scores_on_where_replies_have_full_length(
    full_length: Recorded,
) -> None:
    coef = full_length.settings["kl_coef"]
    rewards = shaped_rewards(full_length["scores"], full_length.kl, full_length.mask, coef)
    advantages, returns = full_length.advantages_and_returns(rewards, full_length.mask)
    assert_equal(masked_whiten(advantages, full_length.mask), full_length["whitened_advantages"])
    assert_equal(returns, full_length["returns"])


def test_advantages_and_returns_are_equal_on_trls_rewards_and_wider_mask(trl: Recorded) -> None:
    advantages, returns = trl.advantages_and_returns(trl["rewards"], trl.wide_mask)
    assert_equal(masked_whiten(advantages, trl.mask), trl["whitened_advantages"])
    assert_equal(returns, trl["returns"])


def test_policy_loss_clip_fraction_and_approximate_kl_are_equal_in_every_micro_batch(
    trl: Recorded,
) -> None:
    advantages, _ = trl.advantages_and_returns(trl["rewards"], trl.wide_mask)
    advantages = masked_whiten(advantages, trl.mask)
    for batch in trl.micro_batches:
        rows = batch["rows"]
        mask = trl.mask[rows]
        ours = policy_loss(
            torch.tensor(batch["log_probs"]),
            trl["log_probs"][rows],
            advantages[rows],
            mask,
            trl.settings["cliprange"],
        )
        assert_equal(ours.loss, torch.tensor(batch["policy_loss"]))
        assert_equal(ours.clip_fraction, torch.tensor(batch["clip_fraction"]))
        share_of_tokens = mask.float().mean()
        assert_equal(ours.approx_kl * share_of_tokens, torch.tensor(batch["approx_kl"]))


def test_value_loss_and_its_clip_fraction_are_equal_in_every_micro_batch(trl: Recorded) -> None:
    _, returns = trl.advantages_and_returns(trl["rewards"], trl.wide_mask)
    for batch in trl.micro_batches:
        rows = batch["rows"]
        ours = value_loss(
            torch.tensor(batch["values"]),
            trl["values"][rows],
            returns[rows],
            trl.wide_mask[rows],
            trl.settings["cliprange_value"],
        )
        assert_equal(ours.loss, torch.tensor(batch["value_loss"]))
        assert_equal(ours.clip_fraction, torch.tensor(batch["value_clip_fraction"]))
