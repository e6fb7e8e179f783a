"""The DeepSpeed configuration: a preset, a JSON file or a dict written in the spec."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from easyds_tune.errors import SpecError

PRESETS = ("zero0", "zero1", "zero2", "zero3")


def preset(stage: int) -> dict[str, Any]:
    """A DeepSpeed config for one ZeRO stage; `auto` values come from the training arguments."""
    zero: dict[str, Any] = {"stage": stage}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
    }


def deepspeed_config(setting: str | dict[str, Any]) -> dict[str, Any]:
    """Turn the spec's `deepspeed:` into a config dict.

    Raises SpecError where a JSON file is missing or is not an object.
    """
    if isinstance(setting, dict):
        return setting
    if setting in PRESETS:
        return preset(int(setting[-1]))
    path = Path(setting)
    if not os.path.isfile(path):
        raise SpecError(
            [f"deepspeed: must be one of {', '.join(PRESETS)} or a JSON file, got {setting!r}"]
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError([f"deepspeed: {path} cannot be read as JSON: {error}"]) from error
    if not isinstance(config, dict):
        raise SpecError([f"deepspeed: {path} must hold a JSON object, got {type(config).__name__}"])
    return config


def zero_stage(config: dict[str, Any]) -> int:
    """The ZeRO stage of a config; 0 where none is set."""
    zero = config.get("zero_optimization", {})
    return int(zero.get("stage", 0)) if isinstance(zero, dict) else 0


def batch_problems(config: dict[str, Any], micro_batch: int, accumulation: int) -> list[str]:
    """Fixed batch numbers in a config that contradict the spec, as DeepSpeed would refuse them."""
    wanted = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro_batch * accumulation,
    }
    rule = {
        "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
        "gradient_accumulation_steps": "gradient_accumulation_steps",
        "train_batch_size": "micro_batch × accumulation × ranks",
    }
    return [
        f"deepspeed.{key}: must equal {rule[key]}, got {config[key]} != {value}; "
        f"set {key}: {value} or auto"
        for key, value in wanted.items()
        if config.get(key, "auto") not in ("auto", value)
    ]
