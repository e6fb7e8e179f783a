"""Checks of what proposes trials: conditions, samplers, warm-start points, a space in Python."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from easyds_tune.errors import SpecError
from easyds_tune.spec.check_ppo import ppo_problems
from easyds_tune.spec.check_search import param_problems, path_problem, searchable_paths
from easyds_tune.spec.conditions import (
    active_paths,
    allowed_values,
    contains,
    count_configurations,
    cycles,
    listed,
    requirements,
)
from easyds_tune.spec.messages import did_you_mean, shown
from easyds_tune.spec.metrics import JUDGED
from easyds_tune.spec.search import ChoiceParam, FloatParam, Param
from easyds_tune.spec.space_file import StandInTrial, draw
from easyds_tune.spec.sweep import SweepSpec, get_path, set_path

JOURNAL = "journal.jsonl"
"""What makes a folder that of a sweep."""
LARGEST_GRID = 100_000
"""Combinations that a grid may have."""
TRIED_DRAWS = 30
"""Configurations of a space file that are tried before anything starts."""


def decision_problems(spec: SweepSpec) -> list[str]:
    """What is wrong with the search of a spec, beyond the values of each field."""
    return [
        *_condition_problems(spec),
        *_sampler_problems(spec),
        *_point_problems(spec),
        *_earlier_sweep_problems(spec),
        *_space_file_problems(spec),
        *_finals_problems(spec),
        *_keep_problems(spec),
    ]


def _condition_problems(spec: SweepSpec) -> list[str]:
    space = spec.search_space
    found = []
    circle = cycles(space)
    if circle:
        found.append(
            f"search_space.{circle[0]}.when: must not lead back to itself, got "
            f"{' and '.join(circle)} in a circle; remove one of the conditions"
        )
    for path, param in space.items():
        if path in circle or not param.when:
            continue
        wrong = [
            problem
            for field, wanted in param.when.items()
            if (problem := _parent_problem(space, field, wanted))
        ]
        found += [f"search_space.{path}.when: {problem}" for problem in wrong]
        never = [field for field, values in requirements(space, path).items() if not values]
        if never and not wrong:
            found.append(
                f"search_space.{path}.when: can never hold, for what it names asks for other "
                f"values of {never[0]}; change one of the conditions"
            )
    return found


def _parent_problem(space: dict[str, Param], field: str, wanted: Any) -> str | None:
    """Why a field cannot be waited for to have these values."""
    if field not in space:
        hint = did_you_mean(field, list(space)) or f"; searched are {', '.join(space)}"
        return f"must name searched fields, and {field} is none{hint}"
    parent, values = space[field], allowed_values(wanted)
    if isinstance(parent, FloatParam) and parent.step is None:
        return (
            f"{field} is a range without steps, which never meets a value exactly; "
            "search it in a list, or give it a step"
        )
    if not values:
        return f"must give {field} a value, got an empty list"
    outside = [value for value in values if not contains(parent, value)]
    if not outside:
        return None
    kind = f"one of {shown(parent.choice)}" if isinstance(parent, ChoiceParam) else "in its range"
    return f"{field} never is {shown(outside[0])}; name a value that it takes, {kind}"


def _sampler_problems(spec: SweepSpec) -> list[str]:
    space, sampler = spec.search_space, spec.search.sampler
    if sampler == "grid":
        if spec.space_file is not None:
            return ["search.sampler: a grid needs a search_space, and a space_file lists nothing; "
                    "set random"]  # fmt: skip
        endless = [path for path, param in space.items() if listed(param) is None]
        if endless:
            return [
                f"search_space.{path}: must be a list or have a step for the grid sampler, which "
                "tries every value; give it a step, or set search.sampler: random"
                for path in endless
            ]
        size = count_configurations(space) or 0
        if size > LARGEST_GRID:
            return [
                f"search.sampler: a grid must have at most {LARGEST_GRID} combinations, and "
                f"search_space has {shown(size)}; search fewer values, or set random"
            ]
    if sampler == "cmaes" and space and all(isinstance(p, ChoiceParam) for p in space.values()):
        return [
            "search.sampler: cmaes moves through numbers, and search_space has only lists, which "
            "it draws at random; set tpe"
        ]
    return []


def _point_problems(spec: SweepSpec) -> list[str]:
    points = spec.search.points
    found: list[str] = []
    if len(points) >= spec.search.num_trials:
        found.append(
            f"search.points: must be fewer than num_trials, of which trial 0 is the default "
            f"configuration, got {len(points)} points and {spec.search.num_trials} trials; set "
            f"num_trials: {len(points) + 1} or more"
        )
    if spec.space_file is not None:
        return found + [
            f"search.points.{number}.{problem}"
            for number, point in enumerate(points)
            for problem in param_problems(spec, point)
        ]
    if not points or any(path_problem(spec, path) for path in spec.search_space):
        return found
    earlier = {"trial 0, the default configuration": spec.default_params()}
    for number, point in enumerate(points):
        path = f"search.points.{number}"
        wrong = [f"{path}.{problem}" for problem in _values_outside(spec, point)]
        found += wrong
        if wrong:
            continue
        params = _completed(spec, point)
        inactive = [field for field in point if field not in params]
        found += [
            f"{path}.{field}: has no effect there, its `when` does not hold; remove it, or give "
            f"{', '.join(spec.search_space[field].when or {})} the value it needs"
            for field in inactive
        ]
        if not inactive:
            found += [f"{path}: {problem}" for problem in _together(spec, params)]
        same = next((name for name, other in earlier.items() if other == params), None)
        if same and not inactive:
            found.append(f"{path}: must differ from the others, and is {same}; remove it")
        earlier[f"search.points.{number}"] = params
    return found


def _values_outside(spec: SweepSpec, point: dict[str, Any]) -> list[str]:
    """`field: problem` of what a search could not propose."""
    found = []
    for field, value in point.items():
        param = spec.search_space.get(field)
        if param is None:
            hint = did_you_mean(field, list(spec.search_space))
            found.append(f"{field}: is not searched{hint or '; remove it, or search it'}")
        elif not contains(param, value):
            if isinstance(param, ChoiceParam):
                rule = f"one of {shown(param.choice)}"
            else:
                step = f" in steps of {param.step:g}" if param.step else ""
                kind = "" if isinstance(param, FloatParam) else "a whole number "
                rule = f"{kind}from {param.low:g} to {param.high:g}{step}"
            found.append(f"{field}: must lie in search_space, {rule}, got {shown(value)}")
    return found


def _completed(spec: SweepSpec, point: dict[str, Any]) -> dict[str, Any]:
    """A point with the spec's own values where it has none, without what is not searched there."""
    raw = spec.model_dump()
    params = {path: point.get(path, get_path(raw, path)) for path in spec.search_space}
    return {path: params[path] for path in active_paths(spec.search_space, params)}


def _together(spec: SweepSpec, params: dict[str, Any]) -> list[str]:
    """What is wrong with the values of one configuration beside each other."""
    alone = spec.model_dump() | {"search_space": {}, "space_file": None}
    for path, value in params.items():
        set_path(alone, path, value)
    return ppo_problems(SweepSpec.model_validate(alone))


def earlier_sweep(spec: SweepSpec) -> Path | None:
    """The folder of the sweep that `search.points_from` names; None where there is none."""
    name = spec.search.points_from
    if name is None:
        return None
    for folder in (Path(spec.output.folder) / os.path.expanduser(name), Path(name).expanduser()):
        if os.path.isfile(folder / JOURNAL):
            return folder
    return None


def _earlier_sweep_problems(spec: SweepSpec) -> list[str]:
    name = spec.search.points_from
    if name is None or earlier_sweep(spec) is not None:
        return []
    sweeps = sorted(path.parent.name for path in Path(spec.output.folder).glob(f"*/{JOURNAL}"))
    hint = did_you_mean(name, sweeps) or (f"; there are {', '.join(sweeps)}" if sweeps else "")
    return [
        f"search.points_from: no {JOURNAL} in {Path(spec.output.folder) / name} or {name}{hint}"
    ]


def _space_file_problems(spec: SweepSpec) -> list[str]:
    """What the file says to some draws, each told of once; the first wrong draw is enough."""
    path = spec.space_file
    if path is None:
        return []
    if spec.search_space:
        return ["space_file: stands in place of search_space, got both; remove one of the two"]
    rng, asked = random.Random(spec.seed), False
    for _ in range(TRIED_DRAWS):
        trial = StandInTrial({}, rng)
        try:
            params = draw(path, trial)
        except SpecError as error:
            return error.problems
        problems = param_problems(spec, params) or _together(spec, params)
        if problems:
            known = ", ".join(searchable_paths(spec))
            more = f"; what can be searched: {known}" if "is no field" in problems[0] else ""
            return [f"space_file: {problem}{more}" for problem in problems]
        asked |= bool(trial.params)
    if not asked and spec.search.num_trials > 1:
        return ["space_file: must ask the trial for a value, such as trial.suggest_float("
                "'training.learning_rate', 1e-5, 1e-3, log=True), and asks for none"]  # fmt: skip
    return []


def _keep_problems(spec: SweepSpec) -> list[str]:
    """The finals need the checkpoints of all who enter them."""
    keep = spec.output.keep
    if spec.finals is None or len(spec.objectives) > 1 or keep is None or keep >= spec.finals.top:
        return []
    return [
        f"output.keep: must be at least finals.top, got {keep} < {spec.finals.top}; "
        f"set output.keep: {spec.finals.top}"
    ]


def _finals_problems(spec: SweepSpec) -> list[str]:
    if spec.finals is not None and spec.finals.seeds and len(spec.objectives) > 1:
        return [
            "finals.seeds: must be 0 with several objectives, which have a front and no finals, "
            f"got {spec.finals.seeds}; remove it, or search for one objective"
        ]
    if spec.finals is None or spec.finals.prompts is None or spec.judge is not None:
        return []
    if any(objective.metric in JUDGED for objective in spec.objectives):
        return []  # then the judge itself is missing, which is told
    return [
        "finals.prompts: need a judge, which asks them, and there is none; remove them: finals on "
        "held-out records keep some of those back"
    ]
