"""Training settings that only Transformers, DeepSpeed or the device refuses: in every trial."""

from __future__ import annotations

import itertools
import math

from easyds_tune.algorithms.learning_rate import schedule
from easyds_tune.spec.deepspeed import deepspeed_config, precision_problems
from easyds_tune.spec.messages import shown
from easyds_tune.spec.resources import gpus_of
from easyds_tune.spec.searched import numbers_of, values_of
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.spec.training import TrainingSpec

KWARGS = "training.training_arguments.lr_scheduler_kwargs"
EXAMPLES = {
    "cosine": "{num_cycles: 0.5}",
    "cosine_with_restarts": "{num_cycles: 2}",
    "cosine_with_min_lr": "{min_lr_rate: 0.1}",
    "inverse_sqrt": "{timescale: 10}",
    "polynomial": "{lr_end: 0}",
    "warmup_stable_decay": "{num_decay_steps: 10}",
}
"""Settings that a schedule takes, or has to be given; any other takes none."""


def dtype_problems(spec: SweepSpec) -> list[str]:
    """Number formats that a trial cannot train in on the device it gets."""
    if gpus_of(spec.resources):
        return []
    if spec.model.dtype == "float16":
        return [
            "model.dtype: must be float32 or bfloat16 where no GPU is used, got float16, which "
            "DeepSpeed does not train on a CPU; set model.dtype: float32"
        ]
    if spec.model.dtype == "auto":
        return precision_problems(deepspeed_config(spec.deepspeed), "float32")
    return []


def schedule_problems(spec: SweepSpec, train_records: int) -> list[str]:
    """Learning rate schedules, of the spec or its search, that cannot be computed."""
    steps = spec.budget(max(1, train_records)).max_steps
    algorithm, training = spec.algorithm, spec.training
    updates = 1
    if algorithm.type == "ppo":
        rollout = max(algorithm.rollout_batch_size, training.effective_batch)
        updates = algorithm.num_ppo_epochs * rollout // training.effective_batch
    rates = numbers_of(spec, "training.learning_rate", training.learning_rate)
    warmups = numbers_of(spec, "training.warmup_steps", training.warmup_steps)
    tried = itertools.product(
        dict.fromkeys(values_of(spec, "training.lr_scheduler_type", training.lr_scheduler_type)),
        values_of(spec, "training.training_arguments", training.training_arguments),
        {min(rates), max(rates)},
        {min(warmups), max(warmups)},
    )
    names = ("lr_scheduler_type", "training_arguments", "learning_rate", "warmup_steps")
    problems: dict[str, str] = {}
    for values in tried:
        if values[0] in problems:
            continue
        changed = training.model_copy(update=dict(zip(names, values, strict=True)))
        if why := _why_not(changed, steps, updates):
            problems[values[0]] = why
    return list(problems.values())


def _why_not(training: TrainingSpec, steps: int, updates: int) -> str | None:
    settings = training.training_arguments.get("lr_scheduler_kwargs")
    if isinstance(settings, str):  # JSON, which Transformers reads by itself
        return None
    try:
        rate = schedule(training, steps, updates)
        last = max(1, steps) * updates - 1
        found = [float(rate(update)) for update in (0, last // 2, last)]
    except Exception as error:  # whatever arithmetic makes of settings of any kind
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
    else:
        if all(0 <= value < math.inf for value in found):
            return None
        why = f"the rate would be {', '.join(f'{value:g}' for value in found)}"
    kind = training.lr_scheduler_type
    given = f"{KWARGS} {shown(settings)} and learning_rate {training.learning_rate:g}"
    such_as = f"set {KWARGS}: {EXAMPLES[kind]}" if kind in EXAMPLES else f"remove {KWARGS}"
    return (
        f"training.lr_scheduler_type: must be a schedule that can be computed, got {kind} with "
        f"{given}: {why}; {such_as}, or choose another schedule"
    )
