"""`best.json`: the winner, what it is compared with, and why it won."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from easyds_tune.journal.intervals import interval_95
from easyds_tune.journal.replay import Report, SweepRecord
from easyds_tune.results.files import replacing
from easyds_tune.results.ranking import (
    RankedTrial,
    find_default,
    find_winner,
    finite_metric,
    rank,
    stderr_name,
)
from easyds_tune.results.text import format_measured

BEST_NAME = "best.json"
SCHEMA_VERSION = 1
_KL = "eval/kl"
_RUNNERS_UP = 3


def best_json(record: SweepRecord) -> dict[str, Any]:
    """What `best.json` says. `winner` is None where no trial is fit to win.

    Paths are relative to the sweep's folder; a metric that is not finite is null.
    """
    ranking = rank(record)
    winner, default = find_winner(ranking), find_default(ranking)
    rivals = [other for other in ranking if other.is_fit and other is not winner]
    return {
        "version": SCHEMA_VERSION,
        "sweep": record.name,
        "algorithm": record.algorithm,
        "objective": {"metric": record.objective.metric, "mode": record.objective.mode},
        "trials": len(ranking),
        "winner": None if winner is None else _describe(winner),
        "why": _explain(record, ranking, winner, default),
        "default": None if default is None else _describe(default),
        "gain_over_default": _gain(winner, default),
        "runners_up": [] if winner is None else [_describe(o) for o in rivals[:_RUNNERS_UP]],
    }


def write_best(record: SweepRecord, folder: Path) -> Path:
    """Write `best.json` into the sweep's folder, whole or not at all, and return its path."""
    path = folder / BEST_NAME
    text = json.dumps(best_json(record), ensure_ascii=False, indent=2, allow_nan=False)
    with replacing(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    return path


def _describe(ranked: RankedTrial) -> dict[str, Any]:
    return {
        "trial": ranked.trial.id,
        "state": str(ranked.trial.state),
        "step": ranked.step,
        "checkpoint": ranked.checkpoint,
        "value": ranked.value,
        "stderr": ranked.stderr,
        "params": ranked.trial.params,
        "metrics": {} if ranked.report is None else _with_intervals(ranked.report),
    }


def _with_intervals(report: Report) -> dict[str, dict[str, Any]]:
    """Each metric with its standard error and 95 % interval where the trial reported one."""
    metrics = report.metrics
    errors = {stderr_name(name) for name in metrics} & set(metrics)
    described: dict[str, dict[str, Any]] = {}
    for name, value in metrics.items():
        if name in errors:
            continue
        described[name] = {"value": value if math.isfinite(value) else None}
        stderr = metrics.get(stderr_name(name), math.nan)
        if math.isfinite(value) and math.isfinite(stderr):
            interval = list(interval_95(name, value, stderr))
            described[name] |= {"stderr": stderr, "interval_95": interval}
    return described


def _gain(
    winner: RankedTrial | None, default: RankedTrial | None
) -> dict[str, float | None] | None:
    """What searching bought; None where the default failed or broke a bound, whatever it scored."""
    if winner is None or default is None or not default.is_fit:
        return None
    return _difference(winner, default)


def _difference(one: RankedTrial, other: RankedTrial) -> dict[str, float | None] | None:
    """`one` minus `other`, None where one has no value.

    The errors are added as if independent, which common prompts make too wide rather than too
    narrow.
    """
    if one.value is None or other.value is None:
        return None
    both = one.stderr is not None and other.stderr is not None
    stderr = math.hypot(one.stderr or 0.0, other.stderr or 0.0) if both else None
    return {"value": one.value - other.value, "stderr": stderr}


def _explain(
    record: SweepRecord,
    ranking: list[RankedTrial],
    winner: RankedTrial | None,
    default: RankedTrial | None,
) -> str:
    metric = record.objective.metric
    if winner is None:
        return f"No trial is fit to win: none of {len(ranking)} kept a finite {metric}."
    extreme = "highest" if record.objective.mode == "max" else "lowest"
    parts = [
        f"Trial {winner.trial.id} at step {winner.step} has the {extreme} {metric}, "
        f"{format_measured(winner.value, winner.stderr)}, of {_count(ranking)}."
    ]
    if metric != _KL and winner.report is not None:
        # A high reward far from the start is often a reward model fooled by broken text.
        kl = finite_metric(winner.report, _KL)
        if kl is not None:
            far = format_measured(kl, finite_metric(winner.report, stderr_name(_KL)))
            parts.append(f"It moved {far} nats per token away from the model it started from.")
    if winner is default:
        parts.append("It is the default configuration: the search found nothing better.")
    elif default is not None and default.value is not None:
        unfit = "" if default.is_fit else f" ({default.trial.state})"
        parts.append(f"The default configuration{unfit} has {_compare(winner, default)}.")
    rival = next((o for o in ranking if o.is_fit and o not in (winner, default)), None)
    if rival is not None:
        parts.append(f"The runner-up, trial {rival.trial.id}, has {_compare(winner, rival)}.")
    if winner.checkpoint is None:
        parts.append("It has no checkpoint, so it cannot be exported.")
    return " ".join(parts)


def _count(ranking: list[RankedTrial]) -> str:
    """The trials that were compared, in words."""
    fit = sum(ranked.is_fit for ranked in ranking)
    if fit == len(ranking):
        return f"{fit} trial" if fit == 1 else f"{fit} trials"
    return "the 1 trial fit to win" if fit == 1 else f"the {fit} trials fit to win"


def _compare(winner: RankedTrial, other: RankedTrial) -> str:
    """The other's value, and whether the gap is more than two standard errors."""
    text = format_measured(other.value, other.stderr)
    gap = _difference(winner, other)
    if gap is None or gap["value"] is None or not gap["stderr"]:
        return text
    if abs(gap["value"]) <= 2 * gap["stderr"]:
        return f"{text}: within two standard errors, so perhaps by chance"
    return f"{text}: {abs(gap['value']) / gap['stderr']:.1f} standard errors away"
