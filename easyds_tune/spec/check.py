"""Checks across fields: what pydantic cannot see in one field alone."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from easyds_tune.errors import SpecError
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.argument_names import COMMON, RESERVED, passed_on
from easyds_tune.spec.base import Spec, written_fields
from easyds_tune.spec.check_ppo import idle_searches, ppo_problems
from easyds_tune.spec.data import DataSource, DataSpec
from easyds_tune.spec.deepspeed import (
    batch_problems,
    clipping_problems,
    deepspeed_config,
    precision_problems,
)
from easyds_tune.spec.judge import JudgeSpec
from easyds_tune.spec.messages import (
    did_you_mean,
    model_at,
    near_miss,
    shown,
    validation_problems,
)
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.resources import resource_problems
from easyds_tune.spec.search import ChoiceParam, FloatParam, IntParam, Param
from easyds_tune.spec.sweep import SweepSpec, set_path

JUDGED = ["eval/reward", "eval/kl", "eval/kl_k1", "eval/kl_sequence", "eval/length",
          "eval/distinct_2"]  # fmt: skip
METRICS = {
    "sft": [*JUDGED, "eval/loss"],
    "dpo": JUDGED,
    "ppo": JUDGED,
    "rm": ["eval/accuracy", "eval/loss", "eval/margin"],
}
"""What may be an objective: measured alike in all trials."""
NEEDS_HELD_OUT = (
    "data.eval: is required and missing, because the objective is eval/loss and nothing "
    "is held out; give data.eval, or an eval_fraction such as 0.1"
)
ADAPTER_CONFIG = "adapter_config.json"
EFFECTIVE_BATCH = (
    "training.per_device_train_batch_size", "training.gradient_accumulation_steps",
)  # fmt: skip
SEARCHABLE = ("algorithm", "model", "training")
FIXED = {
    "algorithm.type": "a sweep trains with one algorithm",
    "algorithm.reward": "all trials train on one reward",
    "algorithm.ref_model_name_or_path": "KL is measured from where all trials start",
    "model.model_name_or_path": "all trials share one base",
    "model.revision": "all trials share one base",
    "model.dtype": "all trials share one base",
    "model.attn_implementation": "all trials share one base",
    "model.trust_remote_code": "all trials share one base",
    "training.max_steps": "the budget is the scheduler's to cut",
    "training.num_train_epochs": "the budget is the scheduler's to cut",
    "training.eval_steps": "trials are compared at the same steps",
}


def spec_problems(spec: SweepSpec) -> list[str]:
    """Every contradiction inside a spec that is valid field by field; empty where it is sound."""
    return [
        *_objective_problems(spec),
        *_budget_problems(spec),
        *_argument_problems(spec),
        *_search_problems(spec),
        *_deepspeed_problems(spec),
        *ppo_problems(spec),
        *_start_problems(spec),
        *missing_files(spec.model, spec.judge, spec.data, spec.algorithm),
    ]


def _objective_problems(spec: SweepSpec) -> list[str]:
    kind, metric = spec.algorithm.type, spec.objective.metric
    if kind == "rm" and spec.judge is not None:
        return ["judge: a reward model writes no replies and is judged by eval/accuracy; remove it"]
    known = METRICS[kind]
    if metric.startswith("train/"):
        return [
            f"objective.metric: {metric} cannot compare trials, whose batch, schedule and loss may "
            f"differ; use one of {', '.join(known)}"
        ]
    if metric not in known:
        hint = did_you_mean(metric, known) or f"; it reports {', '.join(known)}"
        return [f"objective.metric: {kind} does not report {metric}{hint}"]
    if metric in JUDGED and spec.judge is None:
        return [f"judge: is required and missing, because the objective is {metric}"]
    nothing_held_out = spec.data.eval is None and spec.data.eval_fraction == 0
    if kind == "sft" and metric == "eval/loss" and nothing_held_out:
        return [NEEDS_HELD_OUT]
    return []


def _budget_problems(spec: SweepSpec) -> list[str]:
    steps, every = spec.training.max_steps, spec.training.eval_steps
    grace = spec.scheduler.grace_period
    problems = []
    if steps is not None and every is not None and every > max(steps, 1):
        problems.append(
            f"training.eval_steps: must be at most max_steps, got {every} > {steps}; lower it"
        )
    if steps is not None and grace is not None and grace > steps:
        problems.append(
            f"scheduler.grace_period: must be within max_steps, got {grace} > {steps}; lower it"
        )
    return problems


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


def _search_problems(spec: SweepSpec) -> list[str]:
    problems: list[str] = []
    raw = spec.model_dump()
    for path, param in spec.search_space.items():
        problem = _path_problem(spec, path)
        if problem:
            problems.append(f"search_space.{path}: {problem}")
            continue
        values = param.end_points()
        if isinstance(param, FloatParam):
            values.append(param.low + (param.high - param.low) * 0.381966)
        for value in values:
            problem = _value_problem(raw, path, value)
            if problem:
                problems.append(f"search_space.{path}: {problem}")
                break
        else:
            if path == "training.warmup_steps" and _is_share_and_steps(param):
                problems.append(
                    f"search_space.{path}: below 1 it is a share of the budget, from 1 on a number "
                    f"of steps, got both, {shown(param.end_points())}; stay on one side"
                )
    return problems


def _is_share_and_steps(param: Param) -> bool:
    """Whether a search of warmup_steps crosses 1, where the value changes its meaning."""
    if isinstance(param, IntParam):
        return False
    if isinstance(param, ChoiceParam):
        values = [float(value) for value in param.choice]  # a quoted number is one too
        return any(0 < value < 1 for value in values) and max(values) >= 1
    whole = param.low == 0 and param.step is not None and param.step >= 1
    return param.low < 1 < param.high and not whole


def sweep_problems(spec: SweepSpec) -> list[str]:
    """What keeps a sound spec from being a sweep on this machine: its room, its search space.

    One trial alone needs no search space; `spec_problems` depends on no machine.
    """
    return [
        *resource_problems(spec.resources),
        *_size_problems(spec),
        *idle_searches(spec),
    ]


def _size_problems(spec: SweepSpec) -> list[str]:
    """More trials than there are configurations: the rest would only repeat them."""
    wanted = spec.search.num_trials
    if not spec.search_space:
        if wanted == 1:
            return []
        return [
            f"search_space: is empty, so {wanted} trials would all be the same; "
            "give search_space, or set search.num_trials: 1"
        ]
    sizes = []
    is_listed = True  # whether the default configuration, trial 0, is one of the choices
    for path, param in spec.search_space.items():
        if not isinstance(param, ChoiceParam):
            return []
        sizes.append(len(param.choice))
        is_listed &= spec.default_params()[path] in param.choice
    there_are = math.prod(sizes) + (not is_listed)
    if wanted <= there_are:
        return []
    return [
        f"search.num_trials: must be at most {there_are}, as many as search_space holds with the "
        f"default configuration, got {wanted}; set num_trials: {there_are} or search more values"
    ]


def param_problems(spec: SweepSpec, params: dict[str, Any]) -> list[str]:
    """Why a trial of `spec` cannot have these parameters; empty where it can."""
    raw = spec.model_dump()
    found = []
    for path, value in params.items():
        problem = _path_problem(spec, path) or _value_problem(raw, path, value)
        if problem:
            found.append(f"{path}: {problem}")
    return found


def _path_problem(spec: SweepSpec, path: str) -> str | None:
    """Why a dotted path cannot be searched."""
    if why := fixed_because(path):
        return f"cannot be searched: {why}"
    head, _, rest = path.partition(".")
    model: type[BaseModel] | None = SweepSpec
    raw: Any = spec.model_dump()
    if head in written_fields(SweepSpec) and head not in SEARCHABLE:
        return f"cannot be searched; what can be is under {', '.join(SEARCHABLE)}"
    for key in path.split("."):
        if model is None:
            return "is no field of the spec; what stands inside a field cannot be searched"
        if key not in model.model_fields:
            hint = _near_path(spec, path) or _what_can_be(spec, head)
            return f"is no field of the spec{hint}"
        raw = raw.get(key) if isinstance(raw, dict) else None
        model = model_at(model, key, raw)
    if model is not None or not rest:
        return "names a section; name one of its fields"
    return None


def fixed_because(path: str) -> str | None:
    """Why all trials of a sweep have one value of a field, or of the section it is in."""
    return next((why for fixed, why in FIXED.items() if f"{path}.".startswith(f"{fixed}.")), None)


def _near_path(spec: SweepSpec, path: str) -> str:
    """The path of a field whose own name is a near miss; sections are alike by themselves."""
    paths = {known.rpartition(".")[2]: known for known in searchable_paths(spec)}
    near = near_miss(path.rpartition(".")[2], paths)
    return f"; did you mean {paths[near]}?" if near else ""


def _what_can_be(spec: SweepSpec, section: str) -> str:
    inside = [path for path in searchable_paths(spec) if path.startswith(f"{section}.")]
    return f"; what can be searched there: {', '.join(inside)}" if inside else ""


def searchable_paths(spec: SweepSpec) -> list[str]:
    """Every dotted path a search space may name for this algorithm."""
    return [
        f"{section}.{field}"
        for section in SEARCHABLE
        for field in type(getattr(spec, section)).model_fields
        if f"{section}.{field}" not in FIXED
    ]


def _value_problem(raw: dict[str, Any], path: str, value: Any) -> str | None:
    """Why the spec refuses one value of a searched field."""
    changed = copy.deepcopy(raw)
    set_path(changed, path, value)
    try:
        SweepSpec.model_validate(changed)
    except ValidationError as error:
        reasons = validation_problems(error, changed)
        return f"the value {shown(value)} is refused: " + "; ".join(reasons)
    return None


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
    for path, value in sources.items():
        for source in value if isinstance(value, tuple) else [value]:
            if isinstance(source, DataSource) and _looks_like_a_file(source.path):
                problems.append(f"{path}: no such file: {source.path!r}; looked in {Path.cwd()}")
    return problems


def _looks_like_a_file(name: str) -> bool:
    return not os.path.exists(os.path.expanduser(name)) and (
        is_local_path(name) or Path(name).suffix != ""
    )
