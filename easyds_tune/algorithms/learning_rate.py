"""PPO's learning rate: Transformers' schedules over the full budget, and a rule that heeds the KL.

The rule is the EasyDS project's: less where the policy moves too fast for its KL target, more where
it moves too slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from transformers import get_scheduler

from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.training import TrainingSpec


def schedule(
    training: TrainingSpec, max_steps: int, updates_per_step: int
) -> Callable[[int], float]:
    """The learning rate of optimizer update 0, 1, … of a trial, by the spec's schedule.

    A warm-up counts in steps, or below 1 as a share of them, and rises with each update.
    """
    total = max(1, max_steps) * updates_per_step
    warmup = training.warmup_steps
    updates = math.ceil(warmup * updates_per_step if warmup >= 1 else warmup * total)
    unused = torch.optim.SGD([torch.zeros(1)], lr=training.learning_rate)
    multiplier = get_scheduler(
        training.lr_scheduler_type,
        unused,
        num_warmup_steps=updates,
        num_training_steps=total,
        scheduler_specific_kwargs=training.training_arguments.get("lr_scheduler_kwargs"),
    ).lr_lambdas[0]
    # Counted from 1 within a warm-up: an update at rate 0 would be one for nothing.
    return lambda update: training.learning_rate * multiplier(update + (update < updates))


def adjusted_scale(scale: float, kl: float, ppo: PPOSpec) -> float:
    """What the schedule is multiplied by after a step in which `kl` nats per token were measured.

    scale: what it was multiplied by so far; stays within 1 / lr_adjust_limit and lr_adjust_limit.
    """
    if kl > ppo.kl_target * ppo.lr_adjust_band:
        scale /= ppo.lr_adjust_factor
    elif kl < ppo.kl_target / ppo.lr_adjust_band:
        scale *= ppo.lr_adjust_factor
    return min(max(scale, 1 / ppo.lr_adjust_limit), ppo.lr_adjust_limit)
