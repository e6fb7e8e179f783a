"""Checks across fields of a PPO sweep, and what may be right but deserves a word."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from easyds_tune.spec.algorithm import PPOSpec, kl_horizon
from easyds_tune.spec.messages import shown
from easyds_tune.spec.search import IntParam
from easyds_tune.spec.sweep import SweepSpec, trial_spec

ROLLOUT_SIZE = "algorithm.rollout_batch_size"
MAX_COMBINATIONS = 4096
"""Of searched batch sizes that are tried one by one."""
ARGUMENT_MAPPINGS = ("gradient_checkpointing_kwargs", "lr_scheduler_kwargs")
"""Training arguments that hold settings of their own."""
LARGEST_MOVE = 1.2
"""Factor by which the controller moves the KL coefficient over one horizon, at most."""


def ppo_problems(spec: SweepSpec) -> list[str]:
    """Contradictions inside a PPO sweep; empty for any other."""
    ppo = spec.algorithm
    if not isinstance(ppo, PPOSpec):
        return []
    return [
        *_dropout_problems(spec),
        *_reference_problems(spec, ppo),
        *_coefficient_problems(spec, ppo),
        *_size_problems(spec, ppo),
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
    if "adaptive" in _values(spec, "algorithm.kl_controller", ppo.kl_controller):
        notes += _horizon_notes(spec, ppo, train_records)
    return notes


def _horizon_notes(spec: SweepSpec, ppo: PPOSpec, train_records: int | None) -> list[str]:
    """A horizon too long for the shortest trial, which is the one with the largest rollouts."""
    horizons = _numbers(spec, "algorithm.kl_horizon", ppo.kl_horizon)
    params = {
        "algorithm.kl_horizon": max(horizons, default=None),
        ROLLOUT_SIZE: int(max(_numbers(spec, ROLLOUT_SIZE, ppo.rollout_batch_size))),
    }
    trial = trial_spec(spec, "shortest", params, train_records)
    assert isinstance(trial.algorithm, PPOSpec)
    steps = trial.budget.max_steps
    horizon = kl_horizon(trial.algorithm, steps)
    factor = reach(horizon, steps)
    if steps == 0 or factor >= 2:
        return []
    enough = math.floor(_horizon_for(2, steps) * 10) / 10
    # In steps of the spec's own rollouts, as the field is written.
    written = enough * trial.algorithm.rollout_batch_size / ppo.rollout_batch_size
    remedy = f"set {written:g} or less, or null" if enough >= 1 else "give it at least 4 steps"
    largest = f" of {params[ROLLOUT_SIZE]} replies" if ROLLOUT_SIZE in spec.search_space else ""
    return [
        f"algorithm.kl_horizon: in a trial of {steps} step{'s' * (steps != 1)}{largest} a horizon "
        f"of {horizon:g} moves the KL coefficient by a factor of {factor:.3g} at most, too little "
        f"to reach a target; {remedy}"
    ]


def reach(horizon: float, steps: int) -> float:
    """The largest factor the KL coefficient can grow by within a trial."""
    return math.exp(min(steps * math.log1p((LARGEST_MOVE - 1) / horizon), 700))


def _horizon_for(factor: float, steps: int) -> float:
    return (LARGEST_MOVE - 1) / math.expm1(math.log(factor) / max(steps, 1))


def _values(spec: SweepSpec, path: str, default: Any) -> list[Any]:
    """The field's own value and the end points of its search; null left out."""
    param = spec.search_space.get(path)
    values = [default, *(param.end_points() if param else [])]
    return [value for value in values if value is not None]


def _numbers(spec: SweepSpec, path: str, default: float | None) -> list[float]:
    """As `_values`, in numbers; a value that is none, or not finite, is refused elsewhere."""
    numbers = []
    for value in _values(spec, path, default):
        with suppress(TypeError, ValueError, OverflowError):
            numbers.append(float(value))
    return [number for number in numbers if math.isfinite(number)]


def _dropout_problems(spec: SweepSpec) -> list[str]:
    largest = max(_numbers(spec, "model.lora_dropout", spec.model.lora_dropout))
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
    controllers = _values(spec, "algorithm.kl_controller", ppo.kl_controller)
    if "adaptive" in controllers and min(_numbers(spec, "algorithm.kl_coef", ppo.kl_coef)) == 0:
        return [
            "algorithm.kl_coef: must be above 0 for the adaptive controller, which multiplies it; "
            "set 0.05, or kl_controller: fixed"
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
    return problems


def _size_problems(spec: SweepSpec, ppo: PPOSpec) -> list[str]:
    """Every combination of sizes that a trial could have must divide."""
    problems = []
    estimators = _values(spec, "algorithm.advantage_estimator", ppo.advantage_estimator)
    critic_free = [name for name in estimators if name != "gae"]
    smallest = min(_numbers(spec, "algorithm.num_generations", ppo.num_generations))
    if critic_free and smallest < 2:
        problems.append(
            f"algorithm.num_generations: must be at least 2 for {critic_free[0]}, which compares "
            f"replies to one prompt, got {smallest:g}; set 4"
        )
    training = spec.training
    sizes = {
        ROLLOUT_SIZE: ppo.rollout_batch_size,
        "algorithm.num_generations": ppo.num_generations,
        "training.per_device_train_batch_size": training.per_device_train_batch_size,
        "training.gradient_accumulation_steps": training.gradient_accumulation_steps,
    }
    # A range is not written out before it is known to be short.
    choices = [_all_values(spec, path, value) for path, value in sizes.items()]
    if math.prod(map(len, choices)) > MAX_COMBINATIONS:
        return [
            *problems,
            "algorithm.rollout_batch_size: batch sizes must divide it in every trial; search them "
            "as short lists, such as [16, 32, 64]",
        ]
    bad_batch = bad_group = False
    for rollout, group, micro, accumulation in itertools.product(*choices):
        if rollout % (micro * accumulation) and not bad_batch:
            bad_batch = True
            problems.append(
                "algorithm.rollout_batch_size: must be a multiple of the effective batch "
                "(per_device_train_batch_size × gradient_accumulation_steps), got "
                f"{rollout} and {micro} × {accumulation}; set rollout_batch_size: "
                f"{math.ceil(rollout / (micro * accumulation)) * micro * accumulation}"
            )
        if rollout % group and not bad_group:
            bad_group = True
            problems.append(
                "algorithm.rollout_batch_size: must be a multiple of num_generations, got "
                f"{rollout} and {group}; set rollout_batch_size: "
                f"{math.ceil(rollout / group) * group}"
            )
    return problems


def _all_values(spec: SweepSpec, path: str, default: int) -> Sequence[int]:
    """Every whole number above 0 that a searched field can take, the spec's own first."""
    param = spec.search_space.get(path)
    if isinstance(param, IntParam):
        inside = range(max(1, param.low), param.high + 1, param.step or 1)
        return inside if len(inside) > MAX_COMBINATIONS else [default, *inside]
    found = [int(value) for value in _numbers(spec, path, default)]
    return [value for value in dict.fromkeys(found) if value > 0]
