"""The DeepSpeed configuration: a preset, a JSON file or a dict written in the spec."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from easyds_tune.errors import SpecError
from easyds_tune.spec.messages import shown

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

    Raises SpecError where a JSON file is missing, is not an object, or no trial can train with it.
    """
    if isinstance(setting, str) and setting in PRESETS:
        return preset(int(setting[-1]))
    config = setting if isinstance(setting, dict) else _read_config(setting)
    problems = [*_stage_problems(config), *_section_problems(config)]
    if problems:
        raise SpecError(problems)
    return config


def _read_config(setting: str) -> dict[str, Any]:
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


def _stage_problems(config: dict[str, Any]) -> list[str]:
    zero = config.get("zero_optimization", {})
    if not isinstance(zero, dict):
        return [
            f"deepspeed.zero_optimization: must be a mapping such as {{stage: 2}}, got {zero!r}"
        ]
    stage = zero.get("stage", 0)
    if type(stage) is int and stage in range(4):
        return []
    return [f"deepspeed.zero_optimization.stage: must be 0, 1, 2 or 3, got {stage!r}; write one"]


def _section_problems(config: dict[str, Any]) -> list[str]:
    """Sections that would overrule the spec: a searched learning rate would change nothing."""
    fields = {
        "optimizer": "training.learning_rate, weight_decay, adam_beta1 and adam_beta2 set it",
        "scheduler": "training.lr_scheduler_type and warmup_steps set it",
    }
    return [
        f"deepspeed.{section}: must be absent, {why}; remove it"
        for section, why in fields.items()
        if section in config
    ]


def zero_stage(config: dict[str, Any]) -> int:
    """The ZeRO stage of a config from `deepspeed_config`; 0 where none is set."""
    stage: int = config.get("zero_optimization", {}).get("stage", 0)
    return stage


def clipping_problems(config: dict[str, Any], max_grad_norm: float) -> list[str]:
    """A fixed clipping norm that contradicts the spec, as Transformers would refuse it."""
    clipping = config.get("gradient_clipping", "auto")
    if clipping in ("auto", max_grad_norm):
        return []
    return [
        f"deepspeed.gradient_clipping: must equal max_grad_norm, got {clipping} != "
        f"{max_grad_norm:g}; set gradient_clipping: auto"
    ]


def precision_problems(config: dict[str, Any], dtype: str) -> list[str]:
    """A fixed precision that contradicts the type the model is loaded in."""
    problems = []
    for section, wanted in (("bf16", "bfloat16"), ("fp16", "float16")):
        precision = config.get(section, {})
        if not isinstance(precision, dict):
            problems.append(
                f"deepspeed.{section}: must be a mapping such as {{enabled: auto}}, got "
                f"{shown(precision)}"
            )
        # With dtype auto the machine decides, and nothing is known yet.
        elif dtype != "auto" and precision.get("enabled", "auto") not in ("auto", dtype == wanted):
            problems.append(
                f"deepspeed.{section}.enabled: must be auto or agree with model.dtype {dtype}, "
                f"got {shown(precision['enabled'])}; set enabled: auto"
            )
    return problems


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
