"""Checks of objectives and bounds: of what is reported, within the budget, not contradictory."""

from __future__ import annotations

import math

from easyds_tune.spec.bounds import BoundSpec
from easyds_tune.spec.messages import did_you_mean
from easyds_tune.spec.metrics import (
    COSTS,
    GPU_MEMORY,
    JUDGED,
    METRICS,
    OF_THE_CRITIC,
    OF_THE_JUDGE,
    reported,
)
from easyds_tune.spec.resources import gpus_of
from easyds_tune.spec.sweep import Budget, SweepSpec

NEEDS_HELD_OUT = (
    "data.eval: is required and missing, because the objective is eval/loss and nothing "
    "is held out; give data.eval, or an eval_fraction such as 0.1"
)


def metric_problems(spec: SweepSpec) -> list[str]:
    """What is wrong with the objectives and bounds of a spec, whatever its budget."""
    if spec.algorithm.type == "rm" and spec.judge is not None:
        return ["judge: a reward model writes no replies and is judged by eval/accuracy; remove it"]
    return [*_objective_problems(spec), *_bound_problems(spec)]


def _objective_problems(spec: SweepSpec) -> list[str]:
    found = []
    for position, objective in enumerate(spec.objectives):
        path = f"objective.{position}.metric" if len(spec.objectives) > 1 else "objective.metric"
        if objective.metric in [other.metric for other in spec.objectives[:position]]:
            found.append(f"{path}: must differ from the others, got {objective.metric} twice; "
                         "remove one")  # fmt: skip
            continue
        problem = _metric_problem(spec, path, objective.metric, is_first=position == 0)
        if problem and problem not in found:
            found.append(problem)
    if len(spec.objectives) > 1:
        found += _several_problems(spec)
    return found


def _metric_problem(spec: SweepSpec, path: str, metric: str, *, is_first: bool) -> str | None:
    kind = spec.algorithm.type
    costs = COSTS
    known = METRICS[kind] if is_first else [*METRICS[kind], *costs]
    if metric in costs and is_first:
        return (
            f"{path}: {metric} says nothing of what was learnt, and the first objective ranks the "
            f"trials; begin the list with one of {', '.join(known)}"
        )
    if metric.startswith("train/") and metric not in known:
        return (
            f"{path}: {metric} cannot compare trials, whose batch, schedule and loss may "
            f"differ; use one of {', '.join(known)}"
        )
    if metric not in known:
        hint = did_you_mean(metric, known) or f"; it reports {', '.join(known)}"
        return f"{path}: {kind} does not report {metric}{hint}"
    if metric in JUDGED and spec.judge is None:
        remedy = "give one" + (", or set objective.metric: eval/loss" if kind == "sft" else "")
        return f"judge: is required and missing, because the objective is {metric}; {remedy}"
    nothing_held_out = spec.data.eval is None and spec.data.eval_fraction == 0
    if kind == "sft" and metric == "eval/loss" and nothing_held_out:
        return NEEDS_HELD_OUT
    return None


def _several_problems(spec: SweepSpec) -> list[str]:
    """Several objectives have no best half: nothing can stop a trial by its rank."""
    found = []
    count = len(spec.objectives)
    if spec.search.sampler == "cmaes":
        found.append(
            f"search.sampler: must take several objectives, and cmaes takes one, got {count}; "
            "set tpe or nsga2"
        )
    if spec.scheduler.type not in ("auto", "none"):
        found.append(
            f"scheduler.type: must be none for several objectives, which no rung can rank, got "
            f"{spec.scheduler.type} and {count}; set none"
        )
    return found


def _bound_problems(spec: SweepSpec) -> list[str]:
    found, known = [], reported(spec)
    for metric, bounds in spec.bounds.items():
        path = f"bounds.{metric}"
        if metric in known:
            found += _contradictions(path, bounds)
        elif metric in OF_THE_JUDGE and spec.algorithm.type != "rm":
            found.append(f"judge: is required and missing, because {metric} has a bound")
        elif metric in OF_THE_CRITIC and spec.algorithm.type == "ppo":
            found.append(
                f"{path}: only trials with a value head report {metric}; remove it, or train all "
                "with advantage_estimator: gae"
            )
        else:
            hint = did_you_mean(metric, known) or f"; it reports {', '.join(known)}"
            found.append(f"{path}: {spec.algorithm.type} does not report {metric}{hint}")
    return list(dict.fromkeys(found))


def _contradictions(path: str, bounds: tuple[BoundSpec, ...]) -> list[str]:
    """In the end all bounds on a metric hold together, from whatever step each is watched."""
    low = max((bound.min for bound in bounds if bound.min is not None), default=-math.inf)
    high = min((bound.max for bound in bounds if bound.max is not None), default=math.inf)
    if low < high:
        return []
    return [
        f"{path}: its bounds must leave room for a value, got min={low:g} and max={high:g}; "
        "change one of them"
    ]


def gpu_problems(spec: SweepSpec) -> list[str]:
    """A bound on the memory of a GPU, where trials have none."""
    if GPU_MEMORY not in spec.bounds or gpus_of(spec.resources):
        return []
    return [f"bounds.{GPU_MEMORY}: needs a GPU, and trials have none here; remove it"]


def bound_budget_problems(spec: SweepSpec, budget: Budget) -> list[str]:
    """Bounds that no report of a trial of the spec's own batch could break."""
    found = []
    for metric, bounds in spec.bounds.items():
        for position, bound in enumerate(bounds):
            path = f"bounds.{metric}" if len(bounds) == 1 else f"bounds.{metric}.{position}"
            if bound.from_step > budget.max_steps:
                found.append(
                    f"{path}.from_step: must be within the {budget.max_steps} steps of a trial, "
                    f"got {bound.from_step}; lower it"
                )
                continue
            last = math.ceil(budget.max_steps / budget.eval_steps)
            before = max(0, math.ceil(bound.from_step / budget.eval_steps) - 1)
            reports = max(1, last - before)
            if bound.patience > reports:
                found.append(
                    f"{path}.patience: must be at most {reports}, the reports from step "
                    f"{bound.from_step} on, got {bound.patience}; lower it"
                )
    return found
