"""PPO's loop in small real trials: what it computes, keeps, restores and leaves behind."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from easyds_tune.algorithms import ppo as loop
from easyds_tune.algorithms.kl_control import controller_of
from easyds_tune.algorithms.ppo_math import RunningMoments
from easyds_tune.algorithms.rollout import Rollout
from easyds_tune.data.records import Message
from easyds_tune.errors import CheckpointError, DivergedError
from easyds_tune.models.deepspeed import start_engine
from easyds_tune.rewards.reward import Reward
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.trial.checkpoint import verify_checkpoint
from easyds_tune.trial.run import Report
from easyds_tune.trial.workbench import Workbench
from tests.algorithms.small_ppo import ppo_spec
from tests.models.adapters import sft_adapter
from tests.rewards.adapters import reward_adapter
from tests.trial.small import TUTOR, Lab, bits

LOSSES = (
    "train/loss", "train/policy_loss", "train/value_loss", "train/approx_kl", "train/grad_norm",
    "train/value_grad_norm",
)  # fmt: skip
CRITIC_FREE = {"algorithm__num_generations": 4}
ALL_STATE: dict[str, Any] = {
    "algorithm__normalize_rewards": True,
    "algorithm__lr_adjust_factor": 1.5,
    "training__warmup_steps": 1,
    "training__lr_scheduler_type": "cosine",
}
"""Settings under which everything that a checkpoint holds decides what comes next."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(ppo_spec(), tmp_path_factory.mktemp("ppo"))


@pytest.fixture(scope="module")
def plain(lab: Lab) -> list[Report]:
    """The sweep's own trial, under ZeRO 0."""
    return lab.run(lab.fresh_bench(), deepspeed="zero0")


def series(reports: Sequence[Report], name: str) -> list[float]:
    return [report.metrics[name] for report in reports]


# ---- a step, by hand ------------------------------------------------------------------------


def settings(**fields: Any) -> PPOSpec:
    """Nothing that blurs hand-computed numbers: no whitening, no discount, scores as they are."""
    defaults = {
        "whiten_advantages": False, "gamma": 1.0, "lam": 1.0, "kl_coef": 0.5,
        "normalize_rewards": False,
    }  # fmt: skip
    reward = {"model_name_or_path": "x"}
    return PPOSpec(type="ppo", reward=reward, **defaults | fields)


def hand_made(scores: Sequence[float], ended: Sequence[bool], values: float = 0.0) -> Rollout:
    """Replies of 2 tokens whose log-ratio to the reference is 0.2 at the first, 0 at the second."""
    count = len(scores)
    mask = torch.ones(count, 2, dtype=torch.bool)
    log_p = torch.tensor([[-1.0, -1.0]]).repeat(count, 1)
    log_q = torch.tensor([[-1.2, -1.0]]).repeat(count, 1)
    zeros = torch.zeros(count, 2)
    return Rollout(
        prompts=[[5]] * count, replies=[[6, 7]] * count, mask=mask, scores=torch.tensor(scores),
        ended=torch.tensor(ended), log_p=log_p, log_q=log_q, kl=zeros, entropy=zeros,
        values=zeros + values,
    )  # fmt: skip


def new_memory(ppo: PPOSpec) -> loop.Memory:
    return loop.Memory(controller_of(ppo, 100), RunningMoments())


def learnt_from(rollout: Rollout, ppo: PPOSpec) -> tuple[list[Any], list[Any]]:
    found = loop._experience(rollout, ppo, new_memory(ppo))
    return found.advantages.tolist(), found.returns.tolist()


def test_score_and_kl_become_advantages_and_returns() -> None:
    # Rewards -0.5 × 0.2 = -0.1 and 3; to come 2.9 and 3; less a value of 1.
    advantages, returns = learnt_from(hand_made([3.0], [True], values=1.0), settings())
    assert returns == [pytest.approx([2.9, 3.0])]
    assert advantages == [pytest.approx([1.9, 2.0])]


def test_discount_and_lambda_reach_the_advantages() -> None:
    # Deltas -0.1 + 0.5 × 1 - 1 = -0.6 and 3 - 1 = 2; then -0.6 + 0.5 × 0.25 × 2 = -0.35.
    advantages, _ = learnt_from(hand_made([3.0], [True], values=1.0), settings(gamma=0.5, lam=0.25))
    assert advantages == [pytest.approx([-0.35, 2.0])]


def test_a_reply_that_was_cut_off_earns_less_by_the_penalty() -> None:
    advantages, _ = learnt_from(
        hand_made([3.0, 3.0], [True, False]), settings(missing_eos_penalty=2.0)
    )
    assert advantages == [pytest.approx([2.9, 3.0]), pytest.approx([0.9, 1.0])]


def test_scores_are_normalised_then_clipped_and_the_penalty_is_never_clipped_away() -> None:
    # 1 and 5 have mean 3 and spread 2: -1 and 1, clipped to ± 0.5; then 1 off the second.
    ppo = settings(normalize_rewards=True, reward_clip=0.5, missing_eos_penalty=1.0)
    _, returns = learnt_from(hand_made([1.0, 5.0], [True, False]), ppo)
    assert returns == [pytest.approx([-0.6, -0.5]), pytest.approx([-0.6, -0.5])]


def test_normalising_remembers_the_steps_before() -> None:
    ppo = settings(normalize_rewards=True, kl_coef=0.0)
    memory = new_memory(ppo)
    loop._experience(hand_made([1.0, 1.0, 5.0], [True] * 3), ppo, memory)
    found = loop._experience(hand_made([5.0], [True]), ppo, memory)
    # Of 1, 1, 5, 5 the mean is 3 and the spread 2.
    assert found.returns[0, 1].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("estimator", "wanted"), [("rloo", [-2.0, 2.0]), ("grpo", [-0.70703, 0.70703])]
)
def test_critic_free_advantages_compare_whole_replies(estimator: str, wanted: list[float]) -> None:
    # Totals 1.9 and 3.9: 1.9 - 3.9, or -1 / (sqrt 2 + 1e-4). The same at every token.
    ppo = settings(advantage_estimator=estimator, num_generations=2)
    advantages, returns = learnt_from(hand_made([2.0, 4.0], [True, True]), ppo)
    assert advantages == [pytest.approx([value] * 2, abs=1e-4) for value in wanted]
    assert returns == [[0.0, 0.0]] * 2


def test_whitened_advantages_have_mean_0_over_the_tokens_of_the_step() -> None:
    ppo = settings(whiten_advantages=True)
    advantages, _ = learnt_from(hand_made([3.0, 1.0], [True, True]), ppo)
    assert sum(map(sum, advantages)) == pytest.approx(0, abs=1e-6)
    assert sum(value**2 for row in advantages for value in row) == pytest.approx(3, abs=1e-5)


# ---- the start ------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [4, None])
def test_a_budget_of_no_steps_reports_the_start_once_at_a_kl_of_exactly_0(
    rank: int | None, lab: Lab
) -> None:
    (report,) = lab.run(steps=0, model__lora_r=rank)
    assert (report.step, report.examples, report.is_last) == (0, 0, True)
    assert report.metrics["eval/kl"] == 0.0
    assert report.metrics["eval/kl_k1"] == 0.0
    verify_checkpoint(report.checkpoint.path)


def test_before_the_first_update_of_each_step_the_policy_is_the_one_that_drew(lab: Lab) -> None:
    """One update a step, so each row shows a first update: the ratio is 1 at every token.

    Replies of many lengths, one a forward pass, at a temperature.
    """
    one_update = {
        "algorithm__num_ppo_epochs": 1, "algorithm__temperature": 0.7,
        "algorithm__response_length": 24, "training__learning_rate": 1e-2,
        "training__per_device_train_batch_size": 1, "training__gradient_accumulation_steps": 16,
    }  # fmt: skip
    for report in lab.run(steps=2, **one_update):
        assert report.metrics["train/updates"] == 1
        assert report.metrics["train/approx_kl"] < 1e-10
        assert report.metrics["train/clip_fraction"] == 0
        assert report.metrics["train/value_clip_fraction"] == 0
        # Minus the mean of whitened advantages.
        assert report.metrics["train/policy_loss"] == pytest.approx(0, abs=1e-5)
        assert 0 < report.metrics["train/finished"] < 1


def test_the_first_losses_are_those_of_the_rollout_by_hand(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At ratio 1 and values of 0: -mean(advantage), the critic's by hand, the rollout's entropy.

    The first value loss is in roots of the mean square return, so it is a half. Means over the
    tokens of all replies together, long and short.
    """
    found: list[loop.Experience] = []
    of_rollout = loop._experience

    def kept(*args: Any) -> loop.Experience:
        found.append(of_rollout(*args))
        return found[-1]

    monkeypatch.setattr(loop, "_experience", kept)
    (report,) = lab.run(
        steps=1,
        algorithm__num_ppo_epochs=1,
        algorithm__temperature=0.7,
        algorithm__response_length=24,
        algorithm__whiten_advantages=False,
        algorithm__entropy_coef=0.2,
        training__per_device_train_batch_size=4,
        training__gradient_accumulation_steps=4,
    )
    mask = found[0].rollout.mask
    assert not mask.all()
    policy = -found[0].advantages[mask].mean().item()
    entropy = found[0].rollout.entropy[mask].mean().item()
    measured = report.metrics
    assert measured["train/policy_loss"] == pytest.approx(policy, rel=1e-5)
    assert measured["train/value_loss"] == pytest.approx(0.5, rel=1e-5)
    assert measured["train/entropy"] == pytest.approx(entropy, rel=1e-5)
    wanted = policy - 0.2 * entropy
    assert measured["train/loss"] == pytest.approx(wanted, rel=1e-5)


def test_each_pass_learns_from_every_reply_once_in_another_order(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    learn = loop._mini_batch

    def watched(learner: loop.Learner, experience: loop.Experience, rows: list[int]) -> Any:
        seen.append(rows)
        return learn(learner, experience, rows)

    monkeypatch.setattr(loop, "_mini_batch", watched)
    lab.run(steps=2)
    assert [len(rows) for rows in seen] == [8] * 8
    passes = [seen[at] + seen[at + 1] for at in range(0, 8, 2)]
    assert all(sorted(rows) == list(range(16)) for rows in passes)
    assert len(set(map(tuple, passes))) == 4
    assert all(rows != sorted(rows) for rows in passes)


def test_a_trial_reports_what_it_measures(plain: list[Report]) -> None:
    assert [report.step for report in plain] == [1, 2, 3]
    assert [report.examples for report in plain] == [16, 32, 48]
    for report in plain:
        assert all(math.isfinite(value) for value in report.metrics.values())
        assert report.metrics["train/updates"] == 4  # 2 passes over 16 replies in eights
        verify_checkpoint(report.checkpoint.path)
    assert plain[0].metrics["train/kl"] == 0
    assert plain[2].metrics["train/kl"] > 1e-5
    assert plain[2].metrics["eval/kl"] > 1e-6


# ---- steering -------------------------------------------------------------------------------


def test_the_coefficient_follows_the_kl_of_each_rollout(plain: list[Report]) -> None:
    """With a horizon of 2 steps: not by the first rollout, then by where the KL is heading."""
    kls = series(plain, "train/kl")
    distance = kls[1] ** 0.5
    assert kls[0] == 0
    assert distance + 4 * 2 * distance < 0.1**0.5, "too slow to get there by itself"
    wanted = 0.05 * max((distance + 2 * distance) ** 2 / 0.1, 1 / 4)
    assert series(plain, "train/kl_coef") == pytest.approx([0.05, 0.05, wanted])
    assert series(plain, "train/kl_ratio") == pytest.approx([kl / 0.1 for kl in kls])


def test_the_rule_of_ziegler_et_al_is_there_for_those_who_ask(lab: Lab) -> None:
    """Far under the target and with a horizon of 1 step: a fifth less each step."""
    reports = lab.run(algorithm__kl_controller="ziegler")
    assert max(series(reports, "train/kl")) < 0.08
    assert series(reports, "train/kl_coef") == pytest.approx([0.05, 0.04, 0.032])


def test_a_kl_far_beyond_its_target_is_told_once(lab: Lab) -> None:
    """The first rollout has a KL of 0, the others one far over a tiny target."""
    reports = lab.run(algorithm__kl_target=1e-9)
    told = [[note for note in report.notes if "kl_target" in note] for report in reports]
    assert [len(notes) for notes in told] == [0, 1, 0]
    kl = reports[1].metrics["train/kl"]
    assert told[1][0].startswith(
        f"up to step 2 the KL of the rollouts is {kl:.3g} nats per token, "
    )
    assert reports[2].metrics["train/kl_ratio"] > 3


def test_a_fixed_coefficient_stays(lab: Lab) -> None:
    reports = lab.run(algorithm__kl_controller="fixed", steps=2)
    assert series(reports, "train/kl_coef") == [0.05, 0.05]
    assert "train/kl_ratio" not in reports[0].metrics


def test_the_learning_rate_rises_under_the_target_but_not_before_the_warm_up_is_over(
    lab: Lab,
) -> None:
    """4 updates a step, 2 steps of warm-up: (1 + 2 + 3 + 4) / 4 / 8, (5 + 6 + 7 + 8) / 4 / 8, 1.

    The rule looks at the KL from step 3 on, which moves the rate of step 4.
    """
    reports = lab.run(
        steps=4,
        training__warmup_steps=2,
        training__lr_scheduler_type="constant_with_warmup",
        algorithm__lr_adjust_factor=1.5,
    )
    wanted = [0.3125e-3, 0.8125e-3, 1e-3, 1.5e-3]
    assert series(reports, "train/learning_rate") == pytest.approx(wanted)


def test_the_learning_rate_falls_over_the_target(lab: Lab) -> None:
    """The first rollout has a KL of 0, the second one far over a tiny target."""
    tiny = {"algorithm__kl_target": 1e-9, "algorithm__lr_adjust_factor": 2.0}
    reports = lab.run(**tiny, algorithm__lr_adjust_limit=2.0)
    assert series(reports, "train/learning_rate") == pytest.approx([1e-3, 2e-3, 1e-3])


def test_updates_end_early_once_the_policy_has_moved_far_enough(lab: Lab) -> None:
    """Stopped by its first update, whose approximate KL is rounding, a step makes just that one."""
    (report,) = lab.run(steps=1, algorithm__max_approx_kl=1e-30)
    assert report.metrics["train/updates"] == 1
    (report,) = lab.run(steps=1, algorithm__max_approx_kl=1e-7)
    assert 1 < report.metrics["train/updates"] < 4


def test_rows_average_over_the_steps_since_the_last_one(lab: Lab, plain: list[Report]) -> None:
    trial = lab.trial(deepspeed="zero0")
    budget = trial.budget.model_copy(update={"eval_steps": 2})
    inputs = lab.bench.lend(trial)
    rows = list(loop.train(trial.model_copy(update={"budget": budget}), inputs))
    lab.bench.take_back(trial, inputs)
    assert [row.step for row in rows] == [2, 3]
    for name in ("train/loss", "train/kl", "train/reward"):
        one, two, three = series(plain, name)
        assert rows[0].metrics[name] == pytest.approx((one + two) / 2)
        assert rows[1].metrics[name] == pytest.approx(three)


# ---- what must not matter ---------------------------------------------------------------------


def test_how_a_mini_batch_is_cut_changes_no_loss(lab: Lab) -> None:
    whole = lab.run(steps=2, training__per_device_train_batch_size=16)
    parts = lab.run(
        steps=2,
        training__per_device_train_batch_size=4,
        training__gradient_accumulation_steps=4,
    )
    for name in LOSSES:
        assert series(parts, name) == pytest.approx(series(whole, name), rel=1e-4, abs=1e-5)


def test_recomputing_activations_changes_no_loss(lab: Lab, plain: list[Report]) -> None:
    reports = lab.run(deepspeed="zero0", training__gradient_checkpointing=True)
    for name in LOSSES:
        assert series(reports, name) == pytest.approx(series(plain, name), rel=1e-4, abs=1e-5)


# ---- without a critic, without an adapter -----------------------------------------------------


@pytest.mark.parametrize("estimator", ["gae", "rloo", "grpo"])
def test_every_trained_weight_gets_its_gradient_in_every_update(
    estimator: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[list[str]] = []

    def watched(*args: Any) -> Any:
        engine = start_engine(*args)
        step = engine.step

        def look_and_step() -> None:
            weights = [(n, w) for n, w in engine.module.named_parameters() if w.requires_grad]
            assert all(weight.grad is not None for _, weight in weights)
            names.append([name for name, _ in weights])
            step()

        engine.step = look_and_step
        return engine

    monkeypatch.setattr(loop, "start_engine", watched)
    reports = lab.run(
        steps=2, deepspeed="zero0", algorithm__advantage_estimator=estimator, **CRITIC_FREE
    )
    assert len(names) == 8
    assert all("lora_" in name for name in names[0])
    value_metrics = {
        "train/value_loss", "train/value_clip_fraction", "train/explained_variance",
        "train/value_grad_norm", "train/value_grad_norm_clipped",
    }  # fmt: skip
    for report in reports:
        assert report.metrics["train/grad_norm"] > 0
        found = value_metrics & report.metrics.keys()
        assert found == (value_metrics if estimator == "gae" else set())


def test_gradient_norms_are_told_before_and_after_clipping(lab: Lab) -> None:
    one, free = (
        lab.run(steps=1, algorithm__num_ppo_epochs=1, training__max_grad_norm=limit,
                training__per_device_train_batch_size=16)[0].metrics
        for limit in (1e-3, 0.0)
    )  # fmt: skip
    for name in ("train/grad_norm", "train/value_grad_norm"):
        assert one[name] > 1e-3
        assert one[f"{name}_clipped"] == pytest.approx(1e-3)
        assert free[f"{name}_clipped"] == free[name]


def test_the_scale_of_a_reward_changes_nothing(
    lab: Lab, plain: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reward 64 times as large, which rounds alike: the policy is the same."""
    bench = lab.fresh_bench()
    own = bench._rewards[lab.spec.algorithm.reward]
    score = own.score
    monkeypatch.setattr(own, "score", lambda *args: 64 * score(*args))
    scaled = lab.run(bench, deepspeed="zero0")
    for name in (*LOSSES, "train/kl", "train/kl_coef", "eval/kl"):
        assert series(scaled, name) == pytest.approx(series(plain, name), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("penalty", [0.0, 50.0])
def test_a_critic_that_is_far_off_moves_the_policy_no_further(
    penalty: float, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the returns are, the policy's gradient is that of the whitened advantages."""
    (report,) = lab.run(steps=1, algorithm__missing_eos_penalty=penalty)
    assert report.metrics["train/grad_norm"] < 3


def test_full_fine_tuning_is_held_against_the_frozen_start(lab: Lab) -> None:
    reports = lab.run(steps=2, model__lora_r=None, training__learning_rate=1e-4)
    assert reports[0].metrics["train/kl"] == 0.0
    assert reports[1].metrics["train/kl"] > 1e-6
    assert reports[1].metrics["eval/kl"] > 1e-6
    saved = load_file(reports[-1].checkpoint.path / "model.safetensors")
    before = load_file(TUTOR / "model.safetensors")
    assert saved.keys() == before.keys()
    assert not any(torch.equal(saved[name], value) for name, value in before.items())
    assert not (reports[-1].checkpoint.path / "adapter_config.json").exists()


def test_the_estimator_of_the_kl_penalty_matters(lab: Lab, plain: list[Report]) -> None:
    losses = {
        lab.run(steps=2, algorithm__kl_estimator=estimator)[-1].metrics["train/loss"]
        for estimator in ("k2", "k3")
    }
    assert len(losses | {plain[1].metrics["train/loss"]}) == 3


# ---- divergence -----------------------------------------------------------------------------


class BreaksDown:
    """A reward that gives NaN for one reply from its n-th call on."""

    def __init__(self, reward: Reward, calls: int) -> None:
        self.reward = reward
        self.left = calls

    def score(self, prompts: Sequence[tuple[Message, ...]], replies: Sequence[str]) -> Tensor:
        scores = self.reward.score(prompts, replies)
        self.left -= 1
        if self.left <= 0:
            scores[-1] = math.nan
        return scores


def breaking(bench: Workbench, lab: Lab, calls: int) -> Workbench:
    """The bench with a training reward that breaks down; the judge keeps its own."""
    reward = lab.spec.algorithm.reward
    bench._rewards[reward] = BreaksDown(bench._rewards[reward], calls)
    return bench


def test_a_reward_that_breaks_down_diverges_at_its_step_and_keeps_the_checkpoint_before(
    lab: Lab, plain: list[Report]
) -> None:
    trial = lab.start(breaking(lab.fresh_bench(), lab, 3), deepspeed="zero0")
    reports = [next(trial), next(trial)]
    with pytest.raises(DivergedError, match="not finite at step 3"):
        next(trial)
    assert bits(reports) == bits(plain)[:2]
    verify_checkpoint(reports[-1].checkpoint.path)


@pytest.mark.parametrize("zero", ["zero0", "zero2"])
def test_a_loss_that_is_not_finite_diverges(zero: str, lab: Lab) -> None:
    with pytest.raises(DivergedError, match=r"at step \d"):
        lab.run(deepspeed=zero, training__learning_rate=1e30, training__max_grad_norm=0.0)


# ---- what is left behind ----------------------------------------------------------------------


def outside_of(model: nn.Module) -> list[tuple[str, str, bool]]:
    return [(name, type(m).__name__, m.training) for name, m in model.named_modules()]


@pytest.mark.parametrize("ending", ["done", "closed", "diverged"])
def test_a_trial_gives_its_base_back_as_it_is_on_disk(ending: str, lab: Lab) -> None:
    bench = lab.fresh_bench()
    if ending == "diverged":
        breaking(bench, lab, 2)
    trial = lab.trial(training__gradient_checkpointing=True)
    inputs = bench.lend(trial)
    base = inputs.base
    before = outside_of(base)
    rows = loop.train(trial, inputs)
    next(rows)
    if ending == "closed":
        rows.close()
    elif ending == "done":
        list(rows)
    else:
        with pytest.raises(DivergedError):
            list(rows)
    assert outside_of(base) == before
    assert not base.is_activation_checkpointing
    assert all(weight.requires_grad and weight.grad is None for weight in base.parameters())
    hooks = [m for m in base.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks
    weights = dict(base.named_parameters())
    for name, value in load_file(TUTOR / "model.safetensors").items():
        assert torch.equal(weights[name].data, value), name


def test_a_used_workbench_gives_the_bits_of_a_fresh_one(lab: Lab, plain: list[Report]) -> None:
    bench = lab.fresh_bench()
    stopped = lab.start(bench, model__lora_r=16, training__learning_rate=0.01)
    next(stopped)
    stopped.close()
    lab.run(
        bench, steps=1, algorithm__advantage_estimator="grpo", deepspeed="zero2",
        training__gradient_checkpointing=True, algorithm__temperature=0.7, **CRITIC_FREE,
    )  # fmt: skip
    with pytest.raises(DivergedError):
        lab.run(bench, training__learning_rate=1e30, training__max_grad_norm=0.0)
    assert bits(lab.run(bench, deepspeed="zero0")) == bits(plain)


# ---- resuming ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(lab: Lab) -> list[Report]:
    return lab.run(lab.fresh_bench(), steps=4, deepspeed="zero0", **ALL_STATE)


def resumed(lab: Lab, whole: Sequence[Report], zero: str) -> list[Report]:
    """What a fresh workbench makes of the trial from its second step on."""
    checkpoint = whole[1].checkpoint.path
    return lab.run(lab.fresh_bench(), steps=4, resume_from=checkpoint, deepspeed=zero, **ALL_STATE)


def test_a_resumed_trial_goes_on_with_the_same_bits(lab: Lab, whole: list[Report]) -> None:
    rest = resumed(lab, whole, "zero0")
    assert [report.step for report in rest] == [3, 4]
    assert bits(rest) == bits(whole)[2:]


@pytest.mark.parametrize("estimator", ["gae", "rloo"])
def test_a_checkpoint_of_an_earlier_version_is_rejected_in_words(
    estimator: str, lab: Lab, tmp_path: Path
) -> None:
    settings = {"steps": 2, "algorithm__advantage_estimator": estimator, **CRITIC_FREE}
    report = next(iter(lab.run(**settings)))
    old = shutil.copytree(report.checkpoint.path, tmp_path / "old")
    state = json.loads((old / "trainer" / loop.STATE).read_text())
    del state["is_far"]
    (old / "trainer" / loop.STATE).write_text(json.dumps(state))
    trial = lab.trial(**settings)
    inputs = lab.bench.lend(trial)
    with pytest.raises(CheckpointError, match="an earlier version wrote this checkpoint"):
        next(loop.train(trial, inputs, old))
    lab.bench.take_back(trial, inputs)


def test_what_a_checkpoint_remembers_has_moved_by_then(whole: list[Report]) -> None:
    """So that the test above would notice were any of it lost."""
    state = json.loads((whole[1].checkpoint.path / "trainer" / loop.STATE).read_text())
    assert state["step"] == 2
    assert state["lr_scale"] != 1.0
    assert state["controller"]["coef"] != 0.05
    assert state["moments"]["count"] == 32


@pytest.mark.parametrize("forgotten", ["optimizer", "critic", "lr_scale", "controller",
                                       "moments"])  # fmt: skip
def test_a_trial_that_forgets_anything_goes_on_with_other_bits(
    forgotten: str, lab: Lab, whole: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof that each of them is restored, and matters."""
    restore = loop._restore

    def forgetful(learner: loop.Learner, memory: loop.Memory, trainer: Path) -> None:
        at_start = memory.state()
        if forgotten == "optimizer":
            load = learner.engine.load_checkpoint
            monkeypatch.setattr(
                learner.engine,
                "load_checkpoint",
                lambda *args, **kwargs: load(*args, **kwargs | {"load_optimizer_states": False}),
            )
        if forgotten == "critic":
            monkeypatch.setattr(learner.critic, "restore", lambda state: None)
        restore(learner, memory, trainer)
        if forgotten in at_start:
            memory.restore(memory.state() | {forgotten: at_start[forgotten]})

    monkeypatch.setattr(loop, "_restore", forgetful)
    assert bits(resumed(lab, whole, "zero0")) != bits(whole)[2:]


def test_a_trial_without_an_adapter_is_resumed_with_the_same_bits(lab: Lab) -> None:
    trial = {"steps": 2, "model__lora_r": None, "training__learning_rate": 1e-4}
    reports = lab.run(**trial)
    rest = lab.run(resume_from=reports[0].checkpoint.path, **trial)
    assert bits(rest) == bits(reports)[1:]


# ---- roles on one base ------------------------------------------------------------------------


def test_a_reward_on_the_policys_own_base_trains_as_one_with_weights_of_its_own(
    tmp_path: Path,
) -> None:
    elsewhere = shutil.copytree(TUTOR, tmp_path / "tutor")
    labs = [
        Lab(ppo_spec(reward=Path(adapter.model_name_or_path)), tmp_path / name)
        for name, adapter in (
            ("shared", reward_adapter(TUTOR, tmp_path / "on-the-base")),
            ("own", reward_adapter(elsewhere, tmp_path / "on-a-copy")),
        )
    ]
    reward = labs[0].bench._rewards[labs[0].spec.algorithm.reward]
    embeddings = [
        model.get_input_embeddings().weight for model in (reward._model, labs[0].bench._base)
    ]
    assert embeddings[0] is embeddings[1]
    assert bits(labs[0].run(steps=2)) == bits(labs[1].run(steps=2))
    assert bits(labs[0].run(steps=1)) == bits(labs[1].run(steps=1))  # the next trial on it, too


def test_a_policy_stacked_on_an_adapter_starts_at_a_kl_of_0_and_is_resumed(tmp_path: Path) -> None:
    start = sft_adapter(tmp_path / "sft", TUTOR, AutoTokenizer.from_pretrained(TUTOR).chat_template)
    lab = Lab(ppo_spec(base=start), tmp_path)
    (at_start,) = lab.run(steps=0)
    assert at_start.metrics["eval/kl"] == 0.0
    reports = lab.run(steps=2)
    assert reports[0].metrics["train/kl"] == 0.0
    assert reports[1].metrics["train/kl"] > 1e-6
    rest = lab.run(lab.fresh_bench(), reports[0].checkpoint.path, steps=2)
    assert bits(rest) == bits(reports)[1:]


def test_a_checkpoint_holds_what_is_trained_and_nothing_of_the_base(
    lab: Lab, plain: list[Report]
) -> None:
    engine = plain[-1].checkpoint.path / "trainer" / "engine"
    state = torch.load(engine / "mp_rank_00_model_states.pt", weights_only=False)
    assert all("lora_" in name for name in state["module"])
    assert state["module"]
    assert not state.get("frozen_param_fragments")


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_critic_free_advantages_are_not_whitened_over_the_step(estimator: str) -> None:
    """Two prompts; to the first both replies score 3, to the second 5 and 1 (9 tokens)."""
    lengths, scores = [1, 1, 1, 9], [3.0, 3.0, 5.0, 1.0]
    mask = torch.arange(9) >= 9 - torch.tensor(lengths)[:, None]
    zeros = torch.zeros(4, 9)
    rollout = Rollout(
        prompts=[[5]] * 4, replies=[[6] * length for length in lengths], mask=mask,
        scores=torch.tensor(scores), ended=torch.ones(4, dtype=torch.bool), log_p=zeros,
        log_q=zeros, kl=zeros, entropy=zeros, values=zeros,
    )  # fmt: skip
    ppo = settings(advantage_estimator=estimator, num_generations=2, whiten_advantages=None)
    advantages = loop._experience(rollout, ppo, new_memory(ppo)).advantages
    assert advantages[:2].abs().max() == 0.0
    # rloo: 5 - 1 and 1 - 5; grpo: ± 2 over a spread of 2 × sqrt(2).
    wanted = {"rloo": 4.0, "grpo": 2 / (8**0.5 + 1e-4)}[estimator]
    assert advantages[2, -1].item() == pytest.approx(wanted)
    assert advantages[3].tolist() == pytest.approx([-wanted] * 9)


# ---- ZeRO; stage 3, which leaves the most behind, comes last ------------------------------------


@pytest.mark.parametrize(("zero", "tolerance"), [("zero1", 1e-6), ("zero2", 1e-6), ("zero3", 1e-5)])
def test_zero_stages_train_alike_and_resume_with_their_own_bits(
    zero: str, tolerance: float, lab: Lab, whole: list[Report]
) -> None:
    """Through the judge and a checkpoint; stages differ in the rounding of the clipping alone."""
    reports = lab.run(steps=4, deepspeed=zero, **ALL_STATE)
    for name in (*LOSSES, "eval/reward", "eval/kl", "train/kl"):
        wanted = series(whole, name)
        assert series(reports, name) == pytest.approx(wanted, rel=10 * tolerance, abs=tolerance)
    ours, theirs = (
        load_file(run[-1].checkpoint.path / "adapter_model.safetensors") for run in (reports, whole)
    )
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=10 * tolerance, rtol=1e-3)
    assert bits(resumed(lab, reports, zero)) == bits(reports)[2:]


def test_full_fine_tuning_under_zero_3_starts_at_a_kl_of_0(lab: Lab) -> None:
    (report,) = lab.run(steps=1, deepspeed="zero3", model__lora_r=None)
    assert report.metrics["train/kl"] == 0.0
    assert report.metrics["eval/kl"] > 0
