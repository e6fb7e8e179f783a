"""Checks across fields of a PPO sweep, and what may be right but deserves a word."""

from __future__ import annotations

import math
import os

from easyds_tune.spec.algorithm import (
    CORRECTION,
    LARGEST_KL_RATIO,
    MAX_KL_ERROR,
    PPOSpec,
    kl_horizon,
)
from easyds_tune.spec.check_sizes import ROLLOUT_SIZE, size_problems
from easyds_tune.spec.messages import shown
from easyds_tune.spec.searched import numbers_of, values_of
from easyds_tune.spec.sweep import SweepSpec, trial_spec

ARGUMENT_MAPPINGS = ("gradient_checkpointing_kwargs", "lr_scheduler_kwargs")
"""Training arguments that hold settings of their own."""
FEWEST_STEPS = {"ziegler": 4, "adaptive": 3}
"""Steps of a trial in which a controller can move the coefficient by a factor of 2."""
CHECKPOINTING = ("use_reentrant", "preserve_rng_state")
"""What torch's checkpointing takes and a trial can make sense of, each true or false."""


def ppo_problems(spec: SweepSpec) -> list[str]:
    """Contradictions inside a PPO sweep; empty for any other."""
    ppo = spec.algorithm
    if not isinstance(ppo, PPOSpec):
        return []
    return [
        *_dropout_problems(spec),
        *_reference_problems(spec, ppo),
        *_coefficient_problems(spec, ppo),
        *size_problems(spec, ppo),
        *_adjustment_problems(spec, ppo),
        *_argument_problems(spec),
    ]


def ppo_notes(spec: SweepSpec, train_records: int | None = None) -> list[str]:
    """What a PPO sweep says to its user before it starts; empty for any other.

    train_records: needed where the budget is in epochs.
    """
    ppo = spec.algorithm
    if not isinstance(ppo, PPOSpec):
        return []
    notes = []
    judge = spec.judge
    if judge and _same_model(judge.reward.model_name_or_path, ppo.reward.model_name_or_path):
        notes.append(
            "judge.reward: is the very reward that PPO trains on, so a policy that learns to "
            "please it without being better is not found out; give the judge another one"
        )
    for controller in values_of(spec, "algorithm.kl_controller", ppo.kl_controller):
        if controller != "fixed":
            notes += _horizon_notes(spec, ppo, controller, train_records)
    return notes


def _horizon_notes(
    spec: SweepSpec, ppo: PPOSpec, controller: str, train_records: int | None
) -> list[str]:
    """A horizon too long for the shortest trial, which is the one with the largest rollouts."""
    horizons = numbers_of(spec, "algorithm.kl_horizon", ppo.kl_horizon)
    params = {
        "algorithm.kl_controller": controller,
        "algorithm.kl_horizon": max(horizons, default=None),
        ROLLOUT_SIZE: int(max(numbers_of(spec, ROLLOUT_SIZE, ppo.rollout_batch_size))),
    }
    trial = trial_spec(spec, "shortest", params, train_records)
    assert isinstance(trial.algorithm, PPOSpec)
    steps = trial.budget.max_steps
    horizon = kl_horizon(trial.algorithm, steps)
    factor = reach(controller, horizon, steps)
    if steps == 0 or factor >= 2:
        return []
    enough = math.floor(_horizon_for(controller, 2, steps) * 10) / 10
    # In steps of the spec's own rollouts, as the field is written.
    written = enough * trial.algorithm.rollout_batch_size / ppo.rollout_batch_size
    least = FEWEST_STEPS[controller]
    remedy = (
        f"set {written:g} or less, or null" if enough >= 1 else f"give it {least} steps or more"
    )
    largest = f" of {params[ROLLOUT_SIZE]} replies" if ROLLOUT_SIZE in spec.search_space else ""
    return [
        f"algorithm.kl_horizon: in a trial of {steps} step{'s' * (steps != 1)}{largest} a horizon "
        f"of {horizon:g} moves the KL coefficient by a factor of {factor:.3g} at most, too little "
        f"to reach a target; {remedy}"
    ]


def reach(controller: str, horizon: float, steps: int) -> float:
    """The largest factor by which a controller can move the KL coefficient within a trial."""
    return math.exp(min(_moves(controller, steps) * _largest_move(controller, horizon), 700))


def _moves(controller: str, steps: int) -> int:
    """How often the coefficient moves; `adaptive` sees no movement in the first rollout, and moves
    nothing any more after the last one."""
    return steps if controller == "ziegler" else max(0, steps - 2)


def _largest_move(controller: str, horizon: float) -> float:
    """By how much the coefficient's logarithm moves in one step, at most."""
    if controller == "ziegler":
        return math.log1p(MAX_KL_ERROR / horizon)
    return CORRECTION * math.log(LARGEST_KL_RATIO) / horizon


def _horizon_for(controller: str, factor: float, steps: int) -> float:
    """The longest horizon with which the coefficient can move by `factor`."""
    moves = _moves(controller, steps)
    if controller == "ziegler":
        return MAX_KL_ERROR / math.expm1(math.log(factor) / max(moves, 1))
    return moves * CORRECTION * math.log(LARGEST_KL_RATIO) / math.log(factor)


def _dropout_problems(spec: SweepSpec) -> list[str]:
    largest = max(numbers_of(spec, "model.lora_dropout", spec.model.lora_dropout))
    if largest == 0:
        return []
    return [
        f"model.lora_dropout: must be 0 for ppo, got {largest:g}: with dropout the "
        "probability ratio is not 1 before the first update, and a quarter of the tokens are "
        "clipped; remove it"
    ]


def _reference_problems(spec: SweepSpec, ppo: PPOSpec) -> list[str]:
    given, start = ppo.ref_model_name_or_path, spec.model.model_name_or_path
    if given is None or _same_model(given, start):
        return []
    return [
        f"algorithm.ref_model_name_or_path: must be the policy's start, {start}, got {given}: KL "
        "is measured from where training begins; remove it, or start from that model"
    ]


def _same_model(left: str, right: str) -> bool:
    left, right = os.path.expanduser(left), os.path.expanduser(right)
    return left == right or (
        os.path.isdir(left) and os.path.isdir(right) and os.path.samefile(left, right)
    )


def _coefficient_problems(spec: SweepSpec, ppo: PPOSpec) -> list[str]:
    controllers = values_of(spec, "algorithm.kl_controller", ppo.kl_controller)
    moving = [controller for controller in controllers if controller != "fixed"]
    if moving and min(numbers_of(spec, "algorithm.kl_coef", ppo.kl_coef)) == 0:
        return [
            f"algorithm.kl_coef: must be above 0 for the {moving[0]} controller, which multiplies "
            "it; set 0.05, or kl_controller: fixed"
        ]
    return []


def _argument_problems(spec: SweepSpec) -> list[str]:
    """TRL's config class would check these; PPO is built on none."""
    problems = []
    for name, value in spec.training.training_arguments.items():
        path = f"training.training_arguments.{name}"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name == "adam_epsilon" and not (is_number and 0 < value < math.inf):
            problems.append(f"{path}: must be a number above 0, got {shown(value)}; set 1e-8")
        if name in ARGUMENT_MAPPINGS and not isinstance(value, dict):
            problems.append(f"{path}: must be a mapping of settings, got {shown(value)}")
        elif name == "gradient_checkpointing_kwargs":
            problems += [
                f"{path}.{key}: must be one of {', '.join(CHECKPOINTING)}, and true or false, "
                f"got {shown(setting)}; correct or remove it"
                for key, setting in value.items()
                if key not in CHECKPOINTING or not isinstance(setting, bool)
            ]
    return problems


def idle_searches(spec: SweepSpec) -> list[str]:
    """Searched fields that no trial of a PPO sweep heeds: a search of them finds only noise."""
    ppo = spec.algorithm
    if not isinstance(ppo, PPOSpec):
        return []
    controllers = values_of(spec, "algorithm.kl_controller", ppo.kl_controller)
    estimators = values_of(spec, "algorithm.advantage_estimator", ppo.advantage_estimator)
    factors = numbers_of(spec, "algorithm.lr_adjust_factor", ppo.lr_adjust_factor)
    no_controller = {"kl_controller: fixed"} if set(controllers) == {"fixed"} else set()
    no_limit = set() if "adaptive" in controllers else {f"kl_controller: {controllers[0]}"}
    no_critic = {f"advantage_estimator: {estimators[0]}"} if "gae" not in estimators else set()
    no_rule = {"lr_adjust_factor: 1"} if max(factors) <= 1 else set()
    reasons = {
        "kl_target": no_controller | no_rule if no_controller and no_rule else set(),
        "kl_horizon": no_controller,
        "kl_coef_limit": no_limit,
        **dict.fromkeys(("gamma", "lam", "value_learning_rate", "cliprange_value"), no_critic),
        **dict.fromkeys(("lr_adjust_band", "lr_adjust_limit"), no_rule),
    }
    return [
        f"search_space.algorithm.{field}: must change what is trained, and does nothing with "
        f"{' and '.join(sorted(reason))}; remove it from search_space"
        for field, reason in reasons.items()
        if reason and f"algorithm.{field}" in spec.search_space
    ]


def _adjustment_problems(spec: SweepSpec, ppo: PPOSpec) -> list[str]:
    factor = max(numbers_of(spec, "algorithm.lr_adjust_factor", ppo.lr_adjust_factor))
    limit = min(numbers_of(spec, "algorithm.lr_adjust_limit", ppo.lr_adjust_limit))
    if factor <= limit:
        return []
    return [
        f"algorithm.lr_adjust_limit: must be at least lr_adjust_factor, so that one adjustment "
        f"fits into it, got {limit:g} < {factor:g}; set lr_adjust_limit: {factor * factor:g}, or a "
        "smaller factor"
    ]
