"""Checks across fields: what pydantic cannot see in one field alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from easyds_tune.errors import SpecError
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.argument_names import COMMON, RESERVED, passed_on
from easyds_tune.spec.base import Spec
from easyds_tune.spec.check_decisions import decision_problems
from easyds_tune.spec.check_metrics import bound_budget_problems, gpu_problems, metric_problems
from easyds_tune.spec.check_ppo import idle_searches, ppo_problems
from easyds_tune.spec.check_scheduler import scheduler_problems
from easyds_tune.spec.check_search import search_problems, size_problems
from easyds_tune.spec.data import DataSource, DataSpec
from easyds_tune.spec.deepspeed import (
    batch_problems,
    clipping_problems,
    deepspeed_config,
    precision_problems,
)
from easyds_tune.spec.finals import FinalsSpec
from easyds_tune.spec.judge import JudgeSpec
from easyds_tune.spec.messages import did_you_mean
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.resources import resource_problems
from easyds_tune.spec.sweep import SweepSpec

ADAPTER_CONFIG = "adapter_config.json"
BEST = "best:"
"""How the name of a sweep's winner will begin; no model is called so."""
EFFECTIVE_BATCH = (
    "training.per_device_train_batch_size", "training.gradient_accumulation_steps",
)  # fmt: skip


def spec_problems(spec: SweepSpec) -> list[str]:
    """Every contradiction inside a spec that is valid field by field; empty where it is sound."""
    return [
        *metric_problems(spec),
        *(budget_problems(spec) if spec.training.max_steps is not None else []),
        *_argument_problems(spec),
        *search_problems(spec),
        *decision_problems(spec),
        *_deepspeed_problems(spec),
        *ppo_problems(spec),
        *_start_problems(spec),
        *missing_files(spec.model, spec.judge, spec.data, spec.algorithm, spec.finals),
    ]


def budget_problems(spec: SweepSpec, train_records: int | None = None) -> list[str]:
    """What does not fit into the steps of a trial; train_records: for a budget in epochs."""
    budget = spec.budget(train_records)
    steps, every = spec.training.max_steps, spec.training.eval_steps
    problems = []
    if steps is not None and every is not None and every > max(steps, 1):
        problems.append(
            f"training.eval_steps: must be at most max_steps, got {every} > {steps}; lower it"
        )
    return [
        *problems,
        *scheduler_problems(spec, budget),
        *bound_budget_problems(spec, budget),
    ]


def _argument_problems(spec: SweepSpec) -> list[str]:
    known = passed_on(spec.algorithm.type)
    problems = []
    for name in spec.training.training_arguments:
        path = f"training.training_arguments.{name}"
        if name in RESERVED:
            problems.append(f"{path}: {RESERVED[name]}")
        elif spec.algorithm.type == "ppo" and name in COMMON - known:
            problems.append(f"{path}: ppo does not take it; it takes {', '.join(sorted(known))}")
        elif name not in known:
            problems.append(f"{path}: unknown argument{did_you_mean(name, sorted(known))}")
    return problems


def sweep_problems(spec: SweepSpec) -> list[str]:
    """What keeps a sound spec from being a sweep on this machine: its room, its search space.

    One trial alone needs no search space; `spec_problems` depends on no machine.
    """
    return [
        *resource_problems(spec.resources),
        *size_problems(spec),
        *idle_searches(spec),
        *gpu_problems(spec),
    ]


def _start_problems(spec: SweepSpec) -> list[str]:
    """TRL's trainers start from a whole model; PPO stacks its adapter on another."""
    kind, name = spec.algorithm.type, spec.model.model_name_or_path
    if kind == "ppo" or not os.path.isfile(os.path.join(os.path.expanduser(name), ADAPTER_CONFIG)):
        return []
    return [
        f"model.model_name_or_path: must be a whole model for {kind}, and {name} is an adapter; "
        "merge it first with easyds-tune export NAME --to DIR --merge"
    ]


def _deepspeed_problems(spec: SweepSpec) -> list[str]:
    try:
        config = deepspeed_config(spec.deepspeed)
    except SpecError as error:
        return error.problems
    problems = batch_problems(
        config,
        spec.training.per_device_train_batch_size,
        spec.training.gradient_accumulation_steps,
    )
    problems += clipping_problems(config, spec.training.max_grad_norm)
    problems += precision_problems(config, spec.model.dtype)
    clips = "training.max_grad_norm" in spec.search_space
    if clips and not problems and config.get("gradient_clipping", "auto") != "auto":
        return ["deepspeed.gradient_clipping: must be auto where max_grad_norm is searched"]
    searched = any(field in spec.search_space for field in EFFECTIVE_BATCH)
    if searched and not problems:
        fixed = [key for key in ("train_batch_size", "train_micro_batch_size_per_gpu",
                                 "gradient_accumulation_steps")
                 if config.get(key, "auto") != "auto"]  # fmt: skip
        problems = [f"deepspeed.{key}: must be auto where the batch is searched" for key in fixed]
    return problems


def is_local_path(name: str) -> bool:
    """Whether a model name can only mean a folder on this machine: hub names have one slash."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or os.path.exists(name)


def missing_files(
    model: ModelSpec | None,
    judge: JudgeSpec | None,
    data: DataSpec | None,
    algorithm: Spec | None = None,
    finals: FinalsSpec | None = None,
) -> list[str]:
    """Local models and data files that are not there; None for a section that is itself wrong."""
    problems = []
    models = {}
    if model:
        models["model.model_name_or_path"] = model.model_name_or_path
    if judge:
        models["judge.reward.model_name_or_path"] = judge.reward.model_name_or_path
    if isinstance(algorithm, PPOSpec):
        models["algorithm.reward.model_name_or_path"] = algorithm.reward.model_name_or_path
    for path, name in models.items():
        if name.startswith(BEST):
            problems.append(
                f"{path}: must be a model's folder or a hub name, got {name!r}: a sweep's winner "
                f"cannot be named yet; easyds-tune export {name.removeprefix(BEST) or 'NAME'} --to "
                "DIR, then write that folder"
            )
            continue
        folder = os.path.expanduser(name)
        if is_local_path(name) and not any(
            os.path.isfile(os.path.join(folder, file)) for file in ("config.json", ADAPTER_CONFIG)
        ):
            rule = "must be a model's folder or a hub name"
            what = "has no config.json" if os.path.isdir(folder) else "does not exist"
            problems.append(f"{path}: {rule}, and {name!r} {what}")
    sources: dict[str, Any] = {}
    if data:
        sources |= {"data.train": data.train, "data.eval": data.eval}
    if judge:
        sources["judge.prompts"] = judge.prompts
    if finals:
        sources["finals.prompts"] = finals.prompts
    for path, value in sources.items():
        for source in value if isinstance(value, tuple) else [value]:
            if isinstance(source, DataSource) and _looks_like_a_file(source.path):
                problems.append(f"{path}: no such file: {source.path!r}; looked in {Path.cwd()}")
    return problems


def _looks_like_a_file(name: str) -> bool:
    return not os.path.exists(os.path.expanduser(name)) and (
        is_local_path(name) or Path(name).suffix != ""
    )
