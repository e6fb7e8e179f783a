"""Checks of what is searched: fields that may differ between trials, and values they accept."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import BaseModel, ValidationError

from easyds_tune.spec.base import written_fields
from easyds_tune.spec.conditions import contains, count_configurations, requirements
from easyds_tune.spec.messages import model_at, near_miss, shown, validation_problems
from easyds_tune.spec.search import ChoiceParam, FloatParam, IntParam, Param
from easyds_tune.spec.sweep import SweepSpec, set_path

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


def search_problems(spec: SweepSpec) -> list[str]:
    """What is wrong with the fields of a search space and their values."""
    problems: list[str] = []
    # Without the space itself, whose length each value would be checked with.
    raw = spec.model_dump() | {"search_space": {}}
    for path, param in spec.search_space.items():
        problem = path_problem(spec, path)
        if problem:
            problems.append(f"search_space.{path}: {problem}")
            continue
        values = param.end_points()
        if isinstance(param, FloatParam):
            values.append(param.low + (param.high - param.low) * 0.381966)
        where = _where_searched(raw, spec.search_space, path)
        for value in values:
            problem = value_problem(where, path, value)
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


def _where_searched(raw: dict[str, Any], space: dict[str, Param], path: str) -> dict[str, Any]:
    """The spec as it is in a trial that searches a field: with what its `when` asks for."""
    changed = copy.deepcopy(raw)
    for field, values in requirements(space, path).items():
        if field in space and values and contains(space[field], values[0]):
            set_path(changed, field, values[0])
    return changed


def _is_share_and_steps(param: Param) -> bool:
    """Whether a search of warmup_steps crosses 1, where the value changes its meaning."""
    if isinstance(param, IntParam):
        return False
    if isinstance(param, ChoiceParam):
        values = [float(value) for value in param.choice]  # a quoted number is one too
        return any(0 < value < 1 for value in values) and max(values) >= 1
    whole = param.low == 0 and param.step is not None and param.step >= 1
    return param.low < 1 < param.high and not whole


def size_problems(spec: SweepSpec) -> list[str]:
    """More trials than there are configurations: the rest would only repeat them."""
    wanted = spec.search.num_trials
    if spec.space_file is not None:
        return []
    if not spec.search_space:
        if wanted == 1:
            return []
        return [
            f"search_space: is empty, so {wanted} trials would all be the same; "
            "give search_space, or set search.num_trials: 1"
        ]
    there_are = count_configurations(spec.search_space, enough=wanted)
    if there_are is None:
        return []
    default = spec.default_params()
    there_are += not all(contains(spec.search_space[path], default[path]) for path in default)
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
        problem = path_problem(spec, path) or value_problem(raw, path, value)
        if problem:
            found.append(f"{path}: {problem}")
    return found


def path_problem(spec: SweepSpec, path: str) -> str | None:
    """Why a dotted path cannot be searched."""
    if why := fixed_because(path):
        return f"cannot be searched: {why}"
    head, _, rest = path.partition(".")
    model: type[BaseModel] | None = SweepSpec
    raw: Any = spec.model_dump(include={head})
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


def value_problem(raw: dict[str, Any], path: str, value: Any) -> str | None:
    """Why the spec refuses one value of a searched field."""
    changed = copy.deepcopy(raw)
    set_path(changed, path, value)
    try:
        SweepSpec.model_validate(changed)
    except ValidationError as error:
        reasons = validation_problems(error, changed)
        return f"the value {shown(value)} is refused: " + "; ".join(reasons)
    return None
