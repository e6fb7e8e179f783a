"""DeepSpeed configs of the user's own, tried out on DeepSpeed's settings before anything starts."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch.utils.cpp_extension import (
    get_cxx_compiler,
    get_default_build_root,
    is_ninja_available,
)
from transformers import PreTrainedModel

from easyds_tune.errors import Problem
from easyds_tune.models.deepspeed import hidden_size_of
from easyds_tune.spec.deepspeed import (
    PRESETS,
    SIZED,
    deepspeed_config,
    filled_config,
    offload_device,
    optimizer_on_cpu,
)
from easyds_tune.spec.messages import shown
from easyds_tune.spec.resources import gpus_of
from easyds_tune.spec.sweep import SweepSpec

NEED_A_GPU = ("zero_quantized_weights", "zero_quantized_gradients",
              "zero_quantized_nontrainable_weights")  # fmt: skip
"""Switches of zero_optimization whose kernels are for GPUs."""
OLD_LOCK_SECONDS = 1800.0
"""No build of an op takes so long."""


def deepspeed_problems(spec: SweepSpec, skeleton: PreTrainedModel) -> list[str]:
    """What DeepSpeed refuses of a config of the user's, and ops that cannot be built here."""
    if isinstance(spec.deepspeed, str) and spec.deepspeed in PRESETS:
        return []
    config = deepspeed_config(spec.deepspeed)
    zero = config.get("zero_optimization", {})
    width = hidden_size_of(skeleton.config)
    if width is None:
        return [
            str(
                Problem(
                    f"deepspeed.zero_optimization.{name}",
                    "must be a number where the model's config.json has no hidden_size",
                    "auto",
                    "write one",
                )
            )
            for name in SIZED
            if zero.get(name) == "auto"
        ]
    filled = filled_config(config, spec.training, width, "float32")
    switched_on = [] if gpus_of(spec.resources) else [n for n in NEED_A_GPU if zero.get(n)]
    problems = [
        str(
            Problem(
                f"deepspeed.zero_optimization.{name}",
                "must be off where no GPU is used",
                shown(zero[name]),
                "remove it",
            )
        )
        for name in switched_on
    ]
    return [*problems, *_config_problems(filled), *_op_problems(config, zero)]


def _config_problems(filled: dict[str, Any]) -> list[str]:
    from deepspeed.runtime.config import DeepSpeedConfig

    try:
        with _quiet_ranks():
            DeepSpeedConfig(filled)
    except ValidationError as error:
        section = "zero_optimization." if error.title == "DeepSpeedZeroConfig" else ""
        return [
            f"deepspeed.{section}{'.'.join(map(str, item['loc']))}: must be what DeepSpeed takes, "
            f"got {shown(item['input'])}: {item['msg']}; correct it, or remove it"
            for item in error.errors()
        ]
    except Exception as error:  # assertions and others
        why = " ".join(str(error).split()) or type(error).__name__
        return [f"deepspeed: must be a config that DeepSpeed takes: {why:.300}; correct it"]
    return []


@contextmanager
def _quiet_ranks() -> Iterator[None]:
    """DeepSpeed warns where no process group is there to tell the number of ranks."""
    from deepspeed.utils import logger

    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _op_problems(config: dict[str, Any], zero: dict[str, Any]) -> list[str]:
    """DeepSpeed's own kernels that offloading needs, where they cannot be built."""
    from deepspeed.ops.op_builder import AsyncIOBuilder, CPUAdamBuilder

    needed: dict[str, Any] = {}
    if optimizer_on_cpu(config):
        needed["offload_optimizer"] = CPUAdamBuilder()
    for name in ("offload_optimizer", "offload_param"):
        if offload_device(zero, name) == "nvme":
            needed[name] = AsyncIOBuilder()
    return [
        str(
            Problem(
                f"deepspeed.zero_optimization.{name}",
                f"must be absent where DeepSpeed cannot build its op {op.NAME}",
                "no compiler, ninja or library for it",
                "install a C++ compiler and ninja (libaio for nvme), or remove it",
            )
        )
        for name, op in needed.items()
        if not _can_build(op)
    ] + [
        str(
            Problem(
                f"deepspeed.zero_optimization.{name}",
                "must not wait for another process to build DeepSpeed's op",
                f"{lock}, {age / 60:.0f} minutes old",
                "remove that file if no build runs; a process killed while it builds leaves one",
            )
        )
        for name, op in needed.items()
        for lock in _build_locks(op)
        if (age := _age_of(lock)) > OLD_LOCK_SECONDS
    ]


def _build_locks(op: Any) -> Iterator[Path]:
    """Files that torch waits for before it builds or loads an op (torch 2.13, file_baton.py)."""
    own = os.environ.get("TORCH_EXTENSIONS_DIR")
    version = f"py{sys.version_info.major}{sys.version_info.minor}_*"
    folders = [Path(own)] if own else Path(get_default_build_root()).glob(version)
    return (folder / op.name / "lock" for folder in folders)


def _age_of(file: Path) -> float:
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:  # no build, or it has just ended
        return 0.0


def _can_build(op: Any) -> bool:
    from deepspeed.git_version_info import installed_ops

    if installed_ops.get(op.NAME):
        return True
    has_compiler = is_ninja_available() and shutil.which(get_cxx_compiler()) is not None  # type: ignore[no-untyped-call]
    return has_compiler and bool(op.is_compatible(verbose=False))
