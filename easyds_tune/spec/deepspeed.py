"""The DeepSpeed configuration: a preset, a JSON file or a dict written in the spec."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from easyds_tune.errors import SpecError
from easyds_tune.spec.messages import did_you_mean, shown
from easyds_tune.spec.training import TrainingSpec

PRESETS = ("zero0", "zero1", "zero2", "zero3")
BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
SIZED: dict[str, Callable[[int], int]] = {
    "reduce_bucket_size": lambda width: width * width,
    "stage3_prefetch_bucket_size": lambda width: int(0.9 * width * width),
    "stage3_param_persistence_threshold": lambda width: 10 * width,
}
"""Numbers of zero_optimization that follow the model's hidden size, as in Transformers' Trainer."""
GATHER = "stage3_gather_16bit_weights_on_model_save"
AUTO = {
    *BATCH, "gradient_clipping", "bf16.enabled", "fp16.enabled", f"zero_optimization.{GATHER}",
    *(f"zero_optimization.{name}" for name in SIZED),
}  # fmt: skip
"""Where a config may say `auto`."""
TAKEN = {
    *BATCH, "gradient_clipping", "bf16", "fp16", "data_types", "zero_optimization",
    "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "communication_data_type",
    "prescale_gradients", "gradient_predivide_factor", "sparse_gradients", "disable_allgather",
    "aio", "steps_per_print", "wall_clock_breakdown", "memory_breakdown", "dump_state",
    "comms_logger", "flops_profiler",
}  # fmt: skip
"""Sections that are passed on to DeepSpeed."""
NOT_TAKEN = {
    "optimizer": "training.learning_rate, weight_decay, adam_beta1 and adam_beta2 set it",
    "scheduler": "training.lr_scheduler_type and warmup_steps set it",
    "activation_checkpointing": "training.gradient_checkpointing sets it",
    "amp": "model.dtype sets the precision",
    "bfloat16": "bf16 is its name",
    **dict.fromkeys(
        ("tensorboard", "wandb", "csv_monitor", "comet", "monitor_config"),
        "the sweep logs to its journal and TensorBoard",
    ),
    **dict.fromkeys(("checkpoint", "nebula"), "the sweep keeps checkpoints itself"),
    **dict.fromkeys(("elasticity", "autotuning"), "the batch is the spec's"),
    **dict.fromkeys(("curriculum_learning", "data_efficiency"), "the data is the spec's"),
    **dict.fromkeys(
        ("compression_training", "hybrid_engine", "sparse_attention", "pipeline",
         "tensor_parallel", "inference", "torch_autocast"),
        "trials do not use it",
    ),
}  # fmt: skip
"""Sections that would overrule the spec, or that nothing here reads, and why."""


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
    problems = [
        *_stage_problems(config),
        *_section_problems(config),
        *_auto_problems(config),
        *_offload_problems(config),
    ]
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
    """Sections that overrule the spec, that nothing reads, or that DeepSpeed does not know."""
    problems = [
        f"deepspeed.{section}: must be absent, {why}; remove it"
        for section, why in NOT_TAKEN.items()
        if section in config
    ]
    return problems + [
        f"deepspeed.{section}: unknown section{did_you_mean(section, sorted(TAKEN))}"
        for section in config
        if section not in TAKEN | NOT_TAKEN.keys()
    ]


def _auto_problems(config: dict[str, Any]) -> list[str]:
    """`auto` where neither Transformers nor DeepSpeed knows what to fill in."""
    return [
        f"deepspeed.{path}: must be a value of its own, got auto; write one, or remove it"
        for path in _autos({name: part for name, part in config.items() if name not in NOT_TAKEN})
        if path not in AUTO | {"zero_optimization.stage"}
    ]


def _autos(config: dict[str, Any], above: str = "") -> list[str]:
    """The dotted path of each `auto`."""
    paths = []
    for key, value in config.items():
        if value == "auto":
            paths.append(f"{above}{key}")
        elif isinstance(value, dict):
            paths += _autos(value, f"{above}{key}.")
    return paths


OLD_OFFLOADS = {"cpu_offload": "offload_optimizer", "cpu_offload_params": "offload_param"}
"""DeepSpeed's old names -> those of today."""


def _offload_problems(config: dict[str, Any]) -> list[str]:
    """Offloading that the stage does not have: DeepSpeed would ignore it."""
    zero = config.get("zero_optimization", {})
    stage = zero.get("stage", 0) if isinstance(zero, dict) else None
    if not isinstance(stage, int):
        return []
    if old := [name for name in OLD_OFFLOADS if name in zero]:
        return [
            f"deepspeed.zero_optimization.{name}: must be absent, its name is an old one; write "
            f"{OLD_OFFLOADS[name]}: {{device: cpu}}, or remove it"
            for name in old
        ]
    least = {"offload_optimizer": 1, "offload_param": 3}
    return [
        f"deepspeed.zero_optimization.{name}: must be absent below stage {needed}, got stage "
        f"{stage}; set stage: {needed}, or remove it"
        for name, needed in least.items()
        if offload_device({name: zero.get(name)}, name) != "none" and stage < needed
    ]


def offload_device(zero: dict[str, Any], name: str = "offload_optimizer") -> str:
    """Where a section of zero_optimization keeps its part: `none`, `cpu` or `nvme`."""
    section = zero.get(name)
    return str(section.get("device") or "none") if isinstance(section, dict) else "none"


def optimizer_on_cpu(config: dict[str, Any]) -> bool:
    """Whether the optimizer's step is DeepSpeed's own on the CPU, as offloading has it."""
    zero = config.get("zero_optimization", {})
    forced: bool = config.get("zero_force_ds_cpu_optimizer", True)
    return forced and offload_device(zero) != "none"


def filled_config(
    config: dict[str, Any], training: TrainingSpec, hidden_size: int | None, dtype: str
) -> dict[str, Any]:
    """A config of `deepspeed_config` without `auto`: the same numbers for every algorithm.

    hidden_size: of the model; only needed where a number of SIZED is `auto`.
    dtype: the model's, such as bfloat16.
    """
    filled = copy.deepcopy(config)
    values = {
        "train_micro_batch_size_per_gpu": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "train_batch_size": training.effective_batch,
        "gradient_clipping": training.max_grad_norm,
    }
    filled |= {key: value for key, value in values.items() if filled.get(key, "auto") == "auto"}
    for section, wanted in (("bf16", "bfloat16"), ("fp16", "float16")):
        filled[section] = {**filled.get(section, {}), "enabled": dtype == wanted}
    zero = filled.setdefault("zero_optimization", {})
    for name, value in zero.items():
        if value == "auto":
            zero[name] = True if name == GATHER else SIZED[name](hidden_size or 0)
    filled["zero_allow_untested_optimizer"] = True  # as Accelerate sets it
    return filled


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
