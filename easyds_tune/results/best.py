"""`best.json`: the winner, what it is compared with, and why it won.

Where finals were held, theirs is the number and the search's own stands beside it: that one is the
luckiest of many, and so biased upward.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from easyds_tune.journal.intervals import interval_95
from easyds_tune.journal.replay import Report, SweepRecord, TrialRecord
from easyds_tune.results.bootstrap import Estimate
from easyds_tune.results.files import replacing
from easyds_tune.results.finals import Finalist, Settled, settle
from easyds_tune.results.pareto import pareto_front
from easyds_tune.results.ranking import (
    RankedTrial,
    find_default,
    find_search_winner,
    rank,
    rivals_of,
    stderr_name,
)
from easyds_tune.results.verified import RUNNERS_UP, verified
from easyds_tune.results.why import difference_of, nearest_miss, reasons

BEST_NAME = "best.json"
SCHEMA_VERSION = 2


def best_json(record: SweepRecord) -> dict[str, Any]:
    """What `best.json` says. `winner` is None where no trial is fit to win.

    Paths are relative to the sweep's folder; a metric that is not finite is null.
    """
    settled = settle(record)
    compared = _by_search(record) if settled is None else _by_finals(record, settled)
    return {
        "version": SCHEMA_VERSION,
        "sweep": record.name,
        "algorithm": record.algorithm,
        "objective": {"metric": record.objective.metric, "mode": record.objective.mode},
        "objectives": [asdict(objective) for objective in record.objectives],
        "bounds": [asdict(bound) for bound in record.bounds],
        "trials": len(record.trials),
        "judged_by": "search" if settled is None else "finals",
        **compared,
        "front": _front(record),
        "why": " ".join(reasons(record, settled)),
    }


def write_best(record: SweepRecord, folder: Path) -> Path:
    """Write `best.json` into the sweep's folder, whole or not at all, and return its path.

    Every checkpoint that it names is verified now.
    """
    path = folder / BEST_NAME
    record, _ = verified(record, folder)
    text = json.dumps(best_json(record), ensure_ascii=False, indent=2, allow_nan=False)
    with replacing(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    return path


def _by_finals(record: SweepRecord, settled: Settled) -> dict[str, Any]:
    """Who won the finals, and by how much, on the reporting half of their prompts."""
    metric = record.objective.metric

    def describe(finalist: Finalist | None) -> dict[str, Any] | None:
        return None if finalist is None else _describe_finalist(finalist, metric)

    return {
        "winner": describe(settled.winner),
        "default": describe(settled.default),
        "gain_over_default": _gain(settled.over_default),
        "gain_over_runner_up": _gain(settled.over_runner_up),
        "runners_up": [describe(rival) for rival in settled.rivals[:RUNNERS_UP]],
        "nearest_miss": describe(settled.nearest_miss),
    }


def _by_search(record: SweepRecord) -> dict[str, Any]:
    """Who has the best report, and by how much, as the search measured it."""
    ranking = rank(record)
    winner, default = find_search_winner(record, ranking), find_default(ranking)
    rivals = rivals_of(ranking, winner)
    # A default that failed or broke a bound is no measure, whatever it scored.
    measure = default if default is not None and default.is_fit else None
    nearest = nearest_miss(ranking)

    def gain(other: RankedTrial | None) -> dict[str, Any] | None:
        known = winner is not None and other is not None
        return _gain(difference_of(winner, other)) if known else None  # type: ignore[arg-type]

    return {
        "winner": None if winner is None else _describe_ranked(winner),
        "default": None if default is None else _describe_ranked(default),
        "gain_over_default": gain(measure),
        "gain_over_runner_up": gain(rivals[0] if rivals else None),
        "runners_up": [] if winner is None else [_describe_ranked(o) for o in rivals[:RUNNERS_UP]],
        "nearest_miss": None if nearest is None else _describe_ranked(nearest),
    }


def _describe_finalist(finalist: Finalist, metric: str) -> dict[str, Any]:
    """A finalist: its objective on the reporting half, its other metrics on all finals prompts."""
    report = next((r for r in finalist.trial.reports if r.step == finalist.step), None)
    metrics = {} if report is None else _with_intervals(report)
    for name, measured in {**finalist.metrics, metric: finalist.reported}.items():
        metrics[name] = {**_measured(measured), "search": metrics.get(name)}
    return {
        **_place(finalist.trial, finalist.step, finalist.trial.checkpoints.get(finalist.step)),
        **_measured(finalist.reported),
        "search": {"value": finalist.search, "stderr": finalist.search_stderr},
        "trainings": list(finalist.trainings),
        "violation": finalist.violation,
        "metrics": metrics,
    }


def _describe_ranked(ranked: RankedTrial) -> dict[str, Any]:
    return {
        **_place(ranked.trial, ranked.step, ranked.checkpoint),
        "value": ranked.value,
        "stderr": ranked.stderr,
        "violation": ranked.violation,
        "metrics": {} if ranked.report is None else _with_intervals(ranked.report),
    }


def _front(record: SweepRecord) -> list[dict[str, Any]]:
    """The Pareto front of several objectives; empty for one."""
    if len(record.objectives) == 1:
        return []
    names = [objective.metric for objective in record.objectives]
    return [
        {
            **_place(point.trial, point.step, point.checkpoint),
            "values": dict(zip(names, point.values, strict=True)),
        }
        for point in pareto_front(record)
    ]


def _place(trial: TrialRecord, step: int | None, checkpoint: str | None) -> dict[str, Any]:
    return {
        "trial": trial.id,
        "state": str(trial.state),
        "step": step,
        "checkpoint": checkpoint,
        "params": trial.params,
    }


def _measured(measured: Estimate) -> dict[str, Any]:
    return {"value": measured.value, "interval_95": [measured.low, measured.high]}


def _gain(gap: Estimate | None) -> dict[str, Any] | None:
    """What was gained; `distinguishable` is false where that may be chance."""
    return None if gap is None else {**_measured(gap), "distinguishable": not gap.holds_zero}


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
