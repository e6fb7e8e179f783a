"""The Pareto front of a sweep with several objectives: what no other checkpoint beats in all."""

from __future__ import annotations

from dataclasses import dataclass

from easyds_tune.journal.bounds import violation
from easyds_tune.journal.events import Objective
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.ranking import RankedTrial, finite_metric


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A checkpoint of the front; `values` in the order of the sweep's objectives."""

    trial: TrialRecord
    step: int
    checkpoint: str
    values: tuple[float, ...]


def pareto_front(record: SweepRecord) -> list[FrontPoint]:
    """Feasible checkpoints that no other one equals or beats in every objective and beats in one.

    Best first by the first objective, in a tie by the next.
    """
    points = [point for trial in record.trials.values() for point in _points(record, trial)]
    points.sort(key=lambda point: (_costs(point, record.objectives), point.trial.number))
    front: list[FrontPoint] = []
    for point in points:
        costs = _costs(point, record.objectives)
        # Whatever beats it comes before it; of equals the earlier trial stays.
        if not any(
            all(a <= b for a, b in zip(_costs(other, record.objectives), costs, strict=True))
            for other in reversed(front)
        ):
            front.append(point)
    return front


def _points(record: SweepRecord, trial: TrialRecord) -> list[FrontPoint]:
    found = []
    for report in trial.reports:
        checkpoint = trial.checkpoints.get(report.step)
        values = [finite_metric(report, objective.metric) for objective in record.objectives]
        known = tuple(value for value in values if value is not None)
        if checkpoint is None or len(known) < len(values):
            continue
        outside = violation(record.bounds, report.metrics)
        if RankedTrial(trial, report, report.step, known[0], violation=outside).is_fit:
            found.append(FrontPoint(trial, report.step, checkpoint, known))
    return found


def _costs(point: FrontPoint, objectives: tuple[Objective, ...]) -> tuple[float, ...]:
    """Values with their signs such that less is better."""
    return tuple(
        -value if objective.mode == "max" else value
        for value, objective in zip(point.values, objectives, strict=True)
    )
