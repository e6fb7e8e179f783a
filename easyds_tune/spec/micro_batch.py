"""The same trial in less memory: smaller forward passes, as many examples an update."""

from __future__ import annotations

import math

from easyds_tune.spec.deepspeed import deepspeed_config
from easyds_tune.spec.sweep import TrialSpec

FIXED = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


def smaller_micro_batch(spec: TrialSpec, times: int) -> TrialSpec | None:
    """The trial after running out of memory `times` times; None where 1 did not fit any more.

    Each time the micro-batch is halved, or if that is odd, becomes its largest smaller divisor, and
    accumulation makes up for it: steps, effective batch and learning rate are as they were. What is
    judged and drawn at a time shrinks with it.
    """
    training = spec.training
    size = training.per_device_train_batch_size
    for _ in range(times):
        if size == 1:
            return None
        size = max(part for part in range(1, size // 2 + 1) if size % part == 0)
    shrunk = training.per_device_train_batch_size // size
    if shrunk == 1:
        return spec
    config = deepspeed_config(spec.deepspeed)
    fixed = {key: "auto" for key in FIXED if config.get(key, "auto") != "auto"}
    algorithm, judge = spec.algorithm, spec.judge
    if algorithm.type == "ppo":
        drawn = math.ceil(algorithm.rollout_forward_batch_size / shrunk)
        algorithm = algorithm.model_copy(update={"rollout_forward_batch_size": drawn})
    if judge is not None:
        judge = judge.model_copy(update={"batch_size": math.ceil(judge.batch_size / shrunk)})
    return spec.model_copy(
        update={
            "training": training.model_copy(
                update={
                    "per_device_train_batch_size": size,
                    "gradient_accumulation_steps": training.gradient_accumulation_steps * shrunk,
                }
            ),
            "deepspeed": config | fixed if fixed else spec.deepspeed,
            "algorithm": algorithm,
            "judge": judge,
        }
    )
