"""A sweep's spec without files behind it: what the searcher and the scheduler need to know."""

from __future__ import annotations

from typing import Any

from easyds_tune.spec.sweep import SweepSpec

SPACE: dict[str, Any] = {
    "training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "algorithm.beta": {"low": 0.05, "high": 0.5},
    "model.lora_r": [4, 8, 16],
    "training.gradient_accumulation_steps": {"low": 1, "high": 4},
}


def sweep_spec(space: dict[str, Any] | None = None, **changes: Any) -> SweepSpec:
    """A DPO sweep of eight trials; `changes` are merged into its sections."""
    raw: dict[str, Any] = {
        "name": "search",
        "algorithm": {"type": "dpo", "beta": 0.1},
        "model": {"model_name_or_path": "never-loaded", "lora_r": 8},
        "data": {"train": "never-read.jsonl"},
        "judge": {
            "prompts": "never-read.jsonl", "reward": {"model_name_or_path": "never-loaded"},
        },
        "training": {
            "max_steps": 30, "eval_steps": 5, "learning_rate": 1e-4,
            "per_device_train_batch_size": 8,
        },
        "search_space": SPACE if space is None else space,
        "search": {"num_trials": 8, "startup_trials": 3},
    }  # fmt: skip
    for section, change in changes.items():
        raw[section] = {**raw.get(section, {}), **change}
    return SweepSpec.model_validate(raw)
