"""A rollout is a function of (seed, step), and its measures are those of naive full passes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easyds_tune.algorithms.critic import Critic
from easyds_tune.algorithms.rollout import Rollout, draw_rollout, prompts_of_step, token_log_probs
from easyds_tune.algorithms.row import TrialInputs
from easyds_tune.data.records import Message
from easyds_tune.errors import DivergedError
from easyds_tune.models.actor import Actor
from easyds_tune.models.generate import without_adapter
from easyds_tune.models.stack import reference_of, with_policy_adapter
from easyds_tune.spec.algorithm import PPOSpec
from tests.algorithms.small_ppo import ppo_spec
from tests.models.adapters import moved
from tests.trial.small import Lab

TEMPERATURE = 0.8


@dataclass
class Stage:
    """An actor and all it takes to draw with it."""

    actor: Actor
    critic: Critic | None
    inputs: TrialInputs
    ppo: PPOSpec

    def draw(self, *, seed: int = 1, step: int = 1, **changes: Any) -> Rollout:
        """A rollout; changes are of the algorithm's settings."""

        @contextmanager
        def reference() -> Iterator[nn.Module]:
            with reference_of(self.actor.policy) as model:
                yield model

        ppo = self.ppo.model_copy(update=changes)
        return draw_rollout(
            self.actor, self.critic, reference, self.inputs, ppo, seed=seed, step=step
        )


def stage_of(folder: Path) -> Stage:
    lab = Lab(ppo_spec(algorithm={"temperature": TEMPERATURE}), folder)
    trial = lab.trial()
    inputs = lab.bench.lend(trial)
    torch.manual_seed(0)
    policy = with_policy_adapter(inputs.base, trial.model)
    actor = Actor(policy, shows_states=True).eval()
    critic = Critic(actor.state_size, torch.device("cpu"), 0.1, max_grad_norm=1.0)
    return Stage(actor, critic, inputs, trial.algorithm)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """At the start of a trial."""
    return stage_of(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """With an adapter and a value head that do something."""
    stage = stage_of(tmp_path_factory.mktemp("trained"))
    moved(stage.actor.policy, 0.1)
    state = stage.critic.state()
    state["head"]["weight"] += 0.1 * torch.randn(state["head"]["weight"].shape)
    stage.critic.restore(state | {"moments": (2.0, 9.0)})
    return stage


@pytest.fixture(scope="module")
def rollout(trained: Stage) -> Rollout:
    return trained.draw()


# ---- prompts --------------------------------------------------------------------------------


def test_each_pass_takes_every_prompt_once_in_an_order_of_its_own() -> None:
    """Steps of 3 from 7 prompts: 7 steps make 3 passes, whose borders fall inside of steps."""
    places = [place for step in range(1, 8) for place in prompts_of_step(7, step, 3, seed=5)]
    passes = [places[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(order) == list(range(7)) for order in passes)
    assert len({tuple(order) for order in passes}) == 3


def test_a_step_that_wants_more_than_there_is_goes_round() -> None:
    assert set(Counter(prompts_of_step(4, 1, 10, seed=5)).values()) == {2, 3}
    assert set(Counter(prompts_of_step(4, 1, 8, seed=5)).values()) == {2}


def test_a_single_prompt_is_taken_again_and_again() -> None:
    assert prompts_of_step(1, 9, 3, seed=5) == [0, 0, 0]


def test_the_seed_decides_the_order() -> None:
    one, other = (prompts_of_step(50, 1, 50, seed=seed) for seed in (1, 2))
    assert one != other
    assert one == prompts_of_step(50, 1, 50, seed=1)


# ---- what is drawn --------------------------------------------------------------------------


def test_the_batch_size_of_the_forward_passes_changes_speed_alone(
    trained: Stage, rollout: Rollout
) -> None:
    again = trained.draw(rollout_forward_batch_size=3)
    assert again.prompts == rollout.prompts
    assert again.replies == rollout.replies
    assert torch.equal(again.mask, rollout.mask)
    for name in ("scores", "log_p", "log_q", "kl", "entropy", "values"):
        torch.testing.assert_close(
            getattr(again, name), getattr(rollout, name), rtol=1e-4, atol=1e-5
        )


def test_the_same_seed_and_step_draw_the_same_bits_and_leave_torchs_generator_alone(
    trained: Stage, rollout: Rollout
) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = trained.draw()
    assert torch.equal(torch.get_rng_state(), state)
    assert again.replies == rollout.replies
    assert torch.equal(again.log_p, rollout.log_p)


@pytest.mark.parametrize("other", [{"step": 2}, {"seed": 2}])
def test_another_step_or_seed_draws_other_replies_to_other_prompts(
    trained: Stage, rollout: Rollout, other: dict[str, int]
) -> None:
    different = trained.draw(**other)
    assert different.prompts != rollout.prompts
    assert different.replies != rollout.replies


def test_replies_to_one_prompt_are_neighbours_and_differ(trained: Stage) -> None:
    groups = trained.draw(num_generations=4)
    assert len(groups.prompts) == 16
    starts = range(0, 16, 4)
    assert all(len(set(map(tuple, groups.prompts[s : s + 4]))) == 1 for s in starts)
    assert len({tuple(groups.prompts[s]) for s in starts}) == 4
    assert any(len(set(map(tuple, groups.replies[s : s + 4]))) > 1 for s in starts)
    single = trained.draw(num_generations=1, rollout_batch_size=4)
    assert [groups.prompts[s] for s in starts] == single.prompts


def test_a_reply_stands_at_the_end_of_its_row_and_nothing_outside_of_it(
    trained: Stage, rollout: Rollout
) -> None:
    longest = max(map(len, rollout.replies))
    lengths = torch.tensor([len(reply) for reply in rollout.replies])
    assert lengths.min() < longest <= trained.ppo.response_length
    assert torch.equal(rollout.mask, torch.arange(longest) >= longest - lengths[:, None])
    for name in ("log_p", "log_q", "kl", "entropy", "values"):
        values = getattr(rollout, name)
        assert values.dtype == torch.float32
        assert torch.equal(values[~rollout.mask], torch.zeros((~rollout.mask).sum()))


def test_a_reply_has_ended_where_its_last_token_is_an_end(trained: Stage, rollout: Rollout) -> None:
    ends = trained.inputs.end_token_ids
    assert rollout.ended.tolist() == [reply[-1] in ends for reply in rollout.replies]
    assert rollout.ended.any()
    assert not rollout.ended.all()
    assert not any(token in ends for reply in rollout.replies for token in reply[:-1])


def test_scores_are_the_rewards_of_the_texts_in_order(trained: Stage, rollout: Rollout) -> None:
    asked = {
        tuple(ids): tuple(messages)
        for ids, messages in zip(
            trained.inputs.train["prompt_ids"], trained.inputs.train["messages"], strict=True
        )
    }
    texts = [trained.inputs.encoder.text(reply) for reply in rollout.replies]
    for row in (0, 7, 15):
        prompt = asked[tuple(rollout.prompts[row])]
        (wanted,) = trained.inputs.reward.score([prompt], [texts[row]])
        assert rollout.scores[row].item() == pytest.approx(wanted.item(), abs=1e-5)


# ---- what is measured -----------------------------------------------------------------------


def test_measures_are_those_of_naive_full_passes(trained: Stage, rollout: Rollout) -> None:
    """Row by row, without padding, without leaving out a logit: to 1e-5."""
    policy = trained.actor.policy
    for row, (prompt, reply) in enumerate(zip(rollout.prompts, rollout.replies, strict=True)):
        ids = torch.tensor([prompt + reply])
        with torch.no_grad():
            output = policy(input_ids=ids, output_hidden_states=True)
            with without_adapter(policy):
                reference = policy(input_ids=ids).logits
        here = slice(len(prompt) - 1, -1)
        p, q = output.logits[0, here], reference[0, here]
        log_p, log_q = (x.div(TEMPERATURE).log_softmax(dim=-1) for x in (p, q))
        tokens = torch.tensor(reply)[:, None]
        flat_p, flat_q = p.log_softmax(dim=-1), q.log_softmax(dim=-1)
        wanted: dict[str, Tensor] = {
            "log_p": log_p.gather(1, tokens)[:, 0],
            "log_q": log_q.gather(1, tokens)[:, 0],
            "kl": (flat_p.exp() * (flat_p - flat_q)).sum(dim=-1),
            "entropy": -(log_p.exp() * log_p).sum(dim=-1),
            "values": trained.critic.values(output.hidden_states[-1][0, here]),
        }
        for name, values in wanted.items():
            found = getattr(rollout, name)[row, rollout.mask[row]]
            torch.testing.assert_close(found, values.detach(), rtol=1e-5, atol=1e-5, msg=name)
    assert rollout.kl.mean() > 0.01


def test_at_the_start_of_a_trial_the_kl_is_exactly_0(fresh: Stage) -> None:
    rollout = fresh.draw()
    assert torch.equal(rollout.kl, torch.zeros_like(rollout.kl))
    assert torch.equal(rollout.log_p, rollout.log_q)
    assert torch.equal(rollout.values, torch.zeros_like(rollout.values))


def test_without_a_critic_values_are_0(fresh: Stage) -> None:
    actor = Actor(fresh.actor.policy, shows_states=False)
    critic_free = replace(fresh, actor=actor, critic=None)
    rollout = critic_free.draw(num_generations=2)
    assert torch.equal(rollout.values, torch.zeros(rollout.mask.shape))


def test_drawing_leaves_what_is_trained_trainable(fresh: Stage) -> None:
    before = [weight.requires_grad for weight in fresh.actor.parameters()]
    fresh.draw()
    assert [weight.requires_grad for weight in fresh.actor.parameters()] == before
    assert all(weight.grad is None for weight in fresh.actor.parameters())


def test_the_log_probability_of_a_token_at_a_temperature() -> None:
    # Logits 0 and ln 4 at temperature 2 are 0 and ln 2: 1/3 and 2/3.
    logits = torch.tensor([[0.0, math.log(4)], [0.0, math.log(4)]])
    found = token_log_probs(logits, torch.tensor([0, 1]), 2.0)
    torch.testing.assert_close(found, torch.tensor([1 / 3, 2 / 3]).log())


# ---- divergence -----------------------------------------------------------------------------


class Constant:
    """A reward that gives every reply the same score."""

    def __init__(self, score: float) -> None:
        self.value = score

    def score(self, prompts: Sequence[tuple[Message, ...]], replies: Sequence[str]) -> Tensor:
        return torch.full((len(replies),), self.value)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_not_finite_diverges_and_names_the_step(fresh: Stage, score: float) -> None:
    stage = replace(fresh, inputs=replace(fresh.inputs, reward=Constant(score)))
    with pytest.raises(DivergedError, match="reward of a reply is not finite at step 7"):
        stage.draw(step=7)


def test_values_and_log_probabilities_that_are_not_finite_diverge(tmp_path: Path) -> None:
    stage = stage_of(tmp_path)
    stage.critic.restore(stage.critic.state() | {"moments": (math.nan, 1.0)})
    with pytest.raises(DivergedError, match="values of the rollout is not finite at step 3"):
        stage.draw(step=3)
    with torch.no_grad():
        for weight in stage.actor.policy.parameters():
            if weight.requires_grad:
                weight.fill_(math.inf)
    with pytest.raises(DivergedError, match="log_p of the rollout is not finite at step 4"):
        stage.draw(step=4)
