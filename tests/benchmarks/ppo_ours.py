"""This project's PPO on a `Task`: a trial as a sweep runs it, without a judge or checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace

import deepspeed  # noqa: F401  (here and not at its first use, so that it counts as an import)
import torch
import trl.models.utils  # noqa: F401
from ppo_task import Meter, Task

from easyds_tune.algorithms import ppo
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.trial.quiet import quiet_libraries
from easyds_tune.trial.records import read_records
from easyds_tune.trial.workbench import Workbench

NEVER = -1
"""A token that no model writes, so that no reply ends before its length."""


def main() -> None:
    """Train, and print what it took."""
    task = Task.from_command_line()
    quiet_libraries()
    torch.set_num_threads(1)
    meter = Meter(task.device)
    sweep = sweep_of(task)
    records = read_records(sweep.data, "ppo", None)
    bench = Workbench(sweep, records, torch.device(task.device))
    trial = trial_spec(sweep, "000", {}, len(records.train))
    inputs = replace(bench.lend(trial), end_token_ids=(NEVER,))
    metrics = {}
    for row in ppo.train(trial, inputs):
        meter.mark()
        metrics = row.metrics
    if metrics["train/length"] != task.reply_length:
        raise SystemExit(f"replies must have {task.reply_length} tokens, got {metrics}")
    if metrics["train/updates"] != task.epochs:
        raise SystemExit(f"a step must make {task.epochs} updates, got {metrics}")
    meter.print_result(
        rollout_seconds=metrics["time/rollout_seconds"],
        update_seconds=metrics["time/update_seconds"],
        finite=all(map(math.isfinite, metrics.values())),
    )


def sweep_of(task: Task) -> SweepSpec:
    """The task as a spec; settings of PPO itself that change no cost stay at TRL's values."""
    return SweepSpec.model_validate(
        {
            "name": "benchmark-ppo",
            "seed": task.seed,
            "algorithm": {
                "type": "ppo",
                "reward": {"model_name_or_path": task.reward_model},
                "rollout_batch_size": task.replies,
                "rollout_forward_batch_size": task.replies,
                "response_length": task.reply_length,
                "num_ppo_epochs": task.epochs,
                "missing_eos_penalty": 0.0,
                "kl_controller": "fixed",
            },
            "model": {
                "model_name_or_path": task.model,
                "dtype": task.dtype,
                "lora_r": task.lora_r,
                "lora_alpha": task.lora_alpha,
            },
            "data": {"train": task.prompts},
            "training": {
                "max_steps": task.steps,
                "eval_steps": 1,
                "learning_rate": task.learning_rate,
                "lr_scheduler_type": "constant",
                "per_device_train_batch_size": task.micro_batch,
                "gradient_accumulation_steps": task.replies // task.micro_batch,
            },
            "deepspeed": "zero2",
            "objective": {"metric": "train/loss", "mode": "min"},
            "scheduler": {"type": "none"},
            "resources": {"gpus_per_trial": 1 if task.device == "cuda" else 0},
        }
    )


if __name__ == "__main__":
    main()
