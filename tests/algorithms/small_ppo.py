"""A small PPO sweep on the bundled models, for the tests of rollouts and of the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easyds_tune.spec.load import validate
from easyds_tune.spec.sweep import SweepSpec
from tests.trial.small import DATA, TUTOR

REWARD = DATA / "models" / "tiny-reward"


def ppo_spec(*, base: Path = TUTOR, reward: Path = REWARD, **changes: Any) -> SweepSpec:
    """Three steps of 16 replies, each learnt from in 2 passes of 2 updates; no learning-rate decay.

    changes: merged into the sections.
    """
    raw: dict[str, Any] = {
        "name": "small-ppo",
        "algorithm": {
            "type": "ppo", "reward": {"model_name_or_path": str(reward)},
            "rollout_batch_size": 16, "response_length": 10, "num_ppo_epochs": 2,
        },
        "model": {
            "model_name_or_path": str(base), "dtype": "float32", "lora_r": 4, "lora_alpha": 8,
        },
        "data": {"train": {"path": str(DATA / "easyds" / "prompts.jsonl"), "limit": 40}},
        "training": {
            "max_steps": 3, "eval_steps": 1, "learning_rate": 1e-3,
            "lr_scheduler_type": "constant", "per_device_train_batch_size": 8,
        },
        "judge": {
            "prompts": str(DATA / "easyds" / "judge_prompts.jsonl"), "num_prompts": 4,
            "max_new_tokens": 8, "reward": {"model_name_or_path": str(REWARD)},
        },
    }  # fmt: skip
    for section, change in changes.items():
        raw[section] = {**raw.get(section, {}), **change} if isinstance(change, dict) else change
    return validate(raw)
