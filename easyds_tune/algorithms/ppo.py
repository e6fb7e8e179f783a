"""Proximal policy optimisation with a KL target: our own loop, on a DeepSpeed engine.

One base, four roles: the policy is the base with an adapter, the critic's value head reads the
policy's hidden states, the reference is the same base without what is being trained, and a reward
model that was trained on this base stands on it as well.

    rollout → score → KL-shaped rewards → advantages → epochs of clipped updates → steer → yield
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import set_seed

from easyds_tune import progress
from easyds_tune.algorithms.critic import Critic
from easyds_tune.algorithms.kl_control import KLController, controller_of
from easyds_tune.algorithms.learning_rate import adjusted_scale, schedule
from easyds_tune.algorithms.ppo_math import (
    RunningMoments,
    gae,
    grpo,
    kl_penalty,
    masked_mean,
    masked_whiten,
    policy_loss,
    rloo,
    shaped_rewards,
    token_entropy,
)
from easyds_tune.algorithms.rollout import (
    MINI_BATCHES,
    Rollout,
    draw_rollout,
    stream,
    token_log_probs,
)
from easyds_tune.algorithms.row import ModelContext, Row, TrialInputs
from easyds_tune.algorithms.stopping import StopAsked, Stopped, never, stoppable
from easyds_tune.errors import CheckpointError, DivergedError
from easyds_tune.models.actor import Actor, without_dropout
from easyds_tune.models.deepspeed import (
    end_of_engine,
    gathered,
    hidden_size_of,
    release,
    start_engine,
)
from easyds_tune.models.lora import give_back
from easyds_tune.models.replies import reply_batch
from easyds_tune.models.stack import reference_of, save_adapter, with_policy_adapter
from easyds_tune.spec.algorithm import FAR_KL_RATIO, PPOSpec
from easyds_tune.spec.deepspeed import deepspeed_config
from easyds_tune.spec.sweep import TrialSpec

ENGINE, STATE, CRITIC = "engine", "ppo.json", "critic.pt"
"""What a checkpoint's trainer/ holds: DeepSpeed's own folder, what else PPO remembers, and the
value head with its optimizer, where there is one."""


@dataclass
class Memory:
    """What lives on from step to step, besides the weights and the optimizer.

    All randomness is a function of the seed and the step, and so is the place in the data.
    """

    controller: KLController
    moments: RunningMoments
    step: int = 0
    num_tokens: int = 0
    """Tokens of prompts and replies so far, each counted once an epoch it is trained on."""
    lr_scale: float = 1.0
    seconds: float = 0.0
    """It has trained."""
    since_row: list[dict[str, float]] = field(default_factory=list)
    """The metrics of each step since the last row."""
    unjudged: dict[str, float] | None = None
    """Metrics of the row of this step, while nobody has judged it."""
    is_far: bool = False
    """The KL was far beyond its target at the last row."""

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can hold it without losing a bit."""
        return {
            "step": self.step,
            "num_tokens": self.num_tokens,
            "lr_scale": self.lr_scale,
            "seconds": self.seconds,
            "since_row": self.since_row,
            "unjudged": self.unjudged,
            "is_far": self.is_far,
            "controller": self.controller.state(),
            "moments": self.moments.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state()`."""
        self.step, self.lr_scale = int(state["step"]), state["lr_scale"]
        self.num_tokens = int(state["num_tokens"])
        self.seconds, self.since_row = state["seconds"], state["since_row"]
        self.unjudged, self.is_far = state["unjudged"], state["is_far"]
        self.controller.restore(state["controller"])
        self.moments.restore(state["moments"])


@dataclass(frozen=True)
class Experience:
    """A rollout and what is to be learnt from it; (N, T), 0 outside of the rollout's mask."""

    rollout: Rollout
    advantages: Tensor
    returns: Tensor
    """What the value head should have said; 0 without one."""


@dataclass(frozen=True)
class Learner:
    """What every update needs and no step changes."""

    engine: Any
    critic: Critic | None
    spec: TrialSpec
    ppo: PPOSpec
    inputs: TrialInputs
    stop_asked: StopAsked


def train(
    spec: TrialSpec,
    inputs: TrialInputs,
    resume_from: Path | None = None,
    stop_asked: StopAsked = never,
) -> Iterator[Row]:
    """Train on `inputs.train` with columns prompt_ids and messages, against `inputs.reward`.

    Asked to stop, it ends within a forward pass of drawing replies, which are then drawn anew by
    whoever goes on; the updates of a step are made to their end.

    Raises DivergedError at the step whose reward, log-probability or loss is not finite.
    """
    ppo = spec.algorithm
    assert isinstance(ppo, PPOSpec)
    set_seed(spec.seed)
    policy: nn.Module = inputs.base
    frozen: nn.Module | None = None
    if spec.model.lora_r is None:
        frozen = inputs.load_reference()
    else:
        policy = with_policy_adapter(inputs.base, spec.model, inputs.start, inputs.fresh_modules)
    actor = Actor(policy, shows_states=ppo.advantage_estimator == "gae")
    critic = None
    if actor.shows_states:
        critic = Critic(
            actor.state_size, inputs.device, ppo.value_learning_rate, spec.training.max_grad_norm
        )
    engine = None
    with end_of_engine():
        try:
            config, width = deepspeed_config(spec.deepspeed), hidden_size_of(inputs.base.config)
            engine = start_engine(actor, config, spec.training, width)
            arguments = spec.training.training_arguments.get("gradient_checkpointing_kwargs") or {}
            without_dropout(actor, arguments if spec.training.gradient_checkpointing else None)
            yield from _steps(
                Learner(engine, critic, spec, ppo, inputs, stop_asked), frozen, resume_from
            )
        finally:
            release(engine)
            give_back(policy)


def _steps(learner: Learner, frozen: nn.Module | None, resume_from: Path | None) -> Iterator[Row]:
    """The loop. frozen: the reference, where it is a model of its own."""
    engine, spec, ppo = learner.engine, learner.spec, learner.ppo
    policy, reference = _contexts(engine, frozen)
    max_steps, eval_steps = spec.budget.max_steps, spec.budget.eval_steps
    updates = ppo.num_ppo_epochs * ppo.rollout_batch_size // spec.training.effective_batch
    rate = schedule(spec.training, max_steps, updates)
    memory = Memory(controller_of(ppo, max_steps), RunningMoments())
    if resume_from is not None:
        _restore(learner, memory, resume_from / "trainer")

    def save(folder: Path, unjudged: dict[str, float] | None) -> None:
        _save(learner, policy, replace(memory, unjudged=unjudged), folder)

    def row(
        metrics: dict[str, float], *, is_partial: bool = False, notes: tuple[str, ...] = ()
    ) -> Row:
        owed = memory.unjudged if is_partial else metrics
        return Row(
            step=memory.step,
            metrics=metrics,
            policy=policy,
            reference=reference,
            save=lambda folder: save(folder, None),
            save_unjudged=lambda folder: save(folder, owed),
            is_partial=is_partial,
            notes=notes,
        )

    if memory.unjudged is not None or max_steps == 0:
        yield row(memory.unjudged or {})
        memory.unjudged = None
    while memory.step < max_steps:
        started = time.perf_counter()
        step = memory.step + 1
        try:
            if learner.stop_asked():
                raise Stopped
            with policy() as model, stoppable(model, learner.stop_asked):
                rollout = draw_rollout(
                    engine.module,
                    learner.critic,
                    reference,
                    learner.inputs,
                    ppo,
                    seed=spec.seed,
                    step=step,
                )
        except Stopped:
            yield row({}, is_partial=True)
            return
        drawn = time.perf_counter()
        experience = _experience(rollout, ppo, memory)
        if learner.critic is not None:
            learner.critic.scale_to(experience.returns, rollout.mask)
        first = memory.step * updates
        rates = [memory.lr_scale * rate(first + number) for number in range(updates)]
        learnt = _update(learner, experience, rates, step)
        seen = _rollout_metrics(experience, learner.critic is not None) | {
            "train/kl_coef": memory.controller.coef
        }
        if ppo.kl_controller != "fixed":
            seen["train/kl_ratio"] = seen["train/kl"] / ppo.kl_target
        _steer(memory, ppo, seen["train/kl"], warm=step > _warmup_steps(spec))
        memory.step = step
        memory.num_tokens += ppo.num_ppo_epochs * rollout.num_tokens
        ended = time.perf_counter()
        memory.seconds += ended - started
        took = {"time/rollout_seconds": drawn - started, "time/update_seconds": ended - drawn}
        memory.since_row.append(seen | learnt | took)
        if step % eval_steps == 0 or step == max_steps:
            metrics = _averaged(memory.since_row)
            metrics["train/num_tokens"] = float(memory.num_tokens)
            metrics["time/train_seconds"] = memory.seconds
            memory.since_row = []
            yield row(metrics, notes=_far_kl_notes(memory, ppo, metrics))


def _experience(rollout: Rollout, ppo: PPOSpec, memory: Memory) -> Experience:
    """Scores and KL as a reward of each token, and that as advantages and returns."""
    mask = rollout.mask
    scores = rollout.scores
    if ppo.normalize_rewards:
        memory.moments.update(scores)
        scores = (scores - memory.moments.mean) / memory.moments.std
    if ppo.reward_clip is not None:
        scores = scores.clamp(-ppo.reward_clip, ppo.reward_clip)
    # After clipping, or clipping would forgive it.
    scores = scores - ppo.missing_eos_penalty * (~rollout.ended)
    kl = kl_penalty(rollout.log_p, rollout.log_q, ppo.kl_estimator)
    rewards = shaped_rewards(scores, kl, mask, memory.controller.coef)
    if ppo.advantage_estimator == "gae":
        advantages, returns = gae(rewards, rollout.values, mask, ppo.gamma, ppo.lam)
    else:
        compare = {"rloo": rloo, "grpo": grpo}[ppo.advantage_estimator]
        returns = torch.zeros_like(rewards)
        advantages = compare(rewards.sum(dim=1), ppo.num_generations)[:, None] * mask
    is_gae = ppo.advantage_estimator == "gae"
    if is_gae if ppo.whiten_advantages is None else ppo.whiten_advantages:
        advantages = masked_whiten(advantages, mask)
    return Experience(rollout, advantages, returns)


def _update(
    learner: Learner, experience: Experience, rates: Sequence[float], step: int
) -> dict[str, float]:
    """Several passes over the replies in mini-batches; means over the updates made.

    rates: the learning rate of each update.
    """
    ppo, size = learner.ppo, learner.spec.training.effective_batch
    count = len(experience.rollout.replies)
    made: list[dict[str, float]] = []
    for epoch in range(ppo.num_ppo_epochs):
        order = stream(MINI_BATCHES, learner.spec.seed, step, epoch).permutation(count)
        for start in range(0, count, size):
            rate = rates[len(made)]
            for group in learner.engine.optimizer.param_groups:
                group["lr"] = rate
            losses = _mini_batch(learner, experience, order[start : start + size].tolist())
            made.append(losses | {"train/learning_rate": rate})
            for name, value in losses.items():
                if not math.isfinite(value):
                    raise DivergedError(f"{name} is {value} at step {step}")
            if ppo.max_approx_kl and losses["train/approx_kl"] > ppo.max_approx_kl:
                return _averaged(made) | {"train/updates": float(len(made))}
    return _averaged(made) | {"train/updates": float(len(made))}


def _mini_batch(learner: Learner, experience: Experience, rows: list[int]) -> dict[str, float]:
    """One optimizer update from some rows of the rollout, in micro-batches of like length.

    The losses are means over the tokens of the whole mini-batch, so that they do not depend on how
    it is cut into micro-batches.
    """
    engine, critic, training = learner.engine, learner.critic, learner.spec.training
    rollout = experience.rollout
    tokens = int(rollout.mask[rows].sum())
    rows = sorted(rows, key=lambda row: -len(rollout.prompts[row]) - len(rollout.replies[row]))
    totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=learner.inputs.device))
    for start in range(0, len(rows), training.per_device_train_batch_size):
        part = rows[start : start + training.per_device_train_batch_size]
        parts = _losses(learner, experience, part, tokens)
        # DeepSpeed divides by the number of micro-batches; these are parts of one mean already.
        if critic is not None:
            critic.backward(parts["train/value_loss"])
        engine.backward(parts["train/loss"] * training.gradient_accumulation_steps)
        engine.step()
        progress.made()
        for name, value in parts.items():
            totals[name] += value.detach()
    losses = {name: value.item() for name, value in totals.items()}
    norms = {}
    if critic is not None:
        norms["train/value_grad_norm"] = critic.step()
    norm = float(engine.get_global_grad_norm())
    if math.isfinite(norm) or not engine.fp16_enabled():
        # In float16 an overflow only lowers DeepSpeed's loss scale, and the update is left out.
        norms["train/grad_norm"] = norm
    limit = training.max_grad_norm or math.inf
    clipped = {f"{name}_clipped": min(norm, limit) for name, norm in norms.items()}
    return losses | norms | clipped


def _losses(
    learner: Learner, experience: Experience, rows: list[int], tokens: int
) -> dict[str, Tensor]:
    """The losses of a micro-batch by name, scalars.

    The policy minimises `train/loss`, the critic `train/value_loss`.

    tokens: of the whole mini-batch, which the sums are divided by.
    """
    ppo, device, rollout = learner.ppo, learner.inputs.device, experience.rollout
    batch = reply_batch(
        [rollout.prompts[row] for row in rows],
        [rollout.replies[row] for row in rows],
        learner.inputs.tokenizer.pad_token_id,
        device,
    )
    mask, width = batch.mask, batch.mask.shape[1]
    old_log_p, old_values, advantages, returns = (
        values[rows, -width:].to(device)
        for values in (rollout.log_p, rollout.values, experience.advantages, experience.returns)
    )
    logits, states = learner.engine(batch)
    log_p = token_log_probs(logits, batch.tokens, ppo.temperature)
    policy = policy_loss(log_p, old_log_p, advantages, mask, ppo.cliprange, tokens)
    loss = policy.loss
    losses = {
        "train/policy_loss": policy.loss,
        "train/approx_kl": policy.approx_kl,
        "train/clip_fraction": policy.clip_fraction,
    }
    if learner.critic is not None:
        value = learner.critic.loss(states, old_values, returns, mask, ppo.cliprange_value, tokens)
        losses["train/value_loss"] = value.loss
        losses["train/value_clip_fraction"] = value.clip_fraction
    if ppo.entropy_coef:
        entropy = masked_mean(token_entropy(logits.float() / ppo.temperature), mask, tokens)
        loss = loss - ppo.entropy_coef * entropy
    return losses | {"train/loss": loss}


def _far_kl_notes(memory: Memory, ppo: PPOSpec, metrics: dict[str, float]) -> tuple[str, ...]:
    """A warning where the KL since the last row is far beyond its target; one until it is back."""
    ratio = metrics.get("train/kl_ratio", 0.0)
    was_told, memory.is_far = memory.is_far, ratio > FAR_KL_RATIO
    if was_told or not memory.is_far:
        return ()
    return (
        f"up to step {memory.step} the KL of the rollouts is {metrics['train/kl']:.3g} nats per "
        f"token, {ratio:.1f} times kl_target {ppo.kl_target:g}; lower training.learning_rate or "
        "raise algorithm.kl_coef to hold it; a bound on train/kl_ratio ends such trials",
    )


def _steer(memory: Memory, ppo: PPOSpec, kl: float, *, warm: bool) -> None:
    """Move the KL coefficient, and after warm-up the learning rate, by the KL just measured."""
    memory.controller.update(kl)
    if warm:
        memory.lr_scale = adjusted_scale(memory.lr_scale, kl, ppo)


def _rollout_metrics(experience: Experience, has_critic: bool) -> dict[str, float]:
    """What a rollout shows of the policy that drew it; `train/kl` is what the controller sees."""
    rollout = experience.rollout
    mask = rollout.mask
    metrics = {
        "train/reward": rollout.scores.mean(),
        "train/kl": masked_mean(rollout.kl, mask),
        "train/kl_k1": masked_mean(rollout.log_p - rollout.log_q, mask),
        "train/entropy": masked_mean(rollout.entropy, mask),
        "train/length": mask.sum(dim=1).float().mean(),
        "train/finished": rollout.ended.float().mean(),
    }
    if has_critic:
        spread = experience.returns[mask].var(correction=0)
        missed = (experience.returns - rollout.values)[mask].var(correction=0)
        explained = 1 - missed / spread if spread > 0 else torch.zeros(())
        metrics["train/explained_variance"] = explained
    return {name: value.item() for name, value in metrics.items()}


def _averaged(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric, over the entries that have it."""
    names = dict.fromkeys(name for entry in steps for name in entry)
    found = {name: [entry[name] for entry in steps if name in entry] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def _warmup_steps(spec: TrialSpec) -> float:
    """Steps in which the learning rate still rises by its schedule."""
    given = spec.training.warmup_steps
    return given if given >= 1 else given * spec.budget.max_steps


def _contexts(engine: Any, frozen: nn.Module | None) -> tuple[ModelContext, ModelContext]:
    """The policy and its reference, ready for generation; entered once more inside, the same."""
    entered: list[nn.Module] = []

    @contextmanager
    def policy() -> Iterator[nn.Module]:
        if entered:
            yield entered[0]
            return
        with gathered(engine) as actor:
            entered.append(actor.policy)
            try:
                yield actor.policy
            finally:
                entered.clear()

    @contextmanager
    def reference() -> Iterator[nn.Module]:
        if frozen is not None:
            yield frozen
        else:
            with policy() as model, reference_of(model):
                yield model

    return policy, reference


def _save(learner: Learner, policy: ModelContext, memory: Memory, folder: Path) -> None:
    """Write the policy's weights, and under trainer/ all it takes to go on."""
    with policy() as model:
        if hasattr(model, "peft_config"):
            save_adapter(model, folder)
        else:
            model.save_pretrained(folder)
    trainer = folder / "trainer"
    learner.engine.save_checkpoint(
        str(trainer), tag=ENGINE, save_latest=False, exclude_frozen_parameters=True
    )
    (trainer / STATE).write_text(json.dumps(memory.state(), indent=1), encoding="utf-8")
    if learner.critic is not None:
        torch.save(learner.critic.state(), trainer / CRITIC)


def _restore(learner: Learner, memory: Memory, trainer: Path) -> None:
    engine, inputs = learner.engine, learner.inputs
    engine.load_checkpoint(
        str(trainer), tag=ENGINE, load_module_strict=False, load_lr_scheduler_states=False
    )
    try:
        memory.restore(json.loads((trainer / STATE).read_text(encoding="utf-8")))
        if learner.critic is not None:
            state = torch.load(trainer / CRITIC, map_location=inputs.device, weights_only=True)
            learner.critic.restore(state)
    except (KeyError, FileNotFoundError) as error:
        raise CheckpointError(
            f"{trainer}: must hold the state of this version's PPO, and lacks {error}; an earlier "
            "version wrote this checkpoint: start the sweep again"
        ) from error
